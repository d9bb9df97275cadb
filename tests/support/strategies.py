"""Hypothesis strategies: sizes and seeds, never tensor elements.

Tensors come from a local ``torch.Generator`` with a drawn seed: hypothesis does not manage torch's random state, and
elements would shrink towards 0 and 1, the kinks of bilinear sampling.
"""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

seeds = st.integers(0, 2**31 - 1)
batch_sizes = st.sampled_from((1, 2, 3, 5))
channels = st.sampled_from((1, 2, 3, 5))
sides = st.sampled_from((1, 2, 3, 5, 7, 11, 13, 16, 17, 31, 32))
image_sides = st.sampled_from((1, 5, 17, 18, 19, 23, 31, 32, 47))
head_counts = st.sampled_from((1, 2, 3, 5))
head_widths = st.sampled_from((1, 2, 3, 4))
token_counts = st.sampled_from((1, 2, 3, 5, 7))
patch_sizes = st.sampled_from((1, 2, 3, 4))
grid_sides = st.sampled_from((1, 2, 3, 4, 5, 7))
padding_modes = st.sampled_from(("zeros", "border", "reflection", "mean"))


def generator(seed: int) -> torch.Generator:
    """A new generator with this seed."""
    return torch.Generator().manual_seed(seed)


def random_images(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images of standard normal noise."""
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def random_pixels(seed: int, count: int, height: int, width: int) -> Tensor:
    """Images as data sets hold them."""
    return torch.randint(0, 256, (count, 3, height, width), generator=generator(seed), dtype=torch.uint8)


def random_theta(seed: int, batch: int, spread: float = 0.3) -> Tensor:
    """Affine matrices (batch, 2, 3) around the identity that sample off the pixel centres."""
    noise = torch.randn((batch, 2, 3), generator=generator(seed), dtype=torch.float64)
    return torch.eye(2, 3, dtype=torch.float64) + spread * noise + 0.01 / math.pi


def random_tokens(seed: int, batch: int, count: int, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Tokens of standard normal noise."""
    return random_images(seed, batch, count, dim, dtype=dtype)


def random_mask(seed: int, batch: int, heads: int, count: int, keys: int | None = None) -> Tensor:
    """A boolean mask that hides some pairs, but no whole row: query i sees key i, modulo the number of keys."""
    keys = count if keys is None else keys
    open_pairs = torch.rand((batch, heads, count, keys), generator=generator(seed)) > 0.4
    return open_pairs | (torch.arange(count)[:, None] % keys == torch.arange(keys))
