"""Laws of the block: two pre-norm residual branches, and stochastic depth that skips a branch for whole samples."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from torch import nn

from components import Block
from tests import reference
from tests.contract.cases import randomised
from tests.support.strategies import batch_sizes, generator, head_counts, head_widths, random_mask, random_tokens, seeds
from tests.support.strategies import token_counts as counts

pytestmark = pytest.mark.numerics


def build(seed: int, dim: int, heads: int, **options: object) -> Block:
    """In float64, with random parameters: zero biases and unit scales would hide mistakes."""
    return randomised(Block(dim, heads, mlp_dim=2 * dim, dtype=torch.float64, **options), seed)


@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_permuted_tokens_give_permuted_output(seed: int, batch: int, n: int, heads: int, width: int) -> None:
    block, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width)
    order = torch.randperm(n, generator=generator(seed))
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])


@given(seeds, batch_sizes, counts)
def test_with_silent_branches_it_is_the_identity(seed: int, batch: int, n: int) -> None:
    """Without a residual it would return zeros, with post-norm a normalised input."""
    block, x = build(seed, 6, 2), 100 * random_tokens(seed, batch, n, 6)
    for parameter in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
        nn.init.zeros_(parameter)
    assert torch.equal(block(x), x)


@given(seeds)
def test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one(seed: int) -> None:
    block, x = build(seed, 6, 2), random_tokens(seed, 2, 4, 6)
    attended = x + block.attn(reference.layer_norm(block.norm1, x))
    torch.testing.assert_close(block(x), attended + block.mlp(reference.layer_norm(block.norm2, attended)))


def test_the_norms_have_the_eps_of_the_original_code() -> None:
    """A wrong eps shows only where a token is nearly constant; kornia had to change it (#2786)."""
    block = Block(4, 1, mlp_dim=4)
    assert block.norm1.eps == block.norm2.eps == 1e-6


@given(seeds)
def test_a_mask_hides_and_weights_come_back(seed: int) -> None:
    block, x, mask = build(seed, 6, 2), random_tokens(seed, 2, 4, 6), random_mask(seed, 2, 2, 4)
    out, weights = block(x, mask=mask, return_weights=True)
    torch.testing.assert_close(out, reference.block(block, x, mask=mask))
    torch.testing.assert_close(out, block(x, mask=mask))
    normed = reference.layer_norm(block.norm1, x)
    torch.testing.assert_close(weights, reference.attention(block.attn, normed, mask=mask)[1])


@given(seeds, counts, counts)
def test_a_context_is_normalised_but_not_added(seed: int, n: int, m: int) -> None:
    block, x, context = build(seed, 6, 2), random_tokens(seed, 2, n, 6), random_tokens(seed + 1, 2, m, 6)
    mask = random_mask(seed, 2, 2, n, m)
    out, weights = block(x, context, mask=mask, return_weights=True)
    torch.testing.assert_close(out, reference.block(block, x, context, mask))
    torch.testing.assert_close(out, block(x, context, mask=mask))
    normed = (reference.layer_norm(block.norm1, t) for t in (x, context))
    torch.testing.assert_close(weights, reference.attention(block.attn, *normed, mask)[1])


@given(seeds, counts)
def test_queries_of_some_tokens_give_their_part_of_self_attention(seed: int, n: int) -> None:
    block, x, mask, first = build(seed, 6, 2), random_tokens(seed, 2, n, 6), random_mask(seed, 2, 2, n), 1 + seed % n
    every, weights = block(x, mask=mask, return_weights=True)
    some = block(x[:, :first], x, mask=mask[:, :, :first], return_weights=True)
    torch.testing.assert_close(some, (every[:, :first], weights[:, :, :first]))
    torch.testing.assert_close(block(x[:, :first], x, mask=mask[:, :, :first]), every[:, :first])


def test_stochastic_depth_skips_whole_samples_and_scales_the_others() -> None:
    block, x = build(0, 6, 2, stochastic_depth=0.3).train(), random_tokens(0, 4_000, 3, 6)
    torch.manual_seed(0)
    out = block(x)
    shares = []
    for attention_kept, mlp_kept in itertools.product((False, True), repeat=2):
        y = x + attention_kept / 0.7 * block.attn(block.norm1(x))
        y = y + mlp_kept / 0.7 * block.mlp(block.norm2(y))
        shares.append(torch.isclose(out, y).all((1, 2)).double().mean().item())
        expected = (0.7 if attention_kept else 0.3) * (0.7 if mlp_kept else 0.3)  # the branches draw independently
        assert abs(shares[-1] - expected) < 5 * math.sqrt(expected * (1 - expected) / len(x))
    assert sum(shares) == 1, "all tokens of a sample skip a branch, or have it scaled by 1 / 0.7"


@pytest.mark.parametrize(("rate", "training"), ((0.0, True), (0.0, False), (0.5, False)))
def test_a_branch_that_cannot_be_skipped_costs_nothing(rate: float, training: bool) -> None:
    block, x = build(0, 6, 2, stochastic_depth=rate).train(training), random_tokens(0, 2, 4, 6)
    assert block._skip_samples(x) is x


def test_options_reach_the_children() -> None:
    block = Block(6, 2, mlp_dim=7, qkv_bias=False, dropout=0.1, attn_dropout=0.2)
    assert (block.attn.num_heads, block.attn.attn_dropout, block.attn.dropout.p) == (2, 0.2, 0.1)
    assert block.attn.qkv.bias is None
    assert (block.mlp.fc1.out_features, block.mlp.dropout.p) == (7, 0.1)


def test_at_the_start_each_branch_adds_a_variance_that_does_not_depend_on_the_input() -> None:
    """The residual path is left as it is, and both branches see a normalised input: attention of one token adds one."""
    torch.manual_seed(0)
    block, x = Block(256, 4, mlp_dim=1024), random_tokens(0, 400, 1, 256, torch.float32)
    of_mlp = block.mlp(x).var().item()
    assert 0.1 < of_mlp < 1
    for scale in (0.3, 1.0, 5.0):
        assert block(scale * x).var().item() == pytest.approx(scale**2 + 1 + of_mlp, rel=0.1)


def test_reset_parameters_resets_every_child() -> None:
    torch.manual_seed(0)
    block = build(0, 6, 2)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    block.reset_parameters()
    after = block.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in (block.norm1, block.norm2))
    assert not block.attn.qkv.bias.any()


def test_torch_fx_traces_a_context_that_may_be_left_out() -> None:
    block, x, context = Block(6, 3, mlp_dim=7), random_tokens(0, 2, 5, 6), random_tokens(1, 2, 4, 6)
    traced = torch.fx.symbolic_trace(block.double())
    torch.testing.assert_close(traced(x), block(x))
    torch.testing.assert_close(traced(x, context), block(x, context))
