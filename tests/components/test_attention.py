"""Laws of attention: permutation equivariance, weights that sum to one and can be returned, masks that hide."""

import copy
import math
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch
from functorch.compile import make_boxed_func
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch.utils.flop_counter import FlopCounterMode

from components import Attention
from components.attention import cpu_instructions, longest_plain
from components.attention import given as given_or_x
from tests import reference
from tests.contract.cases import randomised
from tests.support.layers import WAYS
from tests.support.strategies import batch_sizes, generator, head_counts, head_widths, random_mask, random_tokens, seeds
from tests.support.strategies import token_counts as counts

NEW = frozenset({"avx2", "avx512_f", "avx512_bf16"})  # instruction sets of made-up processors
AMX = frozenset({"avx2", "avx512_f", "amx_bf16"})
SERVER = frozenset({"avx2", "avx512_f"})
LAPTOP = frozenset({"avx2"})
ARM = frozenset({"neon", "bf16"})

pytestmark = pytest.mark.numerics

either_path = pytest.mark.parametrize("return_weights", (False, True), ids=("fused", "weights"))


def build(seed: int, dim: int, heads: int, **options: object) -> Attention:
    """In float64, with biases that are not zero."""
    return randomised(Attention(dim, heads, dtype=torch.float64, **options), seed)


def output(attention: Attention, x: Tensor, mask=None, return_weights=False, context=None) -> Tensor:
    """The tokens without the weights."""
    out = attention(x, context, mask=mask, return_weights=return_weights)
    return out[0] if return_weights else out


@either_path
@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_permuted_tokens_give_permuted_output(return_weights, seed: int, batch: int, n: int, heads: int, width: int):
    attention, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width)
    order = torch.randperm(n, generator=generator(seed))
    permuted = output(attention, x[:, order], return_weights=return_weights)
    torch.testing.assert_close(permuted, output(attention, x, return_weights=return_weights)[:, order])


@either_path
@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_heads_put_every_number_back_where_they_took_it(return_weights, seed: int, batch, n, heads, width) -> None:
    """If every token attends to itself alone, and v and proj leave it as it is, the input comes back."""
    attention, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width)
    nn.init.eye_(attention.proj.weight)
    nn.init.eye_(attention.qkv.weight[2 * heads * width :])
    for bias in (attention.qkv.bias, attention.proj.bias):
        nn.init.zeros_(bias)
    itself = torch.eye(n, dtype=torch.bool)[None, None]
    torch.testing.assert_close(output(attention, x, itself, return_weights), x)


@pytest.mark.parametrize("qkv_bias", (True, False))
def test_proj_has_a_bias_whether_q_k_and_v_have_one_or_not(qkv_bias: bool) -> None:
    attention = Attention(6, 2, qkv_bias=qkv_bias)
    assert (attention.qkv.bias is not None) == qkv_bias
    assert isinstance(attention.proj.bias, nn.Parameter)
    assert attention.proj.bias.shape == (6,)


@pytest.mark.parametrize("training", (True, False))
@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_weights_equal_the_reference_and_leave_the_output_unchanged(training, seed, batch, n, heads, width) -> None:
    """Maps that cannot be reached: lucidrains #1 and #82, jeonsworld #24, google #18, vit-explain #23."""
    attention, x = build(seed, heads * width, heads).train(training), random_tokens(seed, batch, n, heads * width)
    fused = attention(x)
    explicit, weights = attention(x, return_weights=True)
    expected, expected_weights = reference.attention(attention, x)
    for out in (fused, explicit):
        torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(weights.sum(-1), torch.ones(batch, heads, n, dtype=torch.float64))


@given(seeds, head_counts, head_widths)
def test_scores_are_divided_by_the_root_of_the_width_of_a_head(seed: int, heads: int, width: int) -> None:
    """Not by that of all heads together: ViT-CIFAR #12. Without a bias in qkv the scores are known."""
    dim = heads * width
    attention, x = build(seed, dim, heads, qkv_bias=False), random_tokens(seed, 1, 2, dim)
    assert set(attention.state_dict()) == {"qkv.weight", "proj.weight", "proj.bias"}
    torch.testing.assert_close(attention(x), reference.attention(attention, x)[0])
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(dim).repeat(3, 1))  # q = k = v = x
    _, weights = attention(x, return_weights=True)
    first, second = x.reshape(2, heads, width)
    odds = ((first * (first - second)).sum(-1) / math.sqrt(width)).exp()
    torch.testing.assert_close(weights[0, :, 0, 0] / weights[0, :, 0, 1], odds)


