"""The kit's weights in modules of other libraries."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def drawn(module: Module) -> Module:
    """Draw all that starts at zero or one too, but for the bias of q, k and v, which vit-pytorch has not."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.endswith("qkv.bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module


def loaded(build: Callable[[], Module], state: State) -> Module:
    """A module with weights of its own that are equal to these, every name of them used."""
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


def without_qkv_bias(state: State) -> dict[str, Tensor]:
    """All but a bias that ``drawn`` left at zero."""
    return {name: value for name, value in state.items() if not name.endswith("qkv.bias")}


def with_our_epsilon(module: Module) -> Module:
    """Every norm divides by what ours divides by."""
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            child.eps = 1e-6
    return module
