"""The undecorated optimizers take the same steps as torch's, and save and load the same state."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from scripts.training import untraced

OPTIONS = {"SGD": {"momentum": 0.9, "fused": True}, "AdamW": {"weight_decay": 0.1, "fused": True}}


def trained(kind: type[torch.optim.Optimizer], options: dict[str, object]) -> list[torch.Tensor]:
    """Weights and state after two steps, with the state moved to a new optimizer after each."""
    torch.manual_seed(0)
    network = nn.Linear(5, 4, bias=False)
    optimizer = kind(network.parameters(), lr=0.1, **options)
    state = []
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(3, 5)).square().sum().backward()
        optimizer.step()
        state.append(deepcopy(optimizer.state_dict()))
        optimizer = kind(network.parameters(), lr=0.1, **options)
        optimizer.load_state_dict(state[-1])
    return [network.weight.detach(), *(value for each in state[-1]["state"].values() for value in each.values())]


@pytest.mark.parametrize("name", OPTIONS)
def test_it_computes_the_same_as_torchs(name: str) -> None:
    found, expected = (trained(getattr(module, name), OPTIONS[name]) for module in (untraced, torch.optim))
    assert len(found) == len(expected) > 1
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