@either_path
@pytest.mark.parametrize("masked", (False, True))
@given(seeds, batch_sizes, counts, counts, head_counts, head_widths)
def test_queries_come_from_the_input_and_keys_and_values_from_the_context(
    masked, return_weights, seed, batch, n, m, heads, width
) -> None:
    attention, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width)
    context = random_tokens(seed + 1, batch, m, heads * width)
    mask = random_mask(seed, batch, heads, n, m) if masked else None
    expected, expected_weights = reference.attention(attention, x, context, mask)
    torch.testing.assert_close(output(attention, x, mask, return_weights, context), expected)
    torch.testing.assert_close(attention(x, context, mask=mask, return_weights=True)[1], expected_weights)
    order = torch.randperm(m, generator=generator(seed))
    mask = None if mask is None else mask[..., order]
    permuted = output(attention, x, mask, return_weights, context[:, order])
    torch.testing.assert_close(permuted, expected, msg="the order of the context changes nothing")


@either_path
@pytest.mark.parametrize("masked", (False, True))
@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_queries_of_some_tokens_give_their_part_of_self_attention(
    masked, return_weights, seed, batch, n, heads, width
) -> None:
    """With one token it is class attention, with all of them self-attention."""
    attention, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width).requires_grad_()
    mask, first = random_mask(seed, batch, heads, n) if masked else None, 1 + seed % n
    every = attention(x, mask=mask, return_weights=return_weights)
    mask = None if mask is None else mask[:, :, :first]
    some = attention(x[:, :first], x, mask=mask, return_weights=return_weights)
    if return_weights:
        torch.testing.assert_close(some[1], every[1][:, :, :first])
        every, some = every[0], some[0]
    torch.testing.assert_close(some, every[:, :first])
    upstream = torch.randn(some.shape, generator=generator(seed), dtype=torch.float64)
    inputs = (x, *attention.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(out, inputs, upstream) for out in (some, every[:, :first])))


@either_path
@pytest.mark.parametrize("masked", (False, True))
def test_an_empty_context_gives_zero_before_proj(masked: bool, return_weights: bool) -> None:
    attention, x = build(0, 6, 2), random_tokens(0, 2, 3, 6).requires_grad_()
    mask = torch.ones(2, 2, 3, 0, dtype=torch.bool) if masked else None
    out = output(attention, x, mask, return_weights, x[:, :0])
    torch.testing.assert_close(out, attention.proj.bias.expand_as(out))
    for slope in torch.autograd.grad(out.sum(), [x, *attention.parameters()], allow_unused=True):
        assert slope is None or slope.isfinite().all()


@pytest.mark.parametrize(("n", "m"), ((1, 11), (11, 1), (3, 7)))
def test_q_is_computed_for_the_queries_alone_and_k_and_v_for_the_context_alone(n: int, m: int) -> None:
    attention, batch, dim = Attention(12, 3, device="meta"), 2, 12
    x, context = (torch.empty(batch, count, dim, device="meta") for count in (n, m))
    with FlopCounterMode(display=False) as counter:
        attention(x, context, return_weights=True)
    multiply_adds = n * dim**2 + 2 * m * dim**2 + 2 * n * m * dim + n * dim**2  # q; k, v; scores, sums; proj
    assert counter.get_total_flops() == 2 * batch * multiply_adds


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("way", [None, "adapter", *WAYS])
def test_changes_to_the_qkv_layer_take_effect_in_cross_attention(way: str | None, bias: bool) -> None:
    """It is compared with self-attention of both sequences joined, the first of them masked, which calls the layer."""
    attention, x, context = build(0, 6, 2, qkv_bias=bias), random_tokens(0, 2, 3, 6), random_tokens(1, 2, 5, 6)
    seen = torch.tensor([False] * 3 + [True] * 5)[None, None, None]
    upstream = torch.randn(2, 3, 6, generator=generator(2), dtype=torch.float64)

    def run(call: Callable[..., Tensor]) -> list[Tensor]:
        inputs = (x.clone().requires_grad_(), context.clone().requires_grad_())
        out = call(*inputs)
        return [out, *torch.autograd.grad(out, inputs, upstream)]

    plain = run(attention)
    if way == "adapter":
        attention.qkv = nn.Sequential(attention.qkv, nn.Linear(18, 18, dtype=torch.float64))
    elif way is not None:
        WAYS[way](attention.qkv)
    across = run(attention)
    torch.testing.assert_close(across, run(lambda *both: attention(torch.cat(both, 1), mask=seen)[:, :3]))
    assert (way is None) == all(torch.equal(one, other) for one, other in zip(across, plain, strict=True))


