"""Convolution as a sum over the kernel's cells, pooling by slices."""

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
