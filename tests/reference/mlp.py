"""Two matrix products and the error function."""

import math

import torch
from torch import Tensor, nn


def mlp(module: nn.Module, x: Tensor) -> Tensor:
    """The Gaussian error linear unit from its definition, x times the normal distribution function."""
    state = {name: value.double() for name, value in module.state_dict().items()}
    hidden = torch.einsum("...d,md->...m", x.double(), state["fc1.weight"]) + state["fc1.bias"]
    below = [(1 + math.erf(a / math.sqrt(2))) / 2 for a in hidden.flatten().tolist()]
    hidden = hidden * torch.tensor(below, dtype=torch.float64).reshape(hidden.shape)
    return torch.einsum("...m,dm->...d", hidden, state["fc2.weight"]) + state["fc2.bias"]
