"""Distortions: geometry, colour and cutout, each image by its own numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from scripts.data.distortions import cut_out, recoloured, stretched
from scripts.data.transforms import Augment
from tests.support.strategies import generator, random_pixels, seeds

pytestmark = pytest.mark.numerics


def smooth(height: int, width: int) -> torch.Tensor:
    """One image of three slopes."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([100 + 50 * x, 100 + 50 * y, 100 + 30 * x - 20 * y])[None]


@given(seeds, st.sampled_from(((8, 8), (7, 12))))
def test_a_linear_map_moves_every_point_about_the_centre(seed: int, size: tuple[int, int]) -> None:
    """On slopes bilinear sampling is exact: the colour at p becomes that at (I + G) p, as long as it is inside."""
    maps = 0.3 * (2 * torch.rand(3, 4, generator=generator(seed)) - 1)
    x = smooth(*size).expand(3, -1, -1, -1)
    y, found = stretched(x, maps), (x[:, :2] - 100) / 50  # what was where: (x, y) of every pixel
    expected = torch.einsum("bij,bjhw->bihw", torch.eye(2) + maps.view(-1, 2, 2), found * _centred(size))
    inside = (expected.abs() < _centred(size)[:, :2]).all(1, keepdim=True)
    assert inside.float().mean() > 0.4
    assert (((y[:, :2] - 100) / 50 * _centred(size) - expected) * inside).abs().max() < 1e-4


def _centred(size: tuple[int, int]) -> torch.Tensor:
    """From the slopes, which are 1 at the centre of the last pixel, to coordinates that are 1 at its edge."""
    height, width = size
    return torch.tensor([(width - 1) / width, (height - 1) / height]).view(1, 2, 1, 1)


@given(seeds)
def test_no_change_is_the_identity(seed: int) -> None:
    x = random_pixels(seed, 4, 6, 7).float()
    torch.testing.assert_close(stretched(x, torch.zeros(4, 4)), x, atol=1e-3, rtol=0)
    torch.testing.assert_close(recoloured(x, torch.ones(4, 3)), x, atol=1e-3, rtol=0)
    assert torch.equal(cut_out(x.byte(), torch.full((4, 2), 0.5), 0), x.byte())


@given(seeds, st.floats(0.5, 1.5))
def test_each_colour_change_is_that_of_torchvision(seed: int, factor: float) -> None:
    """Of a single change, which torchvision clips and rounds and we do not."""
    x = (64 + random_pixels(seed, 3, 6, 7) // 4).float()  # far from black and white
    changes = (v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation)
    for place, change in enumerate(changes):
        factors = torch.ones(3, 3)
        factors[:, place] = factor
        expected = 255 * change(x / 255, factor)
        torch.testing.assert_close(recoloured(x, factors).clamp(0, 255), expected, atol=0.2, rtol=0)


@given(seeds, st.integers(1, 9))
def test_a_square_of_the_mean_colour_is_cut_out_around_its_centre(seed: int, side: int) -> None:
    x = random_pixels(seed, 5, 10, 12)
    shares = torch.rand(5, 2, generator=generator(seed))
    y = cut_out(x, shares, side)
    for image, changed, (down, right) in zip(x, y, shares, strict=True):
        top, left = (round(float(share * length)) - side // 2 for share, length in ((down, 10), (right, 12)))
        expected = image.clone()
        square = (slice(max(top, 0), max(top + side, 0)), slice(max(left, 0), max(left + side, 0)))
        expected[:, square[0], square[1]] = image.float().mean((1, 2)).round().byte().view(3, 1, 1)
        assert torch.equal(changed, expected)


@pytest.mark.parametrize("change", [{"geometry": 0.2}, {"colour": 0.4}, {"cutout": 3}])
@given(seeds)
def test_every_image_of_a_batch_is_distorted_by_numbers_of_its_own(change: dict[str, float], seed: int) -> None:
    one = random_pixels(seed, 1, 12, 12)
    distorted = Augment(**change)(one.expand(12, -1, -1, -1), 12, generator(seed))
    assert distorted.dtype == torch.uint8
    assert len(distorted.flatten(1).unique(dim=0)) > 6, "some squares may lie at the same place"


@given(seeds)
def test_distortions_are_no_larger_than_they_say(seed: int) -> None:
    augment = Augment(mirror=True, shift=2, geometry=0.2, colour=0.3, cutout=4)
    drawn = augment.draws(500, 32, 32, generator(seed))
    assert {name: numbers.shape for name, numbers in drawn.items()} == {
        "mirror": (500, 1), "shift": (500, 2), "geometry": (500, 4), "colour": (500, 3), "cutout": (500, 2)
    }  # fmt: skip
    for name, least, greatest in (("geometry", -0.2, 0.2), ("colour", 0.7, 1.3), ("cutout", 0.0, 1.0)):
        level = (drawn[name] - least) / (greatest - least)
        assert level.min() >= -1e-6
        assert level.max() <= 1 + 1e-6
        assert (level.mean(0) - 0.5).abs().max() < 0.1


@given(st.integers(1, 9), st.integers(1, 4))
def test_a_share_of_a_batch_is_distorted_as_in_the_whole_batch(count: int, processes: int) -> None:
    augment = Augment(mirror=True, shift=1, crop=0.5, geometry=0.2, colour=0.3, cutout=3)
    x, size = random_pixels(count, count, 8, 8), -(-count // processes)
    whole = augment(x, count, generator(1))
    shares = [slice(size * rank, size * (rank + 1)) for rank in range(processes)]
    parts = [augment(x[share], count, generator(1), share) for share in shares]
    # products of other batch sizes may round a level the other way
    assert (torch.cat(parts).float() - whole.float()).abs().max() <= 1
