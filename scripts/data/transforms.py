"""Normalisation and augmentation, configured by plain numbers that a recipe can hold.

Recipes are needed to parse the flags, before torch is imported; hence the imports inside the functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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

        width = images.shape[-1]
        if (images.device, width) not in self._constants:
            mean, std = (torch.tensor(values).repeat(width) for values in (self.mean, self.std))
            constants = sent(-mean / std, images.device), sent(1 / (255 * std), images.device)
            self._constants[images.device, width] = constants
        shift, factor = self._constants[images.device, width]  # (W C): a row of pixels at once is several times faster
        rows = images.to(torch.float32, memory_format=torch.channels_last).permute(0, 2, 3, 1)  # (B, H, W, C)
        scaled = torch.addcmul(shift, rows.reshape(-1, width * rows.shape[3]), factor)
        return scaled.view(rows.shape).permute(0, 3, 1, 2)

    def undo(self, images: Tensor) -> Tensor:
        """Return uint8 images."""
        import torch

        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        return ((images * std + mean) * 255).round().clamp(0, 255).byte()

    @cached_property
    def _constants(self) -> dict[tuple[torch.device, int], tuple[Tensor, Tensor]]:
        """Shift and factor of a row by device and width, copied once rather than in every batch."""
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

    def __call__(self, images: Tensor, count: int, generator: torch.Generator, share: slice = ALL) -> Tensor:
        """Return the images augmented.

        Args:
            images: uint8 (B, 3, H, W): this process's share of a batch.
            count: Images in the whole batch; numbers are drawn for all, so that they do not depend on the share.
            generator: On the CPU.
            share: The part of the batch that the images are.
        """
        import torch

        from scripts.data.distortions import cut_out, recoloured, stretched
        from scripts.data.resampling import resampled

        height, width = images.shape[-2:]
        drawn = self.draws(count, height, width, generator)
        if not drawn:
            return images
        widths = [numbers.shape[1] for numbers in drawn.values()]
        together = sent(torch.cat([*drawn.values()], 1)[share], images.device)  # each copy to a GPU takes time
        drawn = dict(zip(drawn, together.split(widths, 1), strict=True))
        if self.mirror or self.shift:
            rows, columns = (torch.arange(side, device=images.device).unsqueeze(0) for side in (height, width))
            if self.shift:
                down, right = drawn["shift"].long().split(1, 1)
                rows, columns = _reflect(rows + down, height), _reflect(columns + right, width)
            if self.mirror:
                columns = torch.where(drawn["mirror"].bool(), width - 1 - columns, columns)
            images = picked(images, rows, columns)
        if self.crop is not None:
            images = resampled(images, drawn["crop"], (height, width) if self.size is None else (self.size, self.size))
        if self.geometry or self.colour:
            pixels = images.float()
            if self.geometry:
                pixels = stretched(pixels, drawn["geometry"])
            if self.colour:
                pixels = recoloured(pixels, drawn["colour"])
            images = pixels.round().clamp(0, 255).to(torch.uint8, memory_format=torch.channels_last)
        if self.cutout:
            images = cut_out(images, drawn["cutout"], self.cutout)
        return images

    def in_place(self) -> Augment:
        """Return the same without what moves pixels: objects stay where they are known to be."""
        return replace(self, mirror=False, shift=0, crop=None, size=None, geometry=0.0)

    def draws(self, count: int, height: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw numbers for every image, a row each, by the name of what they change.

        ``mirror``: 1 where it is mirrored. ``shift``: pixels down and to the right. ``crop``: top, left, height and
        width of its box. ``geometry``: the four entries of the change of its linear map. ``colour``: factors of
        brightness, contrast and saturation. ``cutout``: the centre of the square as shares of height and width.
        """
        import torch

        def spread(columns: int, largest: float) -> Tensor:
            return largest * (2 * torch.rand(count, columns, generator=generator) - 1)

        drawn = {}
        if self.mirror:
            drawn["mirror"] = (torch.rand(count, 1, generator=generator) < 0.5).long()
        if self.shift:
            drawn["shift"] = torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator).T
        if self.crop is not None:
            drawn["crop"] = random_boxes(count, height, width, self.crop, generator)
        if self.geometry:
            drawn["geometry"] = spread(4, self.geometry)
        if self.colour:
            drawn["colour"] = 1 + spread(3, self.colour)
        if self.cutout:
            drawn["cutout"] = torch.rand(count, 2, generator=generator)
        return drawn


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


def picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels of each image in these rows and columns, channels last.

    Args:
        images: (B, C, H, W).
        rows: (B, h), or (1, h) for all images.
        columns: (B, w), or (1, w) for all images.

    Returns:
        (B, C, h, w).
    """
    import torch

    count, channels, height, width = images.shape
    first = torch.arange(count, device=images.device).view(-1, 1, 1) * (height * width)
    places = first + (rows * width).unsqueeze(2) + columns.unsqueeze(1)  # (B, h, w)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, places.flatten())
    return pixels.view(*places.shape, channels).permute(0, 3, 1, 2)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect an index outside of 0 .. size - 1 at the border pixel."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Copy numbers from the CPU to a device; to a GPU from pinned memory, without waiting."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