@either_path
@given(seeds, counts, head_counts, head_widths)
def test_output_lies_in_the_hull_of_the_values(return_weights, seed: int, n: int, heads: int, width: int) -> None:
    dim = heads * width
    attention, x = build(seed, dim, heads), random_tokens(seed, 2, n, dim)
    nn.init.eye_(attention.proj.weight)
    nn.init.zeros_(attention.proj.bias)
    v = x @ attention.qkv.weight[2 * dim :].T + attention.qkv.bias[2 * dim :]
    out = output(attention, x, return_weights=return_weights)
    assert (out <= v.amax(1, keepdim=True) + 1e-12).all()
    assert (out >= v.amin(1, keepdim=True) - 1e-12).all()


@either_path
@pytest.mark.parametrize("kind", ("boolean", "added"))
@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_true_in_a_mask_means_attend(kind, return_weights, seed, batch, n, heads, width) -> None:
    attention, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width)
    mask = random_mask(seed, batch, heads, n)
    expected, expected_weights = reference.attention(attention, x, mask=mask)
    mask = mask if kind == "boolean" else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(output(attention, x, mask, return_weights), expected)
    torch.testing.assert_close(attention(x, mask=mask, return_weights=True)[1], expected_weights)


@either_path
@given(seeds)
def test_numbers_in_a_mask_are_added_to_the_scores(return_weights: bool, seed: int) -> None:
    attention, x = build(seed, 6, 3), random_tokens(seed, 2, 4, 6)
    bias = torch.randn(1, 3, 4, 4, generator=generator(seed), dtype=torch.float64)
    plain, shifted = (attention(x, mask=mask, return_weights=True)[1] for mask in (None, bias))
    expected = plain * bias.exp()
    torch.testing.assert_close(shifted, expected / expected.sum(-1, keepdim=True))
    v = (x @ attention.qkv.weight[12:].T + attention.qkv.bias[12:]).unflatten(-1, (3, 2))  # (B, N, heads, d)
    heads = torch.einsum("bhij,bjhd->bihd", shifted, v).flatten(2)
    torch.testing.assert_close(output(attention, x, bias, return_weights), attention.proj(heads))


@given(seeds)
def test_a_mask_that_hides_nothing_changes_nothing(seed: int) -> None:
    attention, x = build(seed, 6, 3), random_tokens(seed, 2, 4, 6)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(attention(x, mask=mask), attention(x))
    masked, plain = (attention(x, mask=mask, return_weights=True) for mask in (mask, None))
    assert all(torch.equal(one, other) for one, other in zip(masked, plain, strict=True)), "bit for bit"


@either_path
@given(seeds)
def test_a_mask_is_spread_over_every_axis_of_length_one(return_weights: bool, seed: int) -> None:
    attention, x = build(seed, 6, 3), random_tokens(seed, 2, 4, 6)
    for shape in ((1, 1, 1, 4), (2, 1, 1, 4), (1, 3, 4, 1), (1, 1, 4, 4), (2, 3, 1, 1)):
        mask = torch.rand(shape, generator=generator(seed)) > 0.4
        full = output(attention, x, mask.expand(2, 3, 4, 4), return_weights)
        torch.testing.assert_close(output(attention, x, mask, return_weights), full)


