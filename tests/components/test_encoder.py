"""Laws of the encoder: blocks in order, a final norm, maps of every layer, checkpointing that changes no number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from components import Encoder
from tests import reference
from tests.contract.cases import randomised
from tests.support.strategies import batch_sizes, generator, head_counts, head_widths, random_mask, random_tokens, seeds
from tests.support.strategies import token_counts as counts

pytestmark = pytest.mark.numerics

depths = st.integers(1, 3)


def build(seed: int, dim: int, depth: int, heads: int, **options: object) -> Encoder:
    """In float64, with random parameters."""
    return randomised(Encoder(dim, depth, num_heads=heads, mlp_dim=dim + 1, dtype=torch.float64, **options), seed)


@given(seeds, batch_sizes, counts, head_counts, head_widths, depths)
def test_permuted_tokens_give_permuted_output(seed, batch: int, n: int, heads: int, width: int, depth: int) -> None:
    encoder, x = build(seed, heads * width, depth, heads), random_tokens(seed, batch, n, heads * width)
    order = torch.randperm(n, generator=generator(seed))
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order])


@given(seeds, depths)
def test_positions_break_permutation_equivariance(seed: int, depth: int) -> None:
    encoder, x, positions = build(seed, 12, depth, 3), random_tokens(seed, 2, 5, 12), random_tokens(seed + 1, 1, 5, 12)
    moved, placed = encoder(x.roll(1, 1) + positions), encoder(x + positions).roll(1, 1)
    assert (moved - placed).abs().mean() > 0.01


@given(seeds, depths)
def test_weights_of_every_layer_equal_the_reference_and_leave_the_output_unchanged(seed: int, depth: int) -> None:
    """Maps of some layers, or of all, could not be reached: lucidrains #1, vit-explain #23, slide2vec #142."""
    encoder, x = build(seed, 6, depth, 2), random_tokens(seed, 2, 4, 6)
    out, weights = encoder(x, return_weights=True)
    torch.testing.assert_close(out, encoder(x))
    assert weights.shape == (2, depth, 2, 4, 4)
    for i, block in enumerate(encoder.blocks):
        normed = reference.layer_norm(block.norm1, x)
        torch.testing.assert_close(weights[:, i], reference.attention(block.attn, normed)[1])
        x = reference.block(block, x)


@given(seeds, depths)
def test_hidden_tokens_stay_hidden_through_every_layer(seed: int, depth: int) -> None:
    encoder, x = build(seed, 6, depth, 2), random_tokens(seed, 2, 5, 6)
    real = torch.tensor([True, True, False, True, False])
    padded = x.masked_fill(~real[:, None], torch.nan)
    torch.testing.assert_close(encoder(padded, mask=real[None, None, None])[:, real], encoder(x[:, real]))


@given(seeds, st.lists(counts, min_size=1, max_size=4), depths)
def test_a_causal_sequence_behind_padding_gives_what_it_gives_alone(seed: int, lengths: list[int], depth: int) -> None:
    """The padding attends to nothing in any layer, and no row sees more for that."""
    encoder, longest = build(seed, 6, depth, 2), max(lengths)
    x, causal = random_tokens(seed, len(lengths), longest, 6), torch.ones(longest, longest, dtype=torch.bool).tril()
    real = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    out = encoder(x, mask=causal & real[:, None, None, :])
    for i, length in enumerate(lengths):
        alone = encoder(x[i : i + 1, -length:], mask=causal[None, None, :length, :length])
        torch.testing.assert_close(out[i : i + 1, -length:], alone)


@pytest.mark.parametrize("checkpointing", (False, True))
@given(seeds, counts, depths)
def test_first_returns_the_first_tokens_of_the_whole_output(checkpointing: bool, seed: int, n: int, depth: int) -> None:
    """Every block but the last computes all tokens, because the first ones attend to them."""
    encoder, mask = build(seed, 6, depth, 2, checkpointing=checkpointing), random_mask(seed, 2, 2, n)
    x, first = random_tokens(seed, 2, n, 6).requires_grad_(), 1 + seed % n
    some, (every, weights) = encoder(x, mask=mask, first=first), encoder(x, mask=mask, return_weights=True)
    torch.testing.assert_close(some, every[:, :first])
    upstream = torch.randn(some.shape, generator=generator(seed), dtype=torch.float64)
    slopes = (torch.autograd.grad(out, x, upstream, retain_graph=True) for out in (some, every[:, :first]))
    torch.testing.assert_close(*slopes)
    both = encoder(x, mask=mask, return_weights=True, first=first)
    torch.testing.assert_close(both, (every[:, :first], weights), msg="weights are returned for every token")


def test_only_the_last_block_computes_fewer_tokens() -> None:
    encoder, widths = build(0, 6, 3, 2), []
    for block in encoder.blocks:
        block.mlp.register_forward_hook(lambda module, args, out: widths.append(out.shape[1]))
    encoder(random_tokens(0, 2, 5, 6), first=2)
    assert widths == [5, 5, 2]


@pytest.mark.parametrize("axis", (0, 1, 2, 3))
def test_first_works_with_a_mask_of_any_shape(axis: int) -> None:
    encoder, x = build(0, 6, 2, 2), random_tokens(0, 2, 4, 6)
    mask = random_mask(0, 2, 2, 4).narrow(axis, 0, 1)
    torch.testing.assert_close(encoder(x, mask=mask, first=2), encoder(x, mask=mask)[:, :2])


