"""The kit's weights in modules of other libraries."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from vit_pytorch import vit as vit_pytorch

State = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def drawn(module: Module) -> Module:
    """Add noise to all parameters, so that none is all zeros or ones."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module


def loaded(build: Callable[[], Module], state: State) -> Module:
    """Build a module and load a copy of these weights, strictly."""
    with torch.device("meta"):
        module = build()
    module.load_state_dict({name: value.clone() for name, value in state.items()}, strict=True, assign=True)
    return module


def renamed(state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same weights, with parts of their names replaced."""
    found = {}
    for name, value in state.items():
        new = name
        for part, theirs in names.items():
            new = new.replace(part, theirs)
        found[new] = value
    return found


def as_ours(module: Module) -> Module:
    """Give vit-pytorch's module the bias of q, k and v that it lacks, and the epsilon of our norms."""
    for child in [*module.modules()]:
        if isinstance(child, vit_pytorch.Attention):
            child.to_qkv = nn.Linear(child.to_qkv.in_features, child.to_qkv.out_features)
        if isinstance(child, nn.LayerNorm):
            child.eps = 1e-6
    return module
