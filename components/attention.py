# SPDX-License-Identifier: MIT
"""Multi-head attention: every token becomes a weighted mean of all tokens, or of those of a context.

    Attention(x, context) = proj(concat over heads of softmax(q k^T / sqrt(D / heads) + mask) v),
    q from qkv(x), k and v from qkv(context)

Letters: B batch, N tokens of x, M tokens of the context (M = N without one), D width, d = D / heads width of a head.

Source: "Attention Is All You Need", Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762), section 3.2.

Convention: one fused ``qkv`` layer; its rows are all of q, then k, then v, each head by head (as in timm). In a mask
True means *attend*, as in ``F.scaled_dot_product_attention``; in ``nn.MultiheadAttention`` it means the opposite.
Weights start as in the original Flax code: q, k, v and proj are each a Xavier uniform square matrix, biases are zero.
"""

import math
import operator
from collections.abc import Set
from contextlib import suppress
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Literal, SupportsIndex, overload

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


def whole(name: str, value: SupportsIndex) -> int:
    """Return a size as an int: any integer type is taken, but neither True nor False, of NumPy and torch neither."""
    if not isinstance(value, bool) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} ({value!r}) must be an integer")


def rate(name: str, value: float) -> float:
    """Return the probability of dropping something as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} ({value!r}) must be a number")
    if not 0 <= value < 1:
        raise ValueError(f"{name} ({value}) must be at least 0 and less than 1")
    return float(value)


def open_mask(mask: Tensor, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make a mask harmless: no NaN comes from a row without keys, nor from a hidden key (0 times NaN is NaN).

    Returns the mask as an addend, which opens rows that attend to nothing so that their softmax exists; the factor of
    each row of the result; k and v with zeros in place of what may not be read. All are as small as the mask allows.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"Attention: mask ({mask!r}) must be a tensor")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"Attention: mask ({mask.dtype}) must be boolean (True = attend) or floating point")
    full = (*q.shape[:3], k.shape[2])
    if mask.ndim != 4 or any(size not in (1, most) for size, most in zip(mask.shape, full, strict=True)):
        raise ValueError(f"Attention: mask {tuple(mask.shape)} must be {full} or 1 in any place")
    bias = mask.to(k.dtype)  # before looking for -inf: the smallest float32 is -inf in bfloat16
    if mask.dtype == torch.bool:
        bias = bias.log().to(k.dtype)  # 0 and -inf; the autocast of a GPU returns float32
    bias = bias + triangle(q, k) if is_causal else bias
    hidden = bias == -torch.inf
    empty = hidden.all(-1, keepdim=True)
    bias = bias.masked_fill(empty, 0)
    if bias.shape[2] == 1:  # all rows hide the same keys
        hidden = hidden.mT.expand(-1, -1, -1, k.shape[3]).contiguous()  # filling takes half as long
        return bias, factor(empty, None, k), k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
    k, v, broken = without_broken(k, v)
    seen = (broken[:, None, None] & ~hidden).any(-1, keepdim=True)
    return bias, factor(empty, seen, k), k, v


def open_causal(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a causal mask that is not written out: the factor, k and v."""
    k, v, broken = without_broken(k, v)
    seen = broken.cumsum(1)[:, None, : q.shape[2], None] > 0
    return factor(torch.zeros_like(seen), seen, k), k, v


