"""Mix two training images and their labels: mixup and cutmix, drawn separately for every image.

    x_i <- w_i x_i + (1 - w_i) x_i+1,   labels y_i with share mean(w_i), y_i+1 with the rest

w_i is one number for all pixels (mixup), or zero in a box and one elsewhere (cutmix). The other image is the next one
of the batch, whose order is random; the last one gets the first.

Letters: B batch, C channels, H W pixels.

Source: mixup, Zhang et al. 2018 (https://arxiv.org/abs/1710.09412); CutMix, Yun et al. 2019
(https://arxiv.org/abs/1905.04899). Both draw one share a batch from a beta distribution; here it is uniform, which is
the beta distribution of CutMix, and drawn for each image.

Recipes are needed to parse the flags, before torch is imported; hence the imports inside the functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """How often images are mixed.

    Args:
        mixup: Probability that an image is blended with the next one.
        cutmix: Probability that a box of it is replaced by that of the next one; at most one of both happens.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, images: Tensor, targets: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return B mixed images and their shares of the classes.

        Args:
            images: One more than are returned (B + 1, C, H, W).
            targets: Their classes as probabilities (B + 1, classes).
            draws: (B, 4), on the device of the images.
        """
        weights = self.weights(draws, *images.shape[-2:]).to(images.dtype)
        shares = weights.mean((1, 2, 3)).unsqueeze(1).to(targets.dtype)  # (B, 1)
        return images[1:].lerp(images[:-1], weights), targets[1:].lerp(targets[:-1], shares)

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw a row of levels in [0, 1) for every image: kind, share, and place of the box (count, 4), on the CPU."""
        import torch

        return torch.rand(count, 4, generator=generator)

    def weights(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Return w of every image, float32 (B, 1, H, W), from its draws (B, 4)."""
        import torch

        kind, share, *place = draws.view(-1, 4, 1).unbind(1)  # (B, 1) each
        sides = []
        for level, length in zip(place, (height, width), strict=True):
            # what is left of the image has the share; the box has its aspect ratio, and lies anywhere inside it
            box = ((1 - share).sqrt() * length).round()
            first = (level * (length - box + 1)).floor()
            pixels = torch.arange(length, device=draws.device)
            sides.append((pixels >= first) & (pixels < first + box))  # (B, length)
        outside = ~(sides[0][:, None, :, None] & sides[1][:, None, None, :])  # (B, 1, H, W)
        kind, share = kind[..., None, None], share[..., None, None]
        cut = torch.where(kind < self.mixup + self.cutmix, outside.float(), 1.0)
        return torch.where(kind < self.mixup, share, cut)


UNMIXED = Mix()
