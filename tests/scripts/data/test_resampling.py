"""Resampling: the same as Pillow and torchvision for each box, within rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as vision

from scripts.data.resampling import resampled
from scripts.data.transforms import random_boxes
from tests.support.strategies import generator, random_pixels, seeds

sides = st.sampled_from((1, 2, 7, 32, 33))


def pillow(images: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize every channel in floating point.

    torch's kernel is no oracle: with antialiasing it computes a single column by interpolating in one direction only.
    """
    found = torch.empty(*images.shape[:2], *size)
    for planes, targets, (top, left, rows, columns) in zip(images, found, boxes.tolist(), strict=True):
        for plane, target in zip(planes[:, top : top + rows, left : left + columns], targets, strict=True):
            resized = Image.fromarray(plane.float().numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
            target.copy_(torch.from_numpy(np.array(resized)))
    return found


@given(seeds, sides, sides, sides, sides)
def test_every_box_is_resized_as_by_pillow(seed: int, height: int, width: int, rows: int, columns: int) -> None:
    """Up or down, independently in each direction; ties may be rounded either way."""
    images, boxes = random_pixels(seed, 6, height, width), random_boxes(6, height, width, 0.05, generator(seed))
    found = resampled(images, boxes, (rows, columns))
    assert (found.shape, found.dtype) == ((6, 3, rows, columns), torch.uint8)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - pillow(images, boxes, (rows, columns))).abs().max() < 0.5 + 1e-3


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (9, 50), (8, 8)])
def test_it_differs_from_torchvision_by_at_most_one_level(size: tuple[int, int]) -> None:
    images, boxes = random_pixels(0, 40, 32, 40), random_boxes(40, 32, 40, 0.05, generator(1))
    crops = [
        vision.resized_crop(image, *box, size=list(size)) for image, box in zip(images, boxes.tolist(), strict=True)
    ]
    assert (resampled(images, boxes, size).int() - torch.stack(crops).int()).abs().max() <= 1


def test_the_whole_frame_at_its_size_is_the_image() -> None:
    images = random_pixels(0, 3, 32, 20)
    frames = torch.tensor([[0, 0, 32, 20]]).expand(3, -1)
    assert torch.equal(resampled(images, frames, (32, 20)), images)
    assert resampled(images[:0], frames[:0], (8, 8)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("level", [0, 255])
def test_black_stays_black_and_white_stays_white(level: int) -> None:
    images = torch.full((20, 3, 32, 32), level, dtype=torch.uint8)
    assert (resampled(images, random_boxes(20, 32, 32, 0.05, generator(0)), (224, 7)) == level).all()


def test_pixels_outside_the_box_have_no_influence() -> None:
    images = random_pixels(0, 1, 16, 16)
    others = 255 - images
    others[..., 3:9, 5:15] = images[..., 3:9, 5:15]
    box = torch.tensor([[3, 5, 6, 10]])
    for size in ((4, 4), (16, 16)):
        assert torch.equal(resampled(others, box, size), resampled(images, box, size))


def test_resampling_is_float32_under_autocast() -> None:
    images, boxes = random_pixels(0, 4, 32, 32), random_boxes(4, 32, 32, 0.05, generator(0))
    expected = resampled(images, boxes, (40, 40))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resampled(images, boxes, (40, 40)), expected)
