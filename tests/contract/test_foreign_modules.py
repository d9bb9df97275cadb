"""Two widely used modules, each tested against the contract by one row: what they break, and nothing else."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision import ops

from components import Attention
from tests import reference
from tests.contract.cases import CASES, Case, Refusal
from tests.contract.items import broken
from tests.contract.row import NOT_FOREIGN
from tests.support.strategies import random_mask, random_tokens

OURS = {case.name: case for case in CASES}


def torchvision_mlp(device: str | None = None, dtype: torch.dtype | None = None, **options: object) -> nn.Module:
    """With the device and dtype that its constructor lacks."""
    with torch.device(device or torch.get_default_device()):
        module = ops.MLP(5, [7, 5], activation_layer=nn.GELU, **options)
    return module if dtype is None else module.to(dtype)


class SelfAttention(nn.MultiheadAttention):
    """With our signature; a mask keeps the meaning that it has in torch."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, **factory: object) -> None:
        super().__init__(dim, num_heads, dropout, batch_first=True, **factory)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, return_weights: bool = False):
        mask = None if mask is None else mask.expand(len(x), self.num_heads, -1, -1).flatten(0, 1)
        output = super().forward(x, x, x, attn_mask=mask, need_weights=return_weights, average_attn_weights=False)
        return output if return_weights else output[0]


def as_ours(module: SelfAttention) -> Attention:
    """Our attention with the same weights."""
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
    state = {names.get(name, name.replace("out_", "")): value for name, value in module.state_dict().items()}
    attention = Attention(module.embed_dim, module.num_heads, dtype=torch.float64)
    attention.load_state_dict(state, strict=True)
    return attention


TORCHVISION = replace(
    OURS["MLP"],
    name="torchvision.ops.MLP",
    build=torchvision_mlp,
    reference=lambda module, x: reference.mlp(nn.ModuleDict({"fc1": module[0], "fc2": module[3]}), x),
    keys=("0.weight", "0.bias", "3.weight", "3.bias"),
    exempt=OURS["MLP"].exempt | NOT_FOREIGN | {"print": "what else its options take is not known"},
    refusals=(
        Refusal("MLP: dropout (1.0) must be at least 0 and less than 1", lambda: torchvision_mlp(dropout=1.0)),
        Refusal("MLP: input (2, 7) must be (..., 5)", lambda: torchvision_mlp()(torch.zeros(2, 7))),
    ),
)
TORCH = replace(
    OURS["Attention"],
    name="nn.MultiheadAttention",
    build=lambda **options: SelfAttention(6, 3, **options),
    reference=lambda module, x: reference.attention(as_ours(module), x)[0],
    keys=("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"),
    rates=("dropout",),
    exempt=OURS["Attention"].exempt | NOT_FOREIGN | {"torch.fx": "it does not trace into modules of torch.nn"},
    refusals=(
        Refusal("Attention: dim (10) must be divisible by num_heads (3)", lambda: SelfAttention(10, 3)),
        Refusal("Attention: input (2, 5, 7) must be (B, N, 6)", lambda: SelfAttention(6, 3)(torch.zeros(2, 5, 7))),
    ),
)


@pytest.mark.parametrize(
    ("row", "items"),
    [
        # a rate of one is accepted and gives zeros; errors for a wrong width or type name no module
        (TORCHVISION, {"refusals", "option types"}),
        # AssertionError for wrong sizes; no heads in print(module); the weight of out_proj is read, not called
        (TORCH, {"refusals", "option types", "print", "wrapped layers"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_they_break_these_items_and_no_others(row: Case, items: set[str]) -> None:
    assert set(found := broken(row)) == items, found


def test_in_torch_true_in_a_mask_hides_and_a_row_that_attends_to_nothing_is_nan() -> None:
    """A mask that is passed on unchanged raises no error and gives other numbers."""
    theirs = TORCH.module(dtype=torch.float64)
    ours, x, attend = as_ours(theirs), random_tokens(0, 2, 5, 6), random_mask(0, 2, 3, 5)
    torch.testing.assert_close(theirs(x, mask=~attend), ours(x, mask=attend))
    assert (theirs(x, mask=attend) - ours(x, mask=attend)).abs().max() > 0.1
    attend[0, :, 1] = False
    assert theirs(x, mask=~attend, return_weights=True)[0][0, 1].isnan().all()
    assert torch.equal(ours(x, mask=attend)[0, 1], ours.proj.bias)