def without_broken(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put zeros into k and v where a token is not finite in some head, and tell which tokens those are, (B, M)."""
    infinite = (k.detach() * 0).sum((1, 3)) + (v.detach() * 0).sum((1, 3))  # five times as fast as isfinite
    broken = infinite.isnan()
    here = broken[:, None, :, None]
    return k.masked_fill(here, 0), v.masked_fill(here, 0), broken


def factor(empty: Tensor, seen: Tensor | None, like: Tensor) -> Tensor:
    """One for each row, but 0 where it attends to nothing, and NaN where it sees something that is not finite."""
    ones = (~empty).to(like.dtype)
    return ones if seen is None else ones.masked_fill(seen, torch.nan)


def triangle(q: Tensor, k: Tensor) -> Tensor:
    """A causal mask as an addend, (1, 1, N, M)."""
    return q.new_full((1, 1, q.shape[2], k.shape[2]), -torch.inf).triu(1)


def is_plain(layer: nn.Linear) -> bool:
    """Whether a call of this layer is ``F.linear`` with its parameters, and nothing else: then parts can be computed.

    Adapters and quantisation take the layer's place, its ``forward`` or its weight; hooks want to see the call. Those
    of all modules are not asked: torch's counter of operations sets some, and would count what nothing else computes.
    """
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter or "forward" in layer.__dict__:
        return False
    return not (layer._forward_pre_hooks or layer._forward_hooks or layer._backward_pre_hooks or layer._backward_hooks)


def longest_plain(dtype: torch.dtype, instructions: Set[str]) -> int:
    """Up to how many keys plain matrix products beat the fused kernel, on a CPU with these instruction sets.

    Measured with heads of width 64, in inference and training, both ways in turn; times of the kernel over plain ones:

    - bfloat16 with instructions for it (AMD EPYC, avx512_bf16): 1.04 to 2.2 from 5 to 4,096 keys. The limit is for the
      memory that the scores take. Without such instructions (the same, held at AVX2): 0.5 to 0.9.
    - float32 without AVX-512 (AMD EPYC, AVX2): 1.09 and 1.15 with 5 keys, 1.0 with 65, 0.93 with 197, 0.7 with 1,025.
      With AVX-512: 0.77 to 1.0 from 5 to 1,025.
    """
    if dtype == torch.bfloat16:
        return 0 if instructions.isdisjoint(("avx512_bf16", "amx_bf16")) else 2048
    return 16 if dtype == torch.float32 and "avx2" in instructions and "avx512_f" not in instructions else 0


def longest_plain_here(dtype: torch.dtype) -> int:
    """The same on this CPU."""
    return longest_plain(dtype, cpu_instructions())


# torch.compiler.assume_constant_result, without the import of the compiler, which takes as long as that of torch
longest_plain_here._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def cpu_instructions() -> frozenset[str]:
    """The instruction sets of this CPU, by torch's names for them; none that are known before torch 2.11."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return frozenset(name for name, there in capabilities.items() if there is True)


# where all scores of a row are NaN, torch's kernel (2.14) gives zero if the keys do not fill a vector of the CPU
FILLS_A_VECTOR = 16


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    dropout: float,
    return_weights: bool,
    across: bool,
) -> tuple[Tensor, Tensor | None]:
    """Means of the values, (B, heads, N, d), and the weights where they are asked for."""
    bias = rows = weights = None
    by_row = is_causal  # whether rows see different keys; where all see the same, v is zero for those that see none
    if mask is not None:
        bias, rows, k, v = open_mask(mask, q, k, v, is_causal)
        by_row, is_causal = bias.shape[2] > 1, False  # the bias says so
    elif is_causal:
        rows, k, v = open_causal(q, k, v)
    # a graph that is exported runs anywhere, with any number of tokens
    on_cpu = q.device.type == "cpu" and not torch.compiler.is_exporting()
    if return_weights or (on_cpu and k.shape[2] <= longest_plain_here(q.dtype)):
        weights = torch.softmax(scores(q, k, triangle(q, k) if is_causal else bias), -1)
        x = F.dropout(weights, dropout) @ v  # (B, heads, N, d)
    else:
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=is_causal)
        if across and on_cpu and k.shape[2] < FILLS_A_VECTOR:  # in self-attention the values are NaN too, and show it
            x = torch.add(x, q, alpha=0)
    if rows is not None and (return_weights or by_row):
        x, weights = x * rows, None if weights is None else weights * rows
    return x, weights if return_weights else None


