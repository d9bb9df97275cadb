# SPDX-License-Identifier: MIT
"""A transformer encoder: a stack of blocks and a last normalisation.

    Encoder(x) = norm(block_L(... block_2(block_1(x))))

Letters: B batch, N tokens, D width, L depth.

Source: "An Image is Worth 16x16 Words", Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), equations 2 to 4;
"Deep Networks with Stochastic Depth", Huang et al. 2016 (https://arxiv.org/abs/1603.09382), equation 4.

Convention: blocks are pre-norm, hence the final norm (eps 1e-6), over every token. Block l of L skips a branch with
probability stochastic_depth * l / L, as in the paper; timm starts at zero, l - 1 of L - 1. Positions are not added
here: without them the encoder treats its tokens as a set.
"""

from functools import partial
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import joined, parted, rate, whole
from .block import Block


def check_tokens(x: Tensor, mask: Tensor | None, first: int | None, dim: int) -> None:
    """Refuse tokens or a mask of another shape, and more tokens than there are."""
    if x.ndim != 3 or x.shape[-1] != dim:
        raise ValueError(f"Encoder: input {tuple(x.shape)} must be (B, N, {dim})")
    count = x.shape[1]
    if first is not None and (isinstance(first, bool) or not isinstance(first, (int, torch.SymInt))):
        first = whole("Encoder: first", first)
    if first is not None and not 1 <= first <= count:
        raise ValueError(f"Encoder: first ({first}) must be at least 1 and at most N ({count})")
    if mask is not None and not isinstance(mask, Tensor):
        raise TypeError(f"Encoder: mask ({mask!r}) must be a tensor")
    if mask is not None and (mask.ndim != 4 or any(size not in (1, count) for size in mask.shape[2:])):
        full = f"(B, num_heads, {count}, {count})"
        raise ValueError(f"Encoder: mask {tuple(mask.shape)} must be {full} or 1 in any place")


def first_rows(mask: Tensor | None, count: int | None) -> Tensor | None:
    """Return what a mask says of the first tokens."""
    return None if mask is None else mask[:, :, :count]


def stacked(weights: list[Tensor | None]) -> Tensor | None:
    """Return the weights of all layers (B, L, heads, N, N), None where they were not asked for."""
    each = [layer for layer in weights if layer is not None]
    return torch.stack(each, 1) if each else None


# torch.fx, which follows no branch, calls them as they are
for _name in ("check_tokens", "first_rows", "joined", "parted", "stacked"):
    torch.fx.wrap(_name)


class Encoder(nn.Module):
    """Blocks one after another, then a LayerNorm.

    Args:
        dim: Width of a token.
        depth: Number of blocks.
        num_heads: Number of attention heads in each.
        mlp_dim: Hidden width of each MLP.
        qkv_bias: Whether q, k and v have a bias.
        dropout: Probability of dropping an element of any branch, and of any MLP's hidden layer.
        attn_dropout: Probability of dropping an attention weight.
        stochastic_depth: Probability that a sample skips a branch of the last block; linear in depth before it.
        checkpointing: Keep only the input of each block for the backward pass and compute the rest once more there:
            far less memory for about a third more time. The numbers stay the same. Not within the transforms of
            ``torch.func``, which torch cannot do.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, N, dim), ``mask`` (B, num_heads, N, N), True = attend, and ``is_causal``, as in ``Attention``, for
          every block.
        - Output: (B, N, dim); with ``return_weights=True`` also all attention weights (B, depth, num_heads, N, N).
        - With ``first=n`` only the first n tokens (B, n, dim). The last block then leaves out what nobody reads, unless
          weights are asked for: those are of every token.

    Raises:
        TypeError: If an option has a wrong type, or the mask is neither boolean nor floating point.
        ValueError: If a size, a probability or ``first`` is out of range, or input or mask have another shape.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        num_heads: int,
        mlp_dim: int,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        checkpointing: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        depth = whole("Encoder: depth", depth)
        if depth < 1:
            raise ValueError(f"Encoder: depth ({depth}) must be at least 1")
        stochastic_depth = rate("Encoder: stochastic_depth", stochastic_depth)
        if not isinstance(checkpointing, bool):
            raise TypeError(f"Encoder: checkpointing ({checkpointing!r}) must be True or False")
        self.checkpointing = checkpointing
        # every child draws its parameters as it is built, so that reset_parameters has nothing to do here
        blocks = [
            Block(
                dim, num_heads, mlp_dim=mlp_dim, qkv_bias=qkv_bias, dropout=dropout, attn_dropout=attn_dropout,
                stochastic_depth=stochastic_depth * (index + 1) / depth, device=device, dtype=dtype,
            )
            for index in range(depth)
        ]  # fmt: skip
        self.dim = blocks[0].dim
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(self.dim, eps=1e-6, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new weights in every block; the final norm returns to scale one and shift zero."""
        for child in (*self.blocks, self.norm):
            child.reset_parameters()

    @overload
    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = ...,
        is_causal: bool = ...,
        return_weights: Literal[False] = ...,
        first: int | None = ...,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = ...,
        is_causal: bool = ...,
        return_weights: Literal[True],
        first: int | None = ...,
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = ...,
        is_causal: bool = ...,
        return_weights: bool,
        first: int | None = ...,
    ) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
        return_weights: bool = False,
        first: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the tokens after all blocks, and the attention weights of each where they are asked for."""
        check_tokens(x, mask, first, self.dim)
        attention: list[Tensor | None] = []
        for index, block in enumerate(self.blocks, 1):
            context = None
            if first is not None and index == len(self.blocks) and return_weights is False:  # torch.fx leaves it open
                x, context, mask = x[:, :first], x, first_rows(mask, first)
            checkpointing = self.checkpointing and torch.is_grad_enabled()
            run = partial(checkpoint, block, use_reentrant=False) if checkpointing else block
            output = run(x, context, mask=mask, is_causal=is_causal, return_weights=return_weights)
            x, weights = parted(output)  # (B, N, D), (B, heads, N, N)
            attention.append(weights)
        x = self.norm(x[:, :first])
        return joined(x, stacked(attention))

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own returns Any

    def extra_repr(self) -> str:
        """Show the options in ``print(module)``."""
        return f"dim={self.dim}, checkpointing={self.checkpointing}"
