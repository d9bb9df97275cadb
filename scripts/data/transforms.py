"""Normalisation and augmentation, configured by plain numbers that a recipe can hold.

Recipes are needed to parse the flags, before torch is imported; hence the imports inside the functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ALL = slice(None)


@dataclass(frozen=True)
class Normalise:
    """Convert uint8 to zero mean and unit variance per channel; mean and std are of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return (x / 255 - mean) / std as float32 in channels-last order, by one multiplication and one addition."""
        import torch

        if images.device not in self._constants:
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
            self._constants[images.device] = sent(-mean / std, images.device), sent(1 / (255 * std), images.device)
        shift, factor = self._constants[images.device]
        return torch.addcmul(shift, images.to(torch.float32, memory_format=torch.channels_last), factor)

    def undo(self, images: Tensor) -> Tensor:
        """Return uint8 images."""
        import torch

        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        return ((images * std + mean) * 255).round().clamp(0, 255).byte()

    @cached_property
    def _constants(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        """Shift and factor by device, copied once rather than in every batch."""
        return {}


@dataclass(frozen=True)
class Augment:
    """Random changes to training images, drawn separately for every image.

    torchvision's transforms.v2 draw once for a whole batch: all of its images would be mirrored, or none.

    Args:
        mirror: Mirror left to right with probability one half.
        shift: Largest shift in pixels, in each direction; the border is filled by reflection.
        crop: Smallest share of the area to keep: a box of random size, place and aspect ratio (3/4 to 4/3) is resized
            to the size of the image, or to ``size``.
        size: Side in pixels of a resized crop; None for the size of the image.
        geometry: Largest change of each entry of the linear map that turns, shears and stretches an image about its
            centre; 0.1 moves the corners by up to a tenth of the image.
        colour: Largest relative change of brightness, contrast and saturation.
        cutout: Side in pixels of a square that the mean colour of the image replaces, anywhere in it.
    """

    mirror: bool = False
    shift: int = 0
    crop: float | None = None
    size: int | None = None
    geometry: float = 0.0
    colour: float = 0.0
    cutout: int = 0

    def __call__(self, images: Tensor, generator: torch.Generator, share: slice = ALL) -> Tensor:
        """Return that share of the images, augmented; the generator is on the CPU.

        Numbers are drawn for all images, so that they do not depend on the share.
        """
        import torch

        from scripts.data.distortions import cut_out, recoloured, stretched
        from scripts.data.resampling import resampled

        count, channels, height, width = images.shape
        draws, images = self.draws(count, height, width, generator)[share], images[share]
        if draws.shape[1] == 0:
            return images
        draws = sent(draws, images.device)
        if self.mirror:
            coins, draws = draws[:, 0].bool(), draws[:, 1:]
            images = torch.where(coins.view(-1, 1, 1, 1), images.flip(-1), images)
        if self.shift:
            (down, right), draws = draws[:, :2].long().split(1, 1), draws[:, 2:]
            rows = _reflect(torch.arange(height, device=images.device) + down, height)  # (B, H)
            columns = _reflect(torch.arange(width, device=images.device) + right, width)  # (B, W)
            images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
            images = images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
        if self.crop is not None:
            boxes, draws = draws[:, :4], draws[:, 4:]
            images = resampled(images, boxes, (height, width) if self.size is None else (self.size, self.size))
        if self.geometry or self.colour:
            pixels = images.float()
            if self.geometry:
                maps, draws = draws[:, :4], draws[:, 4:]
                pixels = stretched(pixels, maps)
            if self.colour:
                factors, draws = draws[:, :3], draws[:, 3:]
                pixels = recoloured(pixels, factors)
            images = pixels.round().clamp(0, 255).to(torch.uint8, memory_format=torch.channels_last)
        if self.cutout:
            images = cut_out(images, draws, self.cutout)
        return images

    def draws(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw a row of numbers for every image, in one tensor, which needs only one copy to the device.

        The columns: whether it is mirrored; pixels down and to the right; top, left, height and width of its box; the
        four entries of the change of its linear map; factors of brightness, contrast and saturation; the centre of the
        square to cut out as shares of height and width.
        """
        import torch

        def spread(columns: int, largest: float) -> Tensor:
            return largest * (2 * torch.rand(count, columns, generator=generator) - 1)

        drawn = [torch.empty(count, 0, dtype=torch.long)]  # floating-point columns make all of them so
        if self.mirror:
            drawn.append((torch.rand(count, 1, generator=generator) < 0.5).long())
        if self.shift:
            drawn.append(torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator).T)
        if self.crop is not None:
            drawn.append(random_boxes(count, height, width, self.crop, generator))
        if self.geometry:
            drawn.append(spread(4, self.geometry))
        if self.colour:
            drawn.append(1 + spread(3, self.colour))
        if self.cutout:
            drawn.append(torch.rand(count, 2, generator=generator))
        return torch.cat(drawn, 1)


def random_boxes(count: int, height: int, width: int, least: float, generator: torch.Generator) -> Tensor:
    """Draw boxes inside the frame, of ``least`` to all of its area: top, left, height and width (count, 4)."""
    import torch

    area = height * width * (least + (1 - least) * torch.rand(count, generator=generator))
    ratio = (math.log(4 / 3) * (2 * torch.rand(count, generator=generator) - 1)).exp()  # width / height
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 1)
    frame = torch.tensor([height, width])
    sides = sides.round().clamp(min=1).minimum(frame)
    corners = (torch.rand(count, 2, generator=generator) * (frame - sides + 1)).floor()
    return torch.cat([corners, sides], 1).long()


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect an index outside of 0 .. size - 1 at the border pixel."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Copy numbers from the CPU to a device; to a GPU from pinned memory, without waiting."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
