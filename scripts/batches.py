"""Batches that are made where the model is: the whole split lies there as uint8, and is indexed and normalised there.

uint8 (N, 3, H, W) -> shuffled -> uint8 (B, 3, H, W) -> mirrored, shifted, cropped -> float32 (B, 3, h, w)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from scripts.data import Split

Prepare = Callable[[Tensor], Tensor]  # from uint8 images to what a model takes
ALL = slice(None)


@dataclass(frozen=True)
class Normalise:
    """From uint8 to zero mean and unit variance a channel; mean and std are those of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return (x / 255 - mean) / std as float32 in channels-last order, by one multiplication and one addition."""
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        images = images.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(-mean / std, images, 1 / (255 * std))

    def undo(self, images: Tensor) -> Tensor:
        """Return uint8 images."""
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        return ((images * std + mean) * 255).round().clamp(0, 255).byte()


@dataclass(frozen=True)
class Augment:
    """Random changes to training images, drawn for every image on its own.

    torchvision's transforms.v2 draw once for a whole batch: every image of it would be mirrored, or none.

    Args:
        mirror: Mirror left to right with probability one half.
        shift: Largest shift in pixels, in each direction; what enters the frame is the reflection at its border.
        crop: Smallest share of the area that is kept of an image: a box of a random size, place and aspect ratio (3/4
            to 4/3) is stretched to the size of the image, or to ``size``.
        size: Side in pixels of what a crop becomes; None for the image's own.
    """

    mirror: bool = False
    shift: int = 0
    crop: float | None = None
    size: int | None = None

    def __call__(self, images: Tensor, generator: torch.Generator, share: slice = ALL) -> Tensor:
        """Return that share of the images, changed, in the same shape; the generator lives on the CPU.

        Draws are made for all of them, whoever does the rest, so that they do not depend on the share.
        """
        count, channels, height, width = images.shape
        images = images[share]
        if self.mirror:
            coins = (torch.rand(count, generator=generator) < 0.5)[share].to(images.device)
            images = torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)
        if self.shift:
            limits = (-self.shift, self.shift + 1)
            down, right = torch.randint(*limits, (2, count, 1), generator=generator)[:, share].to(images.device)
            rows = _reflect(torch.arange(height, device=images.device) + down, height)  # (B, H)
            columns = _reflect(torch.arange(width, device=images.device) + right, width)  # (B, W)
            images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
            images = images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
        if self.crop is not None:
            size = [height, width] if self.size is None else [self.size, self.size]
            boxes = random_boxes(count, height, width, self.crop, generator)[share].tolist()
            changed = images.new_empty(len(images), channels, *size)
            for place, image, box in zip(changed, images, boxes, strict=True):
                place.copy_(vision.resized_crop(image, *box, size=size))
            images = changed
        return images


def random_boxes(count: int, height: int, width: int, least: float, generator: torch.Generator) -> Tensor:
    """Top, left, height, width (count, 4) of boxes inside the frame: ``least`` to all of its area, where that fits."""
    area = height * width * (least + (1 - least) * torch.rand(count, generator=generator))
    ratio = (math.log(4 / 3) * (2 * torch.rand(count, generator=generator) - 1)).exp()  # width / height
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 1)
    frame = torch.tensor([height, width])
    sides = sides.round().clamp(min=1).minimum(frame)
    corners = (torch.rand(count, 2, generator=generator) * (frame - sides + 1)).floor()
    return torch.cat([corners, sides], 1).long()


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold an index that left 0 .. size - 1 back at the border pixel it crossed."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images of another size, by bilinear interpolation, with antialiasing where they shrink."""
    return images if images.shape[-2:] == size else vision.resize(images, list(size))


def channel_statistics(images: Tensor) -> Normalise:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), exactly."""
    # a histogram needs no float copy of the whole set
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.cpu().unbind(1)]).double()
    level = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ level
    std = (share @ level.square() - mean.square()).clamp(min=1e-6).sqrt()
    return Normalise(tuple(mean.tolist()), tuple(std.tolist()))


def shuffled(split: Split, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The batches of one pass over the split in a new random order, as positions; the last one may be smaller.

    The generator lives on the CPU, so that every device sees the same batches.
    """
    return torch.randperm(len(split), generator=generator).to(split.labels.device).split(batch_size)


def training_batches(
    split: Split,
    batches: Iterable[Tensor],
    prepare: Prepare,
    augment: Augment,
    generator: torch.Generator,
    share: Callable[[int], slice] = lambda count: ALL,
) -> Iterator[tuple[Tensor, Tensor]]:
    """A share of those images and labels; each batch is augmented as it is asked for: draws are made in its turn.

    Args:
        split: What the batches are of.
        batches: Positions in it.
        prepare: From uint8 images to what the model takes.
        augment: Draws for whole batches.
        generator: What it draws from.
        share: From the size of a batch to the part of it that is wanted.
    """
    for chosen in batches:
        part = share(len(chosen))
        yield prepare(augment(split.images[chosen], generator, part)), split.labels[chosen[part]]


def evaluation_batches(split: Split, prepare: Prepare, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the split in its own order."""
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        yield prepare(images), labels
