"""Laws of the MLP: independent tokens, the exact GELU, two dropouts, the initialisation of the original code."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from components import MLP
from tests.support.strategies import batch_sizes, generator, random_tokens, seeds, token_counts

pytestmark = pytest.mark.numerics

widths = st.sampled_from((1, 2, 3, 5, 8))


@given(seeds, batch_sizes, token_counts, widths, widths)
def test_tokens_are_independent(seed: int, batch: int, n: int, dim: int, mlp_dim: int) -> None:
    torch.manual_seed(seed)
    mlp, x = MLP(dim, mlp_dim, dtype=torch.float64), random_tokens(seed, batch, n, dim)
    alone = torch.stack([mlp(x[:, i]) for i in range(n)], 1)
    torch.testing.assert_close(mlp(x), alone)
    order = torch.randperm(n, generator=generator(seed))
    torch.testing.assert_close(mlp(x[:, order]), alone[:, order])


@given(seeds, st.lists(st.integers(0, 3), max_size=4))
def test_any_leading_axes_are_kept(seed: int, leading: list[int]) -> None:
    x = torch.randn((*leading, 5), generator=generator(seed))
    assert MLP(5, 7)(x).shape == x.shape


def test_the_gelu_is_exact() -> None:
    """Not the tanh form of Flax: they differ by up to 5e-4, which showed in ported weights (spd #624)."""
    mlp = MLP(1, 1, dtype=torch.float64)
    for layer in (mlp.fc1, mlp.fc2):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)[:, None]
    torch.testing.assert_close(mlp(x), x * torch.special.ndtr(x), atol=1e-14, rtol=0)
    assert (mlp(x) - F.gelu(x, approximate="tanh")).abs().max() > 4e-4


def test_dropout_acts_on_the_hidden_layer_and_on_the_output() -> None:
    torch.manual_seed(0)
    mlp = MLP(3, 50, dropout=0.2, dtype=torch.float64)
    x = random_tokens(0, 1, 1, 3).expand(20_000, 1, 3)
    out, expected = mlp(x), mlp.eval()(x[:1])
    dropped = out == 0
    assert abs(dropped.double().mean() - 0.2) < 5 * math.sqrt(0.2 * 0.8 / out.numel())
    kept = out[~dropped]
    assert kept.unique().numel() > 0.9 * kept.numel(), "kept values vary, because hidden units are dropped too"
    assert ((out.mean(0) - expected).abs() < 5 * out.std(0) / math.sqrt(len(out))).all(), "unbiased"


@pytest.mark.parametrize(("dim", "mlp_dim"), ((256, 1024), (256, 256), (1024, 256)))
def test_at_the_start_the_output_has_the_variance_of_xavier(dim: int, mlp_dim: int) -> None:
    """Each layer multiplies the mean square of its input by 2 inputs / (inputs + outputs)."""
    torch.manual_seed(0)
    x = random_tokens(0, 1, 2000, dim, torch.float32)
    hidden = math.sqrt(2 * dim / (dim + mlp_dim)) * torch.randn(200_000, generator=generator(1))
    expected = F.gelu(hidden).square().mean() * 2 * mlp_dim / (dim + mlp_dim)
    assert MLP(dim, mlp_dim)(x).square().mean().item() == pytest.approx(expected.item(), rel=0.05)


def test_parameters_start_as_in_the_original_code() -> None:
    torch.manual_seed(0)
    mlp = MLP(64, 256)
    bound = math.sqrt(6 / (64 + 256))
    for layer in (mlp.fc1, mlp.fc2):
        count = layer.weight.numel()
        assert 0.999 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.square().mean() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / count)
        assert abs(layer.weight.mean()) < 5 * bound / math.sqrt(3 * count)
        unit = layer.bias / 1e-6
        assert abs(unit.mean()) < 5 / math.sqrt(len(unit))
        assert abs(unit.square().mean() - 1) < 5 * math.sqrt(2 / len(unit))
    before = [parameter.clone() for parameter in mlp.parameters()]
    mlp.reset_parameters()
    assert not any(torch.equal(old, new) for old, new in zip(before, mlp.parameters(), strict=True))