@given(seeds)
def test_one_mask_serves_every_layer(seed: int) -> None:
    encoder, x, mask = build(seed, 6, 2, 2), random_tokens(seed, 2, 4, 6), random_mask(seed, 2, 2, 4)
    _, weights = encoder(x, mask=mask, return_weights=True)
    assert torch.equal(weights > 0, mask[:, None].expand_as(weights))


@given(seeds)
def test_every_output_token_is_normalised(seed: int) -> None:
    encoder, x = build(seed, 6, 2, 2), random_tokens(seed, 2, 4, 6)
    encoder.norm.reset_parameters()
    out = encoder(100 * x)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 4, dtype=torch.float64))
    torch.testing.assert_close(out.square().mean(-1), torch.ones(2, 4, dtype=torch.float64), atol=1e-5, rtol=0)
    assert encoder.norm.eps == 1e-6


@given(st.integers(1, 12), st.sampled_from((0.0, 0.1, 0.5)))
def test_stochastic_depth_grows_linearly_to_its_value(depth: int, rate: float) -> None:
    encoder = Encoder(4, depth, num_heads=1, mlp_dim=4, stochastic_depth=rate, device="meta")
    rates = [block.stochastic_depth for block in encoder.blocks]
    assert rates == pytest.approx([rate * layer / depth for layer in range(1, depth + 1)])


def test_every_block_skips_as_many_branches_as_its_rate_says() -> None:
    """A sample passes a block unchanged if it skips both branches."""
    torch.manual_seed(0)
    encoder, x, shares = build(0, 4, 3, 2, stochastic_depth=0.6).train(), random_tokens(0, 4000, 1, 4), []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _, given, out: shares.append((out == given[0]).all((1, 2)).double().mean()))
    encoder(x)
    torch.testing.assert_close(torch.stack(shares), torch.tensor([0.2, 0.4, 0.6]).double() ** 2, atol=0.03, rtol=0)


@pytest.mark.parametrize("return_weights", (False, True))
@pytest.mark.parametrize("training", (True, False))
def test_checkpointing_changes_no_number(training: bool, return_weights: bool) -> None:
    """Not even the random numbers of dropout: the recomputation draws the same ones."""
    options = {"dropout": 0.3, "attn_dropout": 0.3, "stochastic_depth": 0.5}
    results = []
    for checkpointing in (False, True):
        encoder = build(0, 6, 3, 2, checkpointing=checkpointing, **options).train(training)
        x = random_tokens(0, 4, 5, 6).requires_grad_()
        torch.manual_seed(0)
        out = encoder(x, mask=random_mask(0, 4, 2, 5), return_weights=return_weights)
        out, weights = out if return_weights else (out, out.new_zeros(1))
        loss = out.square().sum() + weights.square().sum()
        results.append([out, *torch.autograd.grad(loss, [x, *encoder.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_checkpointing_keeps_only_the_input_of_every_block() -> None:
    """Counts what autograd saves. Without gradients every block runs once."""

    def saved_elements(checkpointing: bool) -> int:
        encoder, elements = build(0, 8, 3, 2, checkpointing=checkpointing), []
        own = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}

        def pack(t: Tensor) -> Tensor:
            elements.append(0 if t.untyped_storage().data_ptr() in own else t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            encoder(random_tokens(0, 4, 7, 8))
        return sum(elements)

    assert saved_elements(True) < saved_elements(False) / 5
    encoder, calls = build(0, 8, 3, 2, checkpointing=True), []
    encoder.blocks[1].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        encoder(random_tokens(0, 4, 7, 8))
    assert len(calls) == 1


def test_checkpointing_compiles_into_one_graph() -> None:
    encoder, x = build(0, 6, 1, 2, checkpointing=True), random_tokens(0, 2, 5, 6)
    torch._dynamo.reset()
    out = torch.compile(encoder, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(out, encoder(x))
    torch.testing.assert_close(*(torch.autograd.grad(t.sum(), encoder.parameters()) for t in (out, encoder(x))))


def test_options_reach_every_block() -> None:
    encoder = Encoder(6, 3, num_heads=2, mlp_dim=7, qkv_bias=False, dropout=0.1, attn_dropout=0.2)
    for block in encoder.blocks:
        assert (block.attn.num_heads, block.attn.attn_dropout, block.attn.dropout.p) == (2, 0.2, 0.1)
        assert block.attn.qkv.bias is None
        assert (block.mlp.fc1.out_features, block.mlp.dropout.p) == (7, 0.1)


def test_every_block_starts_with_different_weights() -> None:
    """The layers of torch's ``nn.TransformerEncoder`` are clones and start equal: pytorch #72253."""
    torch.manual_seed(0)
    first, second = Encoder(6, 2, num_heads=2, mlp_dim=7).blocks
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        assert not torch.equal(first.get_submodule(layer).weight, second.get_submodule(layer).weight), layer


def test_reset_parameters_resets_every_block() -> None:
    torch.manual_seed(0)
    encoder = build(0, 6, 2, 2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.reset_parameters()
    after = encoder.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert (encoder.norm.weight == 1).all()
    assert not encoder.norm.bias.any()
    assert not torch.equal(encoder.blocks[0].mlp.fc1.weight, encoder.blocks[1].mlp.fc1.weight)


class Classifier(nn.Module):
    """A model of somebody else, with a mask that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(6, 2, num_heads=3, mlp_dim=7)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.encoder(x, mask=mask, first=1)[:, 0]


def test_torch_fx_traces_a_mask_that_may_be_left_out() -> None:
    model, x, mask = Classifier(), random_tokens(0, 2, 5, 6, torch.float32), random_mask(0, 2, 3, 5)
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(traced(x, mask), model(x, mask))
    assert not torch.allclose(model(x), model(x, mask))
