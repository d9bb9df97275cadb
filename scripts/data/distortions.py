"""Random distortions of training images, a whole batch at once: geometry, colour, and a square that is cut out.

    geometry: x -> x at (I + G) p      colour: x -> b (c (s x + (1 - s) g) + (1 - c) m)

p are coordinates from the centre, g is the grey level of each pixel and m its mean over the image. These functions draw
nothing: ``Augment`` does.

Letters: B images, C channels, H W pixels.

Source: the changes of RandAugment (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719) that are linear, and cutout
(DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from components.transforms import affine_grid


def stretched(images: Tensor, maps: Tensor) -> Tensor:
    """Turn, shear and stretch images about their centres; what comes from outside the frame is reflected.

    Args:
        images: float32 (B, C, H, W).
        maps: G as (B, 4), row by row. Height and width count as equally long.

    Returns:
        float32 (B, C, H, W): bilinear samples.
    """
    height, width = images.shape[-2:]
    theta = F.pad(torch.eye(2, device=maps.device) + maps.view(-1, 2, 2), (0, 1))  # (B, 2, 3)
    grid = affine_grid(theta, height, width)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recoloured(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation.

    Args:
        images: float32 (B, 3, H, W).
        factors: b, c and s as (B, 3); 1 changes nothing.

    Returns:
        float32 (B, 3, H, W), not clipped.
    """
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)  # (B, 1, 1, 1) each
    red, green, blue = images.split(1, 1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # as it is seen, by ITU-R BT.601: (B, 1, H, W)
    mean = grey.mean((2, 3), keepdim=True)
    return brightness * (contrast * (saturation * images + (1 - saturation) * grey) + (1 - contrast) * mean)


def cut_out(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Replace a square of each image by the mean colour of the image.

    Args:
        images: uint8 (B, C, H, W).
        centres: Place of its centre as shares of height and width (B, 2); it may reach over the border.
        side: Its side in pixels.

    Returns:
        uint8 (B, C, H, W).
    """
    sides = []
    for centre, length in zip(centres.unbind(1), images.shape[-2:], strict=True):
        first = (centre.unsqueeze(1) * length).round() - side // 2
        pixels = torch.arange(length, device=images.device)
        sides.append((pixels >= first) & (pixels < first + side))  # (B, length)
    square = sides[0][:, None, :, None] & sides[1][:, None, None, :]  # (B, 1, H, W)
    mean = images.float().mean((2, 3), keepdim=True).round().byte()
    return torch.where(square, mean, images)
