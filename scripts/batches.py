"""Batches that are made where the model is: the whole split lies there as uint8, and is indexed and normalised there.

uint8 (N, 3, H, W) -> shuffled -> uint8 (B, 3, H, W) -> mirrored, shifted, cropped -> float32 (B, 3, h, w)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scripts.data import Split
from scripts.resampling import resampled

Prepare = Callable[[Tensor], Tensor]  # from uint8 images to what a model takes
ALL = slice(None)


@dataclass(frozen=True)
class Normalise:
    """From uint8 to zero mean and unit variance a channel; mean and std are those of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return (x / 255 - mean) / std as float32 in channels-last order, by one multiplication and one addition."""
        if images.device not in self._constants:
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
            self._constants[images.device] = sent(-mean / std, images.device), sent(1 / (255 * std), images.device)
        shift, factor = self._constants[images.device]
        return torch.addcmul(shift, images.to(torch.float32, memory_format=torch.channels_last), factor)

    def undo(self, images: Tensor) -> Tensor:
        """Return uint8 images."""
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        return ((images * std + mean) * 255).round().clamp(0, 255).byte()

    @cached_property
    def _constants(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        """Copied to a device once, not in every batch."""
        return {}


@dataclass(frozen=True)
class Augment:
    """Random changes to training images, drawn for every image on its own.

    torchvision's transforms.v2 draw once for a whole batch: every image of it would be mirrored, or none.

    Args:
        mirror: Mirror left to right with probability one half.
        shift: Largest shift in pixels, in each direction; what enters the frame is the reflection at its border.
        crop: Smallest share of the area that is kept of an image: a box of a random size, place and aspect ratio (3/4
            to 4/3) is stretched to the size of the image, or to ``size``; where that is smaller, it is antialiased.
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
        draws, images = self.draws(count, height, width, generator)[share], images[share]
        if draws.shape[1] == 0:
            return images
        draws = sent(draws, images.device)
        if self.mirror:
            coins, draws = draws[:, 0].bool(), draws[:, 1:]
            images = torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)
        if self.shift:
            (down, right), draws = draws[:, :2].split(1, 1), draws[:, 2:]
            rows = _reflect(torch.arange(height, device=images.device) + down, height)  # (B, H)
            columns = _reflect(torch.arange(width, device=images.device) + right, width)  # (B, W)
            images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
            images = images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
        if self.crop is not None:
            images = resampled(images, draws, (height, width) if self.size is None else (self.size, self.size))
        return images

    def draws(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """What is drawn for so many images, a row of whole numbers each: all that a device needs, in one tensor.

        Whether it is mirrored; pixels down and to the right; top, left, height and width of its box.
        """
        drawn = [torch.empty(count, 0, dtype=torch.long)]
        if self.mirror:
            drawn.append((torch.rand(count, 1, generator=generator) < 0.5).long())
        if self.shift:
            drawn.append(torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator).T)
        if self.crop is not None:
            drawn.append(random_boxes(count, height, width, self.crop, generator))
        return torch.cat(drawn, 1)


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


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers from the CPU on a device; a GPU fetches them from pinned memory when it gets there, and nobody waits."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images of another size, as crops are resampled; those of that size as they are."""
    if images.shape[-2:] == size:
        return images
    frame = sent(torch.tensor([[0, 0, *images.shape[-2:]]]), images.device)
    return resampled(images, frame.expand(len(images), -1), size)


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
    return sent(torch.randperm(len(split), generator=generator), split.labels.device).split(batch_size)


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