@either_path
@pytest.mark.parametrize("across", (False, True), ids=("self-attention", "context"))
@pytest.mark.parametrize("value", (1e30, math.inf, math.nan))
@given(seeds)
def test_a_hidden_token_has_no_influence(value: float, across: bool, return_weights: bool, seed: int) -> None:
    """NaN leaked from a masked key in pytorch #101967. The last token is hidden from all but itself."""
    attention, x = build(seed, 6, 2), random_tokens(seed, 2, 4, 6)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :3, 3] = False
    spoiled = x.clone()
    spoiled[:, 3] = value
    spoiled.requires_grad_()

    def first_three(tokens: Tensor) -> Tensor:
        if across:
            return output(attention, x[:, :3], mask[:, :, :3], return_weights, tokens)
        return output(attention, tokens, mask, return_weights)[:, :3]

    before, after = first_three(x), first_three(spoiled)
    assert torch.equal(before, after)
    torch.testing.assert_close(before, output(attention, x[:, :3], return_weights=return_weights), msg="as without it")
    if across:
        (slope,) = torch.autograd.grad(after.square().sum(), spoiled)
        assert slope.any(-1).tolist() == [[True, True, True, False]] * 2


@either_path
def test_a_hidden_value_that_overflows_has_no_influence(return_weights: bool) -> None:
    attention, x = build(0, 6, 2), random_tokens(0, 1, 4, 6)
    x[:, 3] = 1e150
    with torch.no_grad():
        attention.qkv.weight[12:] *= 1e200
    real = torch.tensor([True, True, True, False])[None, None, None]
    hidden, without = output(attention, x, real, return_weights), output(attention, x[:, :3])
    torch.testing.assert_close(hidden[:, :3], without)


@either_path
@given(seeds)
def test_nan_shows_in_every_token_that_attends_to_it(return_weights: bool, seed: int) -> None:
    attention, x = build(seed, 6, 2), random_tokens(seed, 1, 4, 6)
    x[:, 3] = math.nan
    causal = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    causal[..., 1, 3] = True
    broken = output(attention, x, causal, return_weights).isnan()
    assert broken.all(-1).tolist() == [[False, True, False, True]]
    assert broken.any(-1).tolist() == [[False, True, False, True]]
    causal[..., 3, :] = False
    own = output(attention, x, causal, return_weights).isnan()
    assert torch.equal(own, broken), "its own row shows it, though it attends to nothing"


@either_path
@pytest.mark.parametrize("value", (math.nan, math.inf))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
@pytest.mark.parametrize("keys", (1, 4, 15, 16))
def test_a_query_that_is_not_finite_shows_in_its_row_alone(keys: int, dtype, value: float, return_weights: bool):
    """Where the context has fewer keys than a vector has places, the kernel of torch (2.14) gives zero instead."""
    attention, x = build(0, 6, 2).to(dtype), random_tokens(0, 1, 3, 6, dtype=dtype)
    x[:, 1] = value
    broken = output(attention, x, None, return_weights, random_tokens(1, 1, keys, 6, dtype=dtype)).isnan()
    assert broken.all(-1).tolist() == broken.any(-1).tolist() == [[False, True, False]]


@pytest.mark.parametrize("return_weights", (False, True))
def test_no_query_at_all_gives_no_row(return_weights: bool) -> None:
    attention, x, context = build(0, 6, 2), random_tokens(0, 2, 0, 6), random_tokens(1, 2, 3, 6)
    for mask in (None, torch.ones(2, 1, 0, 3, dtype=torch.bool), torch.ones(2, 1, 1, 3, dtype=torch.bool)):
        assert output(attention, x, mask, return_weights, context).shape == (2, 0, 6)
    assert attention(x, is_causal=True).shape == (2, 0, 6)


@either_path
@given(seeds)
def test_a_hidden_token_gets_no_gradient(return_weights: bool, seed: int) -> None:
    attention, x = build(seed, 6, 2), random_tokens(seed, 2, 4, 6).requires_grad_()
    real = torch.tensor([[True, True, True, False], [True, False, True, True]])
    out = output(attention, x, real[:, None, None, :], return_weights)
    (grad,) = torch.autograd.grad(out[real].square().sum(), x)
    assert torch.equal(grad.any(-1), real)