def scores(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled products of queries and keys, (B, heads, N, M), with the bias added."""
    q = q * q.shape[-1] ** -0.5  # q @ k.mT * scale is fused by torch.compile
    if bias is None:
        return q @ k.mT
    if bias.shape[2] != 1 or q.shape[2] == 1:
        products = q @ k.mT
        if q.dtype == torch.float16:  # the score of a hidden key soon overflows there, and inf + -inf is NaN
            products = products.masked_fill(bias == -torch.inf, 0)
        return products + bias
    # one bias for all rows is one more product: nothing of the size of the scores is made for it; zero times -inf is
    # NaN in second and forward derivatives, and what is lowest but for that must still be less hidden
    lowest = torch.finfo(bias.dtype).min
    more = bias.clamp(min=lowest / 2).masked_fill(bias == -torch.inf, lowest).mT.expand(*k.shape[:3], 1)
    return torch.cat((q, torch.ones_like(q[..., :1])), -1) @ torch.cat((k, more), -1).mT


def given(context: Tensor | None, x: Tensor) -> Tensor:
    """Return the context, or the tokens themselves where there is none."""
    return x if context is None else context


def parted(output: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return output and weights, None where they were not asked for."""
    return output if isinstance(output, tuple) else (output, None)


def joined(output: Tensor, weights: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    """Return the output with the weights beside it, alone where they were not asked for."""
    return output if weights is None else (output, weights)


def check_tokens(x: Tensor, context: Tensor | None, dim: int, is_causal: bool) -> None:
    """Refuse tokens or a context of another shape, and causal queries without a key of their own."""
    if x.ndim != 3 or x.shape[-1] != dim:
        raise ValueError(f"Attention: input {tuple(x.shape)} must be (B, N, {dim})")
    if context is not None and (context.ndim != 3 or context.shape[::2] != x.shape[::2]):
        raise ValueError(f"Attention: context {tuple(context.shape)} must be ({x.shape[0]}, M, {dim})")
    if is_causal and context is not None and x.shape[1] > context.shape[1]:
        raise ValueError(
            f"Attention: context {tuple(context.shape)} must have at least {x.shape[1]} tokens if is_causal"
        )


# torch.fx, which follows no branch, calls them as they are
for _name in ("attend", "check_tokens", "given", "joined", "rearrange"):
    torch.fx.wrap(_name)


class Attention(nn.Module):
    """Multi-head attention with a fused kernel, and the attention weights on request.

    Without a context it is self-attention, with one cross-attention. ``attention(x[:, :1], x)`` is class attention:
    the first token attends to all, and no other query is computed.

    Args:
        dim: Width of a token.
        num_heads: Number of heads; each works on dim / num_heads numbers.
        qkv_bias: Whether q, k and v have a bias.
        dropout: Probability of dropping an element of the output, after ``proj``.
        attn_dropout: Probability of dropping an attention weight.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, N, dim), and the context (B, M, dim): x itself if there is none. ``mask``: (B, num_heads, N, M) or
          1 in any place; row i says what token i attends to: True = attend, or numbers that are added to the scores,
          where -inf hides, and those below half of the lowest of their type may count as equal.
          ``real[:, None, None, :]`` hides padding if ``real`` (B, M) is True for what exists; such a mask is not
          written out for heads and rows. With ``is_causal=True`` token i attends to tokens 0 to i alone, of those that
          the mask leaves.
        - Output: (B, N, dim). Whatever a hidden token holds, NaN included, has no influence on the row (but where its
          score is beyond 3e38 and -inf is added to it), a token that is not finite makes every row NaN that attends to
          it, and its own, and any other row that attends to nothing is zero before ``proj``. Gradients of the weights
          do not exist beside a token that is not finite: pad with numbers to train.
        - With ``return_weights=True`` also the weights (B, num_heads, N, M) before dropout: a row sums to one, or to
          zero if it attends to nothing. The output is then computed from them without the fused kernel: equal up to
          rounding (and the draw of ``attn_dropout``), with a gradient for the weights and with second derivatives.

    Raises:
        TypeError: If an option has a wrong type, or the mask is neither boolean nor floating point.
        ValueError: If a size or a probability is out of range, or input, context or mask have another shape.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, num_heads = whole("Attention: dim", dim), whole("Attention: num_heads", num_heads)
        for name, value in (("dim", dim), ("num_heads", num_heads)):
            if value < 1:
                raise ValueError(f"Attention: {name} ({value}) must be at least 1")
        if dim % num_heads:
            raise ValueError(f"Attention: dim ({dim}) must be divisible by num_heads ({num_heads})")
        dropout, attn_dropout = rate("Attention: dropout", dropout), rate("Attention: attn_dropout", attn_dropout)
        if not isinstance(qkv_bias, bool):
            raise TypeError(f"Attention: qkv_bias ({qkv_bias!r}) must be True or False")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"Attention: dtype ({dtype!r}) must be a floating-point torch.dtype")
        self.dim = dim
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights; biases return to zero."""
        # each third as a matrix of its own: as one, q, k and v would be smaller by the square root of two
        bound = math.sqrt(3 / self.dim)  # drawn as a whole, for parts of a sharded weight are copies
        nn.init.uniform_(self.qkv.weight, -bound, bound)
        nn.init.xavier_uniform_(self.proj.weight)
        for bias in (self.qkv.bias, self.proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)

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
        """Return the tokens after attention, and the weights where they are asked for."""
        check_tokens(x, context, self.dim, is_causal)
        q, k, v = self._project(x, context)
        attn_dropout = self.attn_dropout if self.training else 0.0  # the fused kernel does not ask
        # (B, heads, N, d), (B, heads, N, M)
        x, weights = attend(q, k, v, mask, is_causal, attn_dropout, return_weights, context is not None)
        x = self.dropout(self.proj(rearrange(x, "b heads n d -> b n (heads d)")))
        return joined(x, weights)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own returns Any

    def _project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, heads, N, d) of x, keys and values (B, heads, M, d) of the context."""

        def split(t: Tensor) -> Tensor:
            width = self.dim // self.num_heads
            return rearrange(t, "b n (parts heads d) -> parts b heads n d", heads=self.num_heads, d=width)

        if context is None:
            q, k, v = split(self.qkv(x))
        elif is_plain(self.qkv):
            rows = (self.dim, 2 * self.dim)
            weights = self.qkv.weight.split_with_sizes(rows)
            biases = (None, None) if self.qkv.bias is None else self.qkv.bias.split_with_sizes(rows)
            (q,), (k, v) = (split(F.linear(t, *part)) for t, *part in zip((x, context), weights, biases, strict=True))
        else:  # all of it for both: whatever is done to the layer acts here too
            (q, _, _), (_, k, v) = split(self.qkv(x)), split(self.qkv(given(context, x)))
        return q, k, v

    def extra_repr(self) -> str:
        """Show the options in ``print(module)``."""
        return f"dim={self.dim}, num_heads={self.num_heads}, attn_dropout={self.attn_dropout}"
