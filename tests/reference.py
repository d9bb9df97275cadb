"""The components once more, in float64, slowly and another way: loops and einsum instead of torch's layers."""

import math

import torch
from torch import Tensor, nn


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Valid cross-correlation as a sum over the kernel's cells."""
    rows = x.shape[-2] - weight.shape[-2] + 1
    columns = x.shape[-1] - weight.shape[-1] + 1
    out = bias[:, None, None].expand(len(x), -1, rows, columns).clone()
    for i in range(weight.shape[-2]):
        for j in range(weight.shape[-1]):
            out += torch.einsum("bchw,oc->bohw", x[:, :, i : i + rows, j : j + columns], weight[:, :, i, j])
    return out


def halve(x: Tensor) -> Tensor:
    """The largest of each 2x2 cell; an odd last row or column is dropped."""
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
    return torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)


def average_cells(x: Tensor, cells: int) -> Tensor:
    """Cell i of n covers the pixels from floor(i H / n) to ceil((i + 1) H / n)."""

    def spans(size: int) -> list[slice]:
        return [slice(i * size // cells, math.ceil((i + 1) * size / cells)) for i in range(cells)]

    rows = [torch.stack([x[..., r, c].mean((-2, -1)) for c in spans(x.shape[-1])], -1) for r in spans(x.shape[-2])]
    return torch.stack(rows, -2)


def localization_net(module: nn.Module, x: Tensor) -> Tensor:
    """Convolve, halve, rectify, twice; average; two matrix products."""
    weights = {name: value.double() for name, value in module.state_dict().items()}
    x = x.double()
    for layer in ("conv1", "conv2"):
        x = halve(convolve(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])).clamp(min=0)
    x = average_cells(x, 4).reshape(len(x), -1)
    x = (x @ weights["fc1.weight"].T + weights["fc1.bias"]).clamp(min=0)
    return x @ weights["fc2.weight"].T + weights["fc2.bias"]


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
    """The row of cases.py: theta from one linear layer on the pixels."""
    weight, bias = (module.state_dict()[f"localization.linear.{name}"].double() for name in ("weight", "bias"))
    theta = (x.double().flatten(1) @ weight.T + bias).reshape(-1, 2, 3)
    return warp(x.double(), theta, *module.output_size, module.align_corners)