@either_path
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
@pytest.mark.parametrize("kind", ("boolean", "infinite", "lowest"))
def test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients(kind, dtype, return_weights: bool) -> None:
    """Both were NaN in pytorch #103963 and #103749 and nGPT #11. The lowest float32 is -inf in bfloat16."""
    attention, x = build(0, 6, 2).to(dtype), random_tokens(0, 2, 4, 6, dtype=dtype).requires_grad_()
    mask = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    mask[0, :, 1] = False
    mask[1, 0, 2] = False
    if kind != "boolean":
        hidden = -math.inf if kind == "infinite" or dtype != torch.bfloat16 else torch.finfo(torch.float32).min
        mask = torch.zeros(mask.shape).masked_fill(~mask, hidden)
    captured = []
    hook = attention.proj.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].unflatten(-1, (2, 3))))
    out = attention(x, mask=mask, return_weights=return_weights)
    hook.remove()
    out, weights = out if return_weights else (out, attention(x, mask=mask, return_weights=True)[1])
    (heads,) = captured  # (B, N, heads, d)
    nothing = torch.zeros(2, 4, 2, dtype=torch.bool)
    nothing[0, 1] = nothing[1, 2, 0] = True
    assert torch.equal(heads.any(-1), ~nothing)
    assert torch.equal(weights.any(-1).transpose(1, 2), ~nothing)
    assert torch.equal(out[0, 1], attention.proj.bias)
    for grad in torch.autograd.grad(out.sum(), [x, *attention.parameters()]):
        assert grad.isfinite().all()


@either_path
@pytest.mark.parametrize("kind", ("boolean", "added"))
@given(seeds, batch_sizes, counts, counts, head_counts, st.integers(0, 3))
def test_a_row_that_attends_to_nothing_changes_no_other_row(kind, return_weights, seed, batch, n, m, heads, most):
    """Alone, in all heads, of all queries or of a whole sample: what the other rows hide stays hidden from them."""
    attention, x = build(seed, 2 * heads, heads), random_tokens(seed, batch, n, 2 * heads)
    context, mask = random_tokens(seed + 1, batch, m, 2 * heads), random_mask(seed, batch, heads, n, m)
    alike = [1 if axis == most else size for axis, size in enumerate((batch, heads, n))]
    empty = torch.rand(*alike, 1, generator=generator(seed + 2)).expand(batch, heads, n, 1) < 0.5
    before, after = mask, mask & ~empty
    if kind == "added":
        before, after = (torch.zeros(mask.shape).masked_fill(~one, -torch.inf) for one in (before, after))
    heard: list[Tensor] = []  # what the heads hand to proj
    attention.proj.register_forward_pre_hook(lambda _, given: heard.append(given[0].unflatten(-1, (heads, 2))))
    (_, old), (_, new) = (attention(x, context, mask=one, return_weights=True) for one in (before, after))
    assert torch.equal(new, old.masked_fill(empty, 0)), "weights"
    assert torch.equal(new != 0, mask & ~empty), "hidden keys"
    heard.clear()
    output(attention, x, before, return_weights, context)
    output(attention, x, after, return_weights, context)
    rows = [rows.transpose(1, 2).masked_fill(empty, 0) for rows in heard]  # (B, heads, N, d)
    torch.testing.assert_close(rows[1], rows[0], msg="the output of a row that attends to something has changed")


@either_path
@given(seeds, batch_sizes, st.integers(2, 7), head_counts)
def test_a_causal_row_sees_nothing_of_what_follows_even_beside_an_empty_row(return_weights, seed, batch, n, heads):
    """Padding at the left: its rows are empty, and a real row must not see the future for that."""
    attention, x = build(seed, 2 * heads, heads), random_tokens(seed, batch, n, 2 * heads).requires_grad_()
    padding = torch.arange(batch).view(-1, 1, 1, 1) % n  # each sample has another number of padded tokens
    causal = torch.ones(n, n, dtype=torch.bool).tril() & (torch.arange(n) >= padding)
    out = output(attention, x, causal, return_weights)
    for row in range(n):
        (slope,) = torch.autograd.grad(out[:, row].square().sum(), x, retain_graph=True)
        seen = causal[:, 0, row] | ((torch.arange(n) == row) & causal[:, 0, row].any(-1, keepdim=True))
        assert torch.equal(slope.any(-1), seen)


