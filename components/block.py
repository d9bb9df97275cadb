# SPDX-License-Identifier: MIT
"""One layer of a transformer: attention, then an MLP, each as a correction to what is there.

    y = x + Attention(norm1(x), norm1(context)),  Block(x, context) = y + MLP(norm2(y))

Letters: B batch, N tokens of x, M tokens of the context (M = N without one), D width.

Source: "An Image is Worth 16x16 Words", Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), equations 2 and 3;
stochastic depth: "Deep Networks with Stochastic Depth", Huang et al. 2016 (https://arxiv.org/abs/1603.09382).

Convention: pre-norm: the residual path itself is never normalised. LayerNorm eps 1e-6 as in Flax and timm (torch's
default is 1e-5). Stochastic depth drops a branch for whole samples in training and scales what it keeps by
1 / (1 - rate), so that nothing changes in evaluation.
"""

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, given, joined, parted, rate
from .mlp import MLP


def check_tokens(x: Tensor, context: Tensor | None, dim: int) -> None:
    """Refuse tokens or a context of another shape."""
    if x.ndim != 3 or x.shape[-1] != dim:
        raise ValueError(f"Block: input {tuple(x.shape)} must be (B, N, {dim})")
    if context is not None and (context.ndim != 3 or context.shape[::2] != x.shape[::2]):
        raise ValueError(f"Block: context {tuple(context.shape)} must be ({x.shape[0]}, M, {dim})")


# torch.fx, which follows no branch, calls them as they are
for _name in ("check_tokens", "given", "joined", "parted"):
    torch.fx.wrap(_name)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection.

    Args:
        dim: Width of a token.
        num_heads: Number of attention heads.
        mlp_dim: Hidden width of the MLP.
        qkv_bias: Whether q, k and v have a bias.
        dropout: Probability of dropping an element of either branch, and of the MLP's hidden layer.
        attn_dropout: Probability of dropping an attention weight.
        stochastic_depth: Probability that a sample skips the attention, and independently the MLP, in training.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, N, dim); context (B, M, dim), x itself if there is none, ``mask`` (B, num_heads, N, M), True =
          attend, and ``is_causal``, as in ``Attention``. ``block(x[:, :n], x)`` computes the first n tokens alone.
        - Output: (B, N, dim); with ``return_weights=True`` also the attention weights (B, num_heads, N, M).

    Raises:
        TypeError: If an option has a wrong type, or the mask is neither boolean nor floating point.
        ValueError: If a size or a probability is out of range, or input, context or mask have another shape.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_dim: int,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.stochastic_depth = rate("Block: stochastic_depth", stochastic_depth)
        # every child draws its parameters as it is built, so that reset_parameters has nothing to do here
        attn = Attention(  # before the norms, whose errors name no option
            dim, num_heads, qkv_bias=qkv_bias, dropout=dropout, attn_dropout=attn_dropout, device=device, dtype=dtype
        )
        self.dim = dim = attn.dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, device=device, dtype=dtype)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, device=device, dtype=dtype)
        self.mlp = MLP(dim, mlp_dim, dropout=dropout, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new weights; both norms return to scale one and shift zero."""
        for child in (self.norm1, self.attn, self.norm2, self.mlp):
            child.reset_parameters()

    @overload
    def forward(
        self,
        x: Tensor,
        context: Tensor | None = ...,
        *,
        mask: Tensor | None = ...,
        is_causal: bool = ...,
        return_weights: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor,
        context: Tensor | None = ...,
        *,
        mask: Tensor | None = ...,
        is_causal: bool = ...,
        return_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(
        self,
        x: Tensor,
        context: Tensor | None = ...,
        *,
        mask: Tensor | None = ...,
        is_causal: bool = ...,
        return_weights: bool,
    ) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the tokens after both branches, and the attention weights where they are asked for."""
        check_tokens(x, context, self.dim)
        normed = None if context is None else self.norm1(given(context, x))
        output = self.attn(self.norm1(x), normed, mask=mask, is_causal=is_causal, return_weights=return_weights)
        attended, weights = parted(output)  # (B, N, D), (B, heads, N, M)
        x = x + self._skip_samples(attended)
        x = x + self._skip_samples(self.mlp(self.norm2(x)))
        return joined(x, weights)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own returns Any

    def _skip_samples(self, branch: Tensor) -> Tensor:
        """Multiply by zero or by 1 / (1 - rate), one draw a sample."""
        if not self.training or self.stochastic_depth == 0:
            return branch
        return branch * F.dropout(branch.new_ones(branch.shape[0], 1, 1), self.stochastic_depth)

    def extra_repr(self) -> str:
        """Show the options in ``print(module)``."""
        return f"dim={self.dim}, stochastic_depth={self.stochastic_depth}"
