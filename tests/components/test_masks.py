"""Laws of what a mask may cost, and of causal attention without one."""

import math
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from components import Attention, Block, Encoder
from tests.components.test_attention import build, either_path, output
from tests.contract.cases import randomised
from tests.support.strategies import batch_sizes, generator, head_counts, random_mask, random_tokens, seeds
from tests.support.strategies import token_counts as counts

pytestmark = pytest.mark.numerics
BATCH, HEADS, TOKENS = 3, 2, 32  # no other number of a small layer is as large as that of its scores


class Largest(TorchDispatchMode):
    """Count the tensors that hold at least so many numbers, views and results in place left out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.seen, self.count = size, set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in before:
                self.count += x.untyped_storage().nbytes() >= self.size * x.element_size()
        return out


def made(attention: Attention, size: int, **arguments: object) -> int:
    """How many tensors of at least that size a step makes."""
    x = torch.randn(BATCH, TOKENS, attention.dim, generator=generator(0)).requires_grad_()
    with Largest(size) as largest:
        out = attention(x, **arguments)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
    return largest.count


def padding() -> Tensor:
    """Boolean (B, 1, 1, N)."""
    return (torch.arange(TOKENS) < torch.tensor([[TOKENS], [20], [0]]))[:, None, None, :]


@pytest.mark.parametrize("path", ("fused", "plain", "weights"))
@pytest.mark.parametrize("kind", ("boolean", "added"))
def test_nothing_of_the_size_of_the_scores_is_made_for_a_mask_of_keys(kind: str, path: str) -> None:
    """Padding of all rows alike: as many such tensors as without a mask, and none with the fused kernel.

    Weights that are returned are one more: those of rows that attend to nothing are set to zero.
    """
    attention, mask = Attention(4, HEADS), padding()
    if kind == "added":
        mask = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    size, weights = BATCH * HEADS * TOKENS * TOKENS, {"return_weights": path == "weights"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.attention.longest_plain_here", lambda dtype: TOKENS if path == "plain" else 0)
        without, with_mask = (made(attention, size, **given, **weights) for given in ({}, {"mask": mask}))
    assert with_mask == without + (path == "weights")
    assert (without == 0) == (path == "fused"), "the count can fail"


def test_nothing_of_the_size_of_the_scores_is_made_for_a_mask_that_heads_share(monkeypatch) -> None:
    """Rows that differ, as in a causal mask: what is derived from the mask is as large as the mask."""
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 0)
    mask = random_mask(0, BATCH, 1, TOKENS)
    assert made(Attention(4, HEADS), BATCH * HEADS * TOKENS * TOKENS, mask=mask) == 0


def test_causal_attention_makes_nothing_of_the_size_of_a_mask(monkeypatch) -> None:
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 0)
    attention = Attention(4, HEADS)
    assert made(attention, TOKENS * TOKENS, is_causal=True) == made(attention, TOKENS * TOKENS)


@pytest.mark.parametrize("axis", (None, 0))
def test_the_fused_kernel_gets_a_mask_of_keys_as_it_is(axis: int | None, monkeypatch) -> None:
    """Of the shapes that the kernels of GPUs take: they spread it themselves."""
    spy = Mock(wraps=F.scaled_dot_product_attention)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 0)
    mask = padding() if axis is None else padding().narrow(axis, 0, 1)
    Attention(4, HEADS)(torch.randn(BATCH, TOKENS, 4), mask=mask)
    given_mask = spy.call_args.kwargs["attn_mask"]
    assert given_mask.shape == mask.shape
    assert given_mask.dtype == torch.float32


def test_the_fused_kernel_is_told_of_causal_attention_instead_of_given_a_mask(monkeypatch) -> None:
    spy = Mock(wraps=F.scaled_dot_product_attention)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 0)
    Attention(4, HEADS)(torch.randn(BATCH, TOKENS, 4), is_causal=True)
    assert spy.call_args.kwargs["attn_mask"] is None
    assert spy.call_args.kwargs["is_causal"] is True


@either_path
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16), ids=str)
@given(seeds, batch_sizes, counts, counts, head_counts)
def test_causal_equals_a_triangular_mask(dtype, masked, return_weights, seed, batch, n, m, heads) -> None:
    """Row i attends to keys 0 to i, of those that a context has; output, weights and slopes."""
    attention = build(seed, 4 * heads, heads).to(dtype)
    x, context = (
        random_tokens(seed + i, batch, size, 4 * heads, dtype).requires_grad_() for i, size in ((0, n), (1, n + m))
    )
    triangle = torch.ones(n, n + m, dtype=torch.bool).tril()[None, None]
    mask = torch.rand(batch, 1, 1, n + m, generator=generator(seed)) < 0.7 if masked else None
    written = triangle if mask is None else triangle & mask
    results = []
    for arguments in ({"mask": written}, {"mask": mask, "is_causal": True}):
        out = attention(x, context, **arguments, return_weights=return_weights)
        tokens, *weights = out if return_weights else (out,)
        upstream = torch.randn(tokens.shape, generator=generator(seed)).to(dtype)
        results.append((tokens, *weights, *torch.autograd.grad(tokens, (x, context), upstream)))
    close = {"rtol": 2**-5, "atol": 2**-4} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(results[1], results[0], **close)


@either_path
@pytest.mark.parametrize("across", (False, True), ids=("self-attention", "context"))
@pytest.mark.parametrize("value", (1e30, math.inf, math.nan))
@given(seeds, counts, counts)
def test_a_broken_token_shows_in_what_follows_it_and_nowhere_else(
    value: float, across: bool, return_weights: bool, seed: int, n: int, position: int
) -> None:
    attention, x = build(seed, 6, 2), random_tokens(seed, 2, n, 6)
    position = position % n
    spoiled = x.clone()
    spoiled[0, position] = value

    def causal(tokens: Tensor) -> Tensor:
        given = (x, tokens) if across else (tokens,)
        out = attention(*given, is_causal=True, return_weights=return_weights)
        return out[0] if return_weights else out

    before, after = causal(x), causal(spoiled)
    assert torch.equal(before[0, :position], after[0, :position])
    assert torch.equal(before[1], after[1])
    if not math.isfinite(value):
        assert after[0, position:].isnan().all()


@either_path
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
def test_the_lowest_number_hides_less_than_infinity(dtype: torch.dtype, return_weights: bool) -> None:
    """Both are in use; a row whose other keys are all at infinity attends to those at the lowest number."""
    attention, x = build(0, 6, 2).to(dtype), random_tokens(0, 2, 4, 6).to(dtype)
    mask = torch.full((1, 1, 1, 4), -math.inf, dtype=dtype)
    mask[..., :2] = torch.finfo(dtype).min
    shared, each = (output(attention, x, each, return_weights) for each in (mask, mask.expand(-1, -1, 4, -1)))
    torch.testing.assert_close(shared, each)
    weights = attention(x, mask=mask, return_weights=True)[1]
    assert not weights[..., 2:].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, dtype=dtype), atol=0.01, rtol=0)


@either_path
@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("part", (1, 2), ids=("keys", "values"))
def test_a_token_whose_keys_or_values_overflow_has_no_influence_on_rows_before_it(part, causal, return_weights) -> None:
    """They are infinite, but not NaN."""
    attention, x = build(0, 6, 2), random_tokens(0, 1, 4, 6)
    x[:, 3] = 1e150
    with torch.no_grad():
        rows = attention.qkv.weight[6 * part : 6 * part + 6]
        rows.copy_(rows.abs() * 1e160)
    assert attention.qkv(x)[0, 3, 6 * part : 6 * part + 6].isposinf().all()
    mask = None if causal else torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    out = attention(x, mask=mask, is_causal=causal, return_weights=return_weights)
    out = out[0] if return_weights else out
    torch.testing.assert_close(out[:, :3], attention(x[:, :3], is_causal=True))
    assert out[:, 3].isnan().all()


@pytest.mark.parametrize("kind", ("causal", "causal and one query", "boolean", "added"))
def test_a_hidden_token_whose_score_overflows_has_no_influence_on_the_weights(kind: str) -> None:
    """Its score is inf, and inf + -inf is NaN; half precision is soon there."""
    attention = Attention(2, 1, qkv_bias=False, dtype=torch.float16)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(2).repeat(3, 1))  # queries, keys and values are the tokens
    x = torch.tensor([[[3.0, 3], [1, 2], [2e4, 2e4]]], dtype=torch.float16)
    if kind == "causal and one query":
        given: dict[str, object] = {"x": x[:, :1], "context": x, "is_causal": True}
    elif kind == "causal":
        given = {"x": x, "is_causal": True}
    else:
        mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
        given = {"x": x, "mask": mask if kind == "boolean" else torch.zeros(mask.shape).masked_fill(~mask, -math.inf)}
    _, weights = attention(**given, return_weights=True)
    assert weights[0, 0, 0].tolist() == [1, 0, 0]
    assert weights[0, 0, :2].isfinite().all(), "the last token sees itself"


@either_path
def test_nan_shows_in_every_row_of_a_sample_whose_mask_of_keys_lets_it_through(return_weights: bool) -> None:
    attention, x = build(0, 6, 2), random_tokens(0, 3, 4, 6)
    x[:2, 3] = math.nan
    mask = torch.ones(3, 1, 1, 4, dtype=torch.bool)
    mask[1, ..., 3] = False
    out = output(attention, x, mask, return_weights)
    assert out[0].isnan().all()
    assert out[1, :3].isfinite().all()
    assert out[2].isfinite().all()


@given(seeds, counts)
def test_causal_reaches_the_attention_of_every_block(seed: int, n: int) -> None:
    triangle = torch.ones(1, 1, n, n, dtype=torch.bool).tril()
    x = random_tokens(seed, 2, n, 6)
    for layer in (Block(6, 2, mlp_dim=5), Encoder(6, 2, num_heads=2, mlp_dim=5, checkpointing=True)):
        layer = randomised(layer.double(), seed)
        expected = layer(x, mask=triangle, return_weights=True)
        torch.testing.assert_close(layer(x, is_causal=True, return_weights=True), expected)
        torch.testing.assert_close(layer(x, is_causal=True), expected[0])
    for first in range(1, n + 1):
        torch.testing.assert_close(layer(x, is_causal=True, first=first), expected[0][:, :first])


@pytest.mark.parametrize("masked", (False, True))
def test_causal_attention_compiles_and_exports_with_any_number_of_tokens(masked: bool) -> None:
    attention = build(0, 6, 2)

    def inputs(batch: int, n: int) -> dict[str, object]:
        mask = {"mask": torch.rand(batch, 1, 1, n, generator=generator(n)) > 0.5} if masked else {}
        return {"x": random_tokens(n, batch, n, 6), **mask, "is_causal": True}

    batch, n = (torch.export.Dim(name) for name in ("batch", "n"))
    shapes = {"x": {0: batch, 1: n}, **({"mask": {0: batch, 3: n}} if masked else {}), "is_causal": None}
    program = torch.export.export(attention, (), inputs(2, 5), dynamic_shapes=shapes).module()
    torch._dynamo.reset()
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    for sizes in ((2, 5), (3, 7), (3, 2)):
        arguments = inputs(*sizes)
        torch.testing.assert_close(program(**arguments), attention(**arguments))
        torch.testing.assert_close(*(call(**arguments, return_weights=True) for call in (compiled, attention)))


@pytest.mark.parametrize("return_weights", (False, True), ids=("plain", "weights"))
@pytest.mark.parametrize("rows", (1, 3), ids=("keys", "rows"))
def test_derivatives_of_every_kind_exist_beside_a_hidden_key(rows: int, return_weights: bool, monkeypatch) -> None:
    """First, second and forward derivatives, of tokens and of a learned bias: zero times -inf is NaN."""
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 3)
    attention, x = build(0, 4, 2), random_tokens(0, 2, 3, 4).requires_grad_()
    bias = torch.randn(2, 1, rows, 3, generator=generator(0), dtype=torch.float64)
    bias[0, ..., 2] = -torch.inf
    bias[1] = -torch.inf  # a sample that attends to nothing
    seen = bias != -torch.inf
    learned = bias[seen].requires_grad_()

    def call(x: Tensor, learned: Tensor) -> Tensor:
        return output(attention, x, bias.masked_scatter(seen, learned), return_weights)

    assert torch.autograd.gradcheck(call, (x, learned), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, (x, learned))


def test_second_derivatives_exist_beside_a_hidden_key_under_the_autocast_of_a_gpu(monkeypatch) -> None:
    """There a logarithm is float32, whose lowest number is infinite in half precision."""
    logarithm = Tensor.log
    monkeypatch.setattr(Tensor, "log", lambda x: logarithm(x.float() if torch.is_autocast_enabled("cpu") else x))
    attention, x = build(0, 4, 2).float(), random_tokens(0, 2, 3, 4).float().requires_grad_()
    seen = torch.tensor([True, True, False])[None, None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert seen.to(torch.bfloat16).log().dtype == torch.float32, "as on a GPU"
        out, _ = attention(x, mask=seen, return_weights=True)
    (slope,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), x)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()