@either_path
@given(seeds, st.lists(counts, min_size=1, max_size=4), head_counts)
def test_a_padded_sequence_gives_what_it_gives_alone(return_weights: bool, seed: int, lengths, heads: int) -> None:
    """Output and gradients of sequences that are padded to the longest are their own, whatever numbers pad them."""
    attention, longest = build(seed, 2 * heads, heads), max(lengths)
    x = random_tokens(seed, len(lengths), longest, 2 * heads)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    padded = torch.where(real[..., None], x, 1e3 * x).requires_grad_()
    out = output(attention, padded, real[:, None, None, :], return_weights)
    upstream = torch.randn(out.shape, generator=generator(seed), dtype=torch.float64)
    (slope,) = torch.autograd.grad(out[real], padded, upstream[real])
    assert torch.equal(slope.any(-1), real)
    for i, length in enumerate(lengths):
        alone = x[i : i + 1, :length].requires_grad_()
        expected = output(attention, alone, return_weights=return_weights)
        torch.testing.assert_close(out[i : i + 1, :length], expected)
        (own,) = torch.autograd.grad(expected, alone, upstream[i : i + 1, :length])
        torch.testing.assert_close(slope[i : i + 1, :length], own)


@either_path
def test_gradients_through_a_mask_equal_finite_differences(return_weights: bool) -> None:
    """For the tokens and a learned bias, with hidden keys and a row that attends to nothing."""
    attention, x = build(0, 4, 2), random_tokens(0, 2, 3, 4).requires_grad_()
    bias = torch.randn(2, 2, 3, 3, generator=generator(0), dtype=torch.float64)
    bias = bias.masked_fill(~random_mask(1, 2, 2, 3), -torch.inf)
    bias[0, :, 1] = -torch.inf
    open_pairs = bias != -torch.inf
    learned = bias[open_pairs].requires_grad_()

    def call(x: Tensor, learned: Tensor) -> Tensor:
        return output(attention, x, bias.masked_scatter(open_pairs, learned), return_weights)

    assert torch.autograd.gradcheck(call, (x, learned))


def test_the_output_depends_on_the_returned_weights() -> None:
    """Relevance methods differentiate the output with respect to the attention."""
    attention, x = build(0, 4, 2), random_tokens(0, 1, 3, 4)
    out, weights = attention(x, return_weights=True)
    (grad,) = torch.autograd.grad(out.sum(), weights)
    assert grad.all()


@either_path
def test_attention_dropout_is_unbiased_and_leaves_the_returned_weights_alone(return_weights: bool) -> None:
    attention = build(0, 6, 2, attn_dropout=0.3)
    x = random_tokens(0, 1, 4, 6).expand(20_000, 4, 6)
    expected = attention.eval()(x[:1])
    torch.manual_seed(0)
    out = output(attention.train(), x, return_weights=return_weights)
    assert (out - expected).abs().amax((1, 2)).min() > 0, "dropout changes every sample"
    assert ((out.mean(0) - expected).abs() < 5 * out.std(0) / math.sqrt(len(out))).all()
    _, weights = attention(x, return_weights=True)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_both_paths_draw_the_same_dropout_on_a_cpu() -> None:
    attention, x = build(0, 6, 2, attn_dropout=0.5, dropout=0.5), random_tokens(0, 2, 4, 6)
    torch.manual_seed(1)
    fused = attention(x)
    torch.manual_seed(1)
    torch.testing.assert_close(attention(x, return_weights=True)[0], fused)


def test_dropout_zeroes_elements_of_the_output_and_scales_the_rest() -> None:
    attention, x = build(0, 64, 4, dropout=0.2), random_tokens(0, 8, 16, 64)
    torch.manual_seed(0)
    ratio = attention(x) / attention.eval()(x)
    kept = ratio != 0
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / 0.8))
    assert abs(kept.double().mean() - 0.8) < 5 * math.sqrt(0.2 * 0.8 / ratio.numel())


def test_parameters_start_as_in_the_original_code() -> None:
    """Xavier uniform for q, k and v each: as one matrix with three times the rows they would be 0.71 as large."""
    torch.manual_seed(0)
    attention = Attention(96, 4)
    bound = math.sqrt(6 / (96 + 96))
    for weight in (*attention.qkv.weight.chunk(3), attention.proj.weight):
        assert 0.999 * bound < weight.abs().max() <= bound
        # of a uniform variable's square: mean bound^2 / 3, standard deviation bound^2 sqrt(4 / 45)
        assert abs(weight.square().mean() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45) / 96
        assert abs(weight.mean()) < 5 * bound / math.sqrt(3) / 96
    assert not attention.qkv.bias.any()
    assert not attention.proj.bias.any()
    before = [parameter.clone() for parameter in attention.parameters()]
    nn.init.ones_(attention.qkv.bias)
    nn.init.ones_(attention.proj.bias)
    attention.reset_parameters()
    changed = [not torch.equal(old, new) for old, new in zip(before, attention.parameters(), strict=True)]
    assert changed == [True, False, True, False], "new weights, zero biases"


