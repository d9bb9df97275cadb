"""What makes a block: two residual branches, each normalised before, not after; whole samples may skip a branch."""

import math

import pytest
import torch
from hypothesis import given
from torch import nn

from components import Block
from tests import reference
from tests.support.strategies import batch_sizes, generator, head_counts, head_widths, random_mask, random_tokens, seeds
from tests.support.strategies import token_counts as counts

pytestmark = pytest.mark.numerics


def build(seed: int, dim: int, heads: int, **options: object) -> Block:
    """Float64, with every parameter drawn: zero biases and unit scales would hide mistakes."""
    block = Block(dim, heads, mlp_dim=2 * dim, dtype=torch.float64, **options)
    draw = generator(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return block


def silence(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


@given(seeds, batch_sizes, counts, head_counts, head_widths)
def test_permuted_tokens_give_permuted_output(seed: int, batch: int, n: int, heads: int, width: int) -> None:
    block, x = build(seed, heads * width, heads), random_tokens(seed, batch, n, heads * width)
    order = torch.randperm(n, generator=generator(seed))
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])


@given(seeds, batch_sizes, counts)
def test_with_silent_branches_it_is_the_identity(seed: int, batch: int, n: int) -> None:
    """A missing residual returns zeros, post-norm a normalised input."""
    block, x = build(seed, 6, 2), 100 * random_tokens(seed, batch, n, 6)
    silence(block.attn.proj)
    silence(block.mlp.fc2)
    assert torch.equal(block(x), x)


@given(seeds)
def test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one(seed: int) -> None:
    block, x = build(seed, 6, 2), random_tokens(seed, 2, 4, 6)
    attended = x + block.attn(reference.layer_norm(block.norm1, x))
    torch.testing.assert_close(block(x), attended + block.mlp(reference.layer_norm(block.norm2, attended)))


def test_the_norms_have_the_eps_of_the_original_code() -> None:
    """Ten times torch's default shows where a token is nearly constant; kornia had to change it (#2786)."""
    block = Block(4, 1, mlp_dim=4)
    assert block.norm1.eps == block.norm2.eps == 1e-6


@given(seeds)
def test_a_mask_hides_and_weights_come_back(seed: int) -> None:
    block, x, mask = build(seed, 6, 2), random_tokens(seed, 2, 4, 6), random_mask(seed, 2, 2, 4)
    out, weights = block(x, mask=mask, return_weights=True)
    normed = reference.layer_norm(block.norm1, x)
    expected, expected_weights = reference.attention(block.attn, normed, mask=mask)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(out, block(x, mask=mask))
    attended = x + expected
    torch.testing.assert_close(out, attended + block.mlp(reference.layer_norm(block.norm2, attended)))


@given(seeds, counts, counts)
def test_a_context_is_normalised_as_the_input_is_and_is_not_added(seed: int, n: int, m: int) -> None:
    block, x, context = build(seed, 6, 2), random_tokens(seed, 2, n, 6), random_tokens(seed + 1, 2, m, 6)
    mask = random_mask(seed, 2, 2, n, m)
    out, weights = block(x, context, mask=mask, return_weights=True)
    torch.testing.assert_close(out, reference.block(block, x, context, mask))
    torch.testing.assert_close(out, block(x, context, mask=mask))
    normed = (reference.layer_norm(block.norm1, t) for t in (x, context))
    torch.testing.assert_close(weights, reference.attention(block.attn, *normed, mask)[1])


@given(seeds, counts)
def test_some_of_a_sequence_over_all_of_it_are_those_of_self_attention(seed: int, n: int) -> None:
    block, x, mask, some = build(seed, 6, 2), random_tokens(seed, 2, n, 6), random_mask(seed, 2, 2, n), 1 + seed % n
    every, weights = block(x, mask=mask, return_weights=True)
    torch.testing.assert_close(block(x[:, :some], x, mask=mask[:, :, :some]), every[:, :some])
    torch.testing.assert_close(
        block(x[:, :some], x, mask=mask[:, :, :some], return_weights=True), (every[:, :some], weights[:, :, :some])
    )


def test_stochastic_depth_skips_whole_samples_and_scales_the_others() -> None:
    block, x = build(0, 6, 2, stochastic_depth=0.3).train(), random_tokens(0, 4_000, 3, 6)
    torch.manual_seed(0)
    out = block(x)
    outcomes = {}
    for attention_kept in (False, True):
        for mlp_kept in (False, True):
            y = x + attention_kept / 0.7 * block.attn(block.norm1(x))
            y = y + mlp_kept / 0.7 * block.mlp(block.norm2(y))
            outcomes[attention_kept, mlp_kept] = torch.isclose(out, y).all((1, 2)).double().mean().item()
    assert sum(outcomes.values()) == 1, "each sample skips a branch with all its tokens, or has it at 1 / 0.7"
    for kept, share in outcomes.items():
        expected = math.prod(0.7 if branch else 0.3 for branch in kept)  # the two branches draw on their own
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / len(x))


@pytest.mark.parametrize(("rate", "training"), ((0.0, True), (0.0, False), (0.5, False)))
def test_a_branch_that_cannot_be_skipped_costs_nothing(rate: float, training: bool) -> None:
    block, x = build(0, 6, 2, stochastic_depth=rate).train(training), random_tokens(0, 2, 4, 6)
    assert block._skip_samples(x) is x


def test_options_reach_the_children() -> None:
    block = Block(6, 2, mlp_dim=7, qkv_bias=False, dropout=0.1, attn_dropout=0.2)
    assert (block.attn.num_heads, block.attn.attn_dropout, block.attn.dropout.p) == (2, 0.2, 0.1)
    assert block.attn.qkv.bias is None
    assert (block.mlp.fc1.out_features, block.mlp.dropout.p) == (7, 0.1)


def test_reset_parameters_starts_every_child_anew() -> None:
    torch.manual_seed(0)
    block = build(0, 6, 2)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    block.reset_parameters()
    after = block.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    for norm in (block.norm1, block.norm2):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert not norm.bias.any()
    assert not block.attn.qkv.bias.any()
