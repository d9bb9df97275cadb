"""Poses of images: an image is turned, scaled and shifted as a whole, and what was done to it is known.

posed(p) = upright(A^-1 p),  A q = s R(angle) q + t

A takes a point of the upright image to its place in the posed one. A spatial transformer that predicts theta = A
therefore shows the image upright again.

Letters: B images, H W pixels.

Convention: a pose is (angle in radians, log of the scale s, shift x, shift y). Points are in [-1, 1], x before y, as
for theta; the rotation turns pixels, which are squares, also where the image is none.

Recipes are needed to parse the flags, before torch is imported; hence the imports inside the functions.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.data.transforms import ALL, sent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from scripts.data.datasets import Split

AT_ONCE = 1000  # images of a split, of which each needs its grid


@dataclass(frozen=True)
class Poses:
    """A distribution of poses, drawn separately for every image.

    Args:
        turns: Number of equally likely angles, which are the multiples of 360 / turns degrees.
        angle: Largest turn in degrees to either side of these, uniform.
        scale: Least and greatest scale, uniform.
        shift: Largest shift to either side as a share of width and height, uniform; 0.2 is 0.4 in a pose.
    """

    turns: int = 1
    angle: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0

    def __call__(
        self, images: Tensor, count: int, generator: torch.Generator, share: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """Return the posed images and their poses (B, 4), on their device.

        Args:
            images: uint8 (B, 3, H, W): this process's share of a batch.
            count: Images in the whole batch; poses are drawn for all, so that they do not depend on the share.
            generator: On the CPU.
            share: The part of the batch that the images are.
        """
        import torch

        if self == UPRIGHT:
            return images, torch.zeros(len(images), 4, device=images.device)
        poses = sent(self.draws(count, generator)[share], images.device)
        return posed(images, poses), poses

    @property
    def fine(self) -> bool:
        """Whether poses differ by more than the turns."""
        return self.angle > 0 or self.shift > 0 or self.scale != (1.0, 1.0)

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw poses (count, 4)."""
        import torch

        return self.at(torch.rand(count, 4, generator=generator))

    def at(self, levels: Tensor) -> Tensor:
        """Return the poses at these levels of the distribution of each parameter, which are in [0, 1)."""
        import torch

        turn, scale, x, y = levels.unbind(1)
        whole = (turn * self.turns).floor()
        angle = whole * (2 * math.pi / self.turns) + math.radians(self.angle) * (2 * (turn * self.turns - whole) - 1)
        least, greatest = self.scale
        scale = (least + (greatest - least) * scale).log()
        return torch.stack([angle, scale, *(2 * self.shift * (2 * level - 1) for level in (x, y))], 1)

    def fixed(self, count: int) -> Tensor:
        """Return the poses (count, 4) of test images, which are the same in every call of every run."""
        import torch

        return self.draws(count, torch.Generator().manual_seed(0))

    def examples(self) -> Tensor:
        """Return eight poses (8, 4) in which every parameter takes evenly spaced values."""
        import torch

        places = torch.arange(8).unsqueeze(1) * torch.tensor([1, 3, 5, 7]) % 8
        return self.at((places + 0.5) / 8)


UPRIGHT = Poses()
POSES = {"none": UPRIGHT, "c8": Poses(turns=8), "rts": Poses(angle=45, scale=(0.7, 1.2), shift=0.2)}


def of_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the poses (B, 4) of what fills boxes (B, 4), left, top, width and height in pixels, of images of a size.

    They are shifted and scaled alone. Boxes have the aspect of the image.
    """
    import torch

    left, top, across, down = boxes.float().unbind(1)
    x, y = (2 * left + across) / width - 1, (2 * top + down) / height - 1
    return torch.stack([torch.zeros_like(x), (across / width).log(), x, y], 1)


def posed_split(split: Split, poses: Poses) -> Split:
    """Return a split in the fixed poses of its length; without poses the split itself."""
    import torch

    if poses == UPRIGHT:
        return split
    drawn = sent(poses.fixed(len(split)), split.labels.device)
    parts = zip(split.images.split(AT_ONCE), drawn.split(AT_ONCE), strict=True)
    return dataclasses.replace(split, images=torch.cat([posed(*part) for part in parts]))


def posed(images: Tensor, poses: Tensor) -> Tensor:
    """Return uint8 images in these poses: bilinear, reflected at the border, channels last."""
    import torch
    from torch.nn import functional as F

    from components.transforms import Similarity

    height, width = images.shape[-2:]
    pose = Similarity()
    grid = pose.grid(pose.inverse(pose.theta(poses, width / height)), height, width)
    sampled = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return sampled.round_().byte().contiguous(memory_format=torch.channels_last)
