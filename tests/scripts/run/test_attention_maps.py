"""Attention maps: rollout by its definition, and every map at the right patch and head."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scripts.run.attention_maps import attention_rollout, class_token_maps
from tests.support.strategies import batch_sizes, generator, seeds

pytestmark = pytest.mark.numerics

rows = columns = st.integers(1, 4)


def random_weights(seed: int, batch: int, layers: int, heads: int, tokens: int) -> Tensor:
    """Rows that sum to one, in float64."""
    scores = torch.randn(batch, layers, heads, tokens, tokens, generator=generator(seed), dtype=torch.float64)
    return torch.softmax(scores, -1)


@given(seeds, batch_sizes, st.integers(1, 4), st.integers(1, 3), rows, columns)
def test_rollout_is_the_product_of_layers_and_half_identities(seed, batch, layers, heads, height, width) -> None:
    """Abnar and Zuidema 2020, equation 1, computed for each image and head."""
    weights = random_weights(seed, batch, layers, heads, 1 + height * width)
    maps = attention_rollout(weights, (height, width))
    assert maps.shape == (batch, height, width)
    for image, rolled in zip(weights, maps, strict=True):
        share = torch.zeros(1 + height * width, dtype=torch.float64)
        share[0] = 1.0  # follow the class token from the last layer down to the first
        for layer in reversed(image):
            share = sum((0.5 * share + 0.5 * share @ head for head in layer), torch.zeros_like(share)) / heads
        torch.testing.assert_close(rolled.flatten(), share[1:])


@given(seeds, batch_sizes, rows, columns)
def test_attention_to_one_patch_appears_at_that_patch(seed: int, batch: int, height: int, width: int) -> None:
    patch = int(torch.randint(height * width, (), generator=generator(seed)))
    weights = torch.eye(1 + height * width).repeat(batch, 2, 3, 1, 1)
    weights[:, -1, :, 0] = 0
    weights[:, -1, :, 0, 1 + patch] = 1
    row, column = divmod(patch, width)
    for map_, bright in ((attention_rollout(weights, (height, width)), 0.5),
                         (class_token_maps(weights, (height, width))[:, 1, 2], 1.0)):  # fmt: skip
        assert (map_[:, row, column] == bright).all()
        assert (map_.flatten(1).sum(1) == bright).all()


@given(seeds, batch_sizes, st.integers(1, 3), st.integers(1, 3), rows, columns)
def test_every_head_of_every_layer_has_its_map(seed, batch, layers, heads, height, width) -> None:
    weights = random_weights(seed, batch, layers, heads, 1 + height * width)
    maps = class_token_maps(weights, (height, width))
    assert maps.shape == (batch, layers, heads, height, width)
    for row in range(height):
        for column in range(width):
            assert torch.equal(maps[..., row, column], weights[..., 0, 1 + row * width + column])
