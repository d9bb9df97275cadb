"""Cluttered scenes: one object at a random place and of a random size, among distractors, on a black canvas.

The object is a whole image. Distractors are pieces of other images, as large in proportion to the object as they are in
it. No two of them overlap, so that the box of each is exact.

Letters: N scenes, n boxes in each: the object's, then those of the distractors; M images, h w their pixels.

Source: the cluttered MNIST of "Recurrent Models of Visual Attention", Mnih et al. 2014
(https://arxiv.org/abs/1406.6247), on which Jaderberg et al. 2015 (https://arxiv.org/abs/1506.02025) tried spatial
transformers. There all objects are of one size, and distractors may lie over them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scripts.data.resampling import resampled

CANVAS = 60  # pixels a side
SIDES = (20, 36)  # least and greatest side of an object
DISTRACTORS = 6
PIECES = (8, 14)  # least and greatest side of a distractor
TRIES = 20  # places that are tried for a distractor, which is left out where all are taken
AT_ONCE = 1000  # boxes that are drawn, of which each needs its matrices


@dataclass(frozen=True)
class Scenes:
    """Scenes, and what is known of them.

    Args:
        images: uint8 (N, 3, 60, 60), channels last.
        boxes: (N, n, 4): left, top, width and height in pixels; all zero where a distractor found no place.
        origins: (N, n): which of the images each box shows.
    """

    images: Tensor
    boxes: Tensor
    origins: Tensor


def scenes(images: Tensor, each: int, seed: int) -> Scenes:
    """Make scenes, in the order of the images and the same in every call.

    Args:
        images: uint8 (M, 3, h, w), at least two; the central square of each is shown.
        each: Scenes for every image.
        seed: For places, sizes and distractors.
    """
    draw = torch.Generator().manual_seed(seed)
    count, side = len(images) * each, min(images.shape[2:])
    objects = torch.arange(len(images)).repeat_interleave(each)
    others = torch.randint(1, len(images), (count, DISTRACTORS), generator=draw)  # how far on: never the object itself
    origins = torch.cat([objects.unsqueeze(1), (objects.unsqueeze(1) + others) % len(images)], 1)
    boxes = _places(count, draw)
    part = (boxes[..., 2] * side / boxes[:, :1, 2]).round().long().clamp(min=1)  # of each image, in its pixels
    start = _below(side - part.unsqueeze(2) + 1, draw)
    start[:, 0] = 0
    corners = start + torch.tensor([(images.shape[2] - side) // 2, (images.shape[3] - side) // 2])
    parts = torch.cat([corners, part.unsqueeze(2).expand(-1, -1, 2)], 2)  # top, left, height, width
    canvas = torch.zeros(count, CANVAS, CANVAS, 3, dtype=torch.uint8)
    for size in range(PIECES[0], SIDES[1] + 1):
        alike = (boxes[..., 2] == size).nonzero()  # scene, number of the box
        for scene, number in (part.unbind(1) for part in alike.split(AT_ONCE)):
            shown = resampled(images[origins[scene, number]], parts[scene, number], (size, size))
            left, top = (boxes[scene, number, axis].view(-1, 1, 1) for axis in (0, 1))
            along = torch.arange(size)
            canvas[scene.view(-1, 1, 1), top + along.view(-1, 1), left + along] = shown.permute(0, 2, 3, 1)
    return Scenes(canvas.permute(0, 3, 1, 2), boxes, origins)


def _places(count: int, draw: torch.Generator) -> Tensor:
    """Draw boxes that lie on the canvas and apart from each other, the objects' first: (N, n, 4)."""
    side = torch.randint(SIDES[0], SIDES[1] + 1, (count, 1, 1), generator=draw)
    boxes = _squares(side, 1, draw)
    for _ in range(DISTRACTORS):
        tried = _squares(torch.randint(PIECES[0], PIECES[1] + 1, (count, 1, 1), generator=draw), TRIES, draw)
        free = ~_overlap(tried.unsqueeze(2), boxes.unsqueeze(1)).any(2)  # (N, tries)
        first = free.int().argmax(1).view(-1, 1, 1).expand(-1, 1, 4)
        boxes = torch.cat([boxes, tried.gather(1, first) * free.any(1).view(-1, 1, 1)], 1)
    return boxes


def _squares(side: Tensor, number: int, draw: torch.Generator) -> Tensor:
    """Draw so many squares of a side (N, 1, 1) anywhere on each canvas: (N, number, 4)."""
    corners = _below((CANVAS - side + 1).expand(-1, number, -1), draw)
    return torch.cat([corners, side.expand(-1, number, 2)], 2)


def _below(limit: Tensor, draw: torch.Generator) -> Tensor:
    """Draw two whole numbers from 0 to below each limit: (..., 1) -> (..., 2)."""
    return torch.randint(1 << 31, (*limit.shape[:-1], 2), generator=draw) % limit


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Whether boxes (..., 4) have a pixel in common."""
    start, size = slice(None, 2), slice(2, None)
    apart = (a[..., start] + a[..., size] <= b[..., start]) | (b[..., start] + b[..., size] <= a[..., start])
    return ~apart.any(-1)