def test_at_the_start_a_lone_token_keeps_its_scale() -> None:
    """Values and proj are square, and each keeps the variance. Many tokens take a mean of several others."""
    torch.manual_seed(0)
    attention, x = Attention(256, 4), random_tokens(0, 400, 1, 256, torch.float32)
    assert attention(x).std().item() == pytest.approx(1, rel=0.05)
    x = random_tokens(1, 4, 100, 256, torch.float32)
    _, weights = attention(x, return_weights=True)
    # scores are standard normal; the squares of their softmax then sum to E exp(2 s) / (N (E exp s)^2) = e / N
    assert weights.square().sum(-1).mean().item() == pytest.approx(math.e / 100, rel=0.25)


class WrittenOut(Attention):
    """Attention in the form that torch.compile recognises."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("component", "fused"), ((Attention, False), (WrittenOut, True)))
def test_compiling_does_not_bring_the_slow_kernel_back(component, fused: bool, monkeypatch) -> None:
    """torch.compile looks for attention that is written out, and replaces it with the fused kernel.

    The test looks at the graph and not at the C++ code, because torch 2.14 writes bfloat16 code that does not compile
    for a CPU without vector instructions.
    """
    monkeypatch.setattr("components.attention.cpu_instructions", lambda: NEW)
    operators: list[str] = []

    def look(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        joint_graph_passes(graph)
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph)

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=look, inference_compiler=look, decompositions=select_decomp_table())
    attention, x = component(8, 2).eval(), torch.randn(2, 5, 8)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.compile(attention, backend=backend, fullgraph=True)(x)
    assert any("addmm" in name for name in operators), "the graph was captured"
    assert any("scaled_dot_product" in name for name in operators) == fused


@pytest.mark.parametrize("across", (False, True), ids=("self-attention", "context"))
def test_it_compiles_and_exports_with_any_number_of_tokens(across: bool) -> None:
    attention = build(0, 6, 2)

    def inputs(batch: int, n: int, m: int) -> dict[str, Tensor]:
        m = m if across else n
        mask = torch.rand(batch, 1, n, m, generator=generator(n)) > 0.5
        context = {"context": random_tokens(m, batch, m, 6)} if across else {}
        return {"x": random_tokens(n, batch, n, 6), "mask": mask, **context}

    batch, n, m = (torch.export.Dim(name) for name in ("batch", "n", "m"))
    shapes = {"x": {0: batch, 1: n}, "mask": {0: batch, 2: n, 3: m if across else n}}
    shapes |= {"context": {0: batch, 1: m}} if across else {}
    program = torch.export.export(attention, (), inputs(2, 5, 3), dynamic_shapes=shapes).module()
    torch._dynamo.reset()
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    for sizes in ((2, 5, 3), (3, 7, 11), (3, 2, 5)):
        arguments = inputs(*sizes)
        torch.testing.assert_close(program(**arguments), attention(**arguments))
        torch.testing.assert_close(*(call(**arguments, return_weights=True) for call in (compiled, attention)))


@given(seeds)
def test_a_float32_mask_works_under_autocast(seed: int) -> None:
    attention, x = build(seed, 6, 2).float(), random_tokens(seed, 2, 4, 6, dtype=torch.float32)
    mask = torch.zeros(2, 1, 4, 4).masked_fill(~random_mask(seed, 2, 1, 4), -torch.inf)
    exact = attention(x, mask=mask)
    for return_weights in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = output(attention, x, mask, return_weights)
        assert (mixed - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("instructions", "dtype", "keys"),
    [
        (NEW, torch.bfloat16, 2048), (NEW, torch.float32, 0), (AMX, torch.bfloat16, 2048),
        (SERVER, torch.bfloat16, 0), (SERVER, torch.float32, 0),
        (LAPTOP, torch.bfloat16, 0), (LAPTOP, torch.float32, 16), (LAPTOP, torch.float64, 0),
        (ARM, torch.bfloat16, 0), (ARM, torch.float32, 0), (frozenset(), torch.float32, 0),
    ],
)  # fmt: skip
def test_the_kernel_is_the_one_that_was_measured_to_be_fast(instructions, dtype: torch.dtype, keys: int) -> None:
    assert longest_plain(dtype, instructions) == keys


def test_without_a_context_the_tokens_themselves_are_given() -> None:
    x, context = torch.zeros(1, 2, 3), torch.ones(1, 4, 3)
    assert given_or_x(None, x) is x
    assert given_or_x(context, x) is context


@pytest.mark.parametrize(("dtype", "exporting", "plain"), [
    (torch.bfloat16, False, True), (torch.float32, False, False), (torch.bfloat16, True, False)])  # fmt: skip
def test_the_type_of_the_queries_decides_and_an_exported_graph_has_the_kernel(
    dtype: torch.dtype, exporting: bool, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr("components.attention.cpu_instructions", lambda: frozenset(("avx2", "avx512_f", "avx512_bf16")))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention", lambda q, *others, **options: called.append(q) or q
    )
    Attention(6, 3, dtype=dtype)(torch.zeros(1, 5, 6, dtype=dtype))
    assert called == [] if plain else len(called) == 1


def test_without_known_cpu_capabilities_the_fused_kernel_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_instructions.__wrapped__() == frozenset()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_plain_path_is_as_accurate_as_the_fused_kernel(dtype, plain: bool, training: bool, monkeypatch) -> None:
    kernel = nn.functional.scaled_dot_product_attention
    spy = Mock(wraps=kernel)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 5 if plain else 4)
    exact = build(0, 16, 2)
    attention = copy.deepcopy(exact).to(dtype).requires_grad_(training)
    x = random_tokens(0, 2, 5, 16).to(dtype)
    out = attention(x)
    assert spy.called == (not plain)
    q, k, v = attention.qkv(x).view(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
    fused = attention.proj(kernel(q, k, v).transpose(1, 2).flatten(2))
    error, error_of_kernel = ((tensor - exact(x.double())).abs().max().item() for tensor in (out, fused))
    assert error <= 2 * error_of_kernel + (2**-7 if dtype == torch.bfloat16 else 1e-6)


def test_the_kernel_is_chosen_by_the_number_of_keys_not_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel is removed, so choosing it is an error."""
    monkeypatch.delattr(nn.functional, "scaled_dot_product_attention")
    attention, x = build(0, 6, 2), random_tokens(0, 2, 5, 6)
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 5)
    attention(x[:, :1], x)
    monkeypatch.setattr("components.attention.longest_plain_here", lambda dtype: 4)
    with pytest.raises(AttributeError, match="scaled_dot_product_attention"):
        attention(x[:, :1], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_this_cpu_is_fast_at_decides_nothing_on_another_device(dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device "meta" stands for a GPU."""
    called = []
    monkeypatch.setattr("components.attention.cpu_instructions", lambda: NEW if dtype == torch.bfloat16 else LAPTOP)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", lambda q, k, v, **_: called.append(1) or v)
    attention = Attention(6, 2, device="meta", dtype=dtype)
    attention(torch.empty(2, 5, 6, device="meta", dtype=dtype))
    assert called


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_compiled_graph_of_any_length_keeps_to_the_choice(dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.attention.cpu_instructions", lambda: LAPTOP if dtype == torch.float32 else NEW)
    used: list[bool] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        fused = any(node.target is nn.functional.scaled_dot_product_attention for node in graph.graph.nodes)
        return lambda *given: used.append(fused) or graph(*given)

    torch._dynamo.reset()
    attention = build(0, 6, 2).to(dtype)
    compiled = torch.compile(attention, backend=backend, fullgraph=True, dynamic=True)
    for n in (5, 7, 16, 17, 2048, 2049):
        x = random_tokens(n, 1, n, 6, dtype=dtype)
        torch.testing.assert_close(compiled(x), attention(x))
        assert used[-1] == (n > longest_plain(dtype, LAPTOP if dtype == torch.float32 else NEW))
