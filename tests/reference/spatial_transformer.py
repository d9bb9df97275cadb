"""A warp pixel by pixel."""

import math

from torch import Tensor, nn


def sample(image: Tensor, x: float, y: float) -> Tensor:
    """One bilinear sample (C,) of an image (C, H, W) at pixel coordinates; zero outside."""
    _, height, width = image.shape
    total = image.new_zeros(len(image))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[:, row, column]
    return total


def warp(images: Tensor, theta: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Every output pixel on its own: to [-1, 1], through theta, back to input pixels, sample."""
    _, _, rows, columns = images.shape

    def normalised(i: int, size: int) -> float:
        return (2 * i / max(size - 1, 1) - (size > 1)) if align_corners else (2 * i + 1) / size - 1

    def pixel(u: float, size: int) -> float:
        return (u + 1) / 2 * (size - 1) if align_corners else ((u + 1) * size - 1) / 2

    out = images.new_zeros(len(images), images.shape[1], height, width)
    for b, (across, down) in enumerate(theta.tolist()):
        for i in range(height):
            for j in range(width):
                point = (normalised(j, width), normalised(i, height), 1.0)
                x = sum(a * p for a, p in zip(across, point, strict=True))
                y = sum(a * p for a, p in zip(down, point, strict=True))
                out[b, :, i, j] = sample(images[b], pixel(x, columns), pixel(y, rows))
    return out


def spatial_transformer(module: nn.Module, x: Tensor) -> Tensor:
    """The module in cases.py, which computes theta with one linear layer on the pixels."""
    weight, bias = (module.state_dict()[f"localization.1.{name}"].double() for name in ("weight", "bias"))
    theta = (x.double().flatten(1) @ weight.T + bias).reshape(-1, 2, 3)
    return warp(x.double(), theta, *module.output_size, module.align_corners)
