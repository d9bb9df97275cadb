"""Patches one at a time, and interpolation as one matrix per axis."""

import math

import torch
from torch import Tensor, nn


def cubic(distance: float, a: float) -> float:
    """Keys' kernel; a is -0.75 in OpenCV and torch, -0.5 in Pillow and in torch with antialiasing."""
    x = abs(distance)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def axis(old: int, new: int, interpolation: str) -> Tensor:
    """The matrix (new, old) that resamples one axis; every row sums to one."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        if interpolation.endswith("antialias"):  # a kernel as wide as the new cell, cut off at the border
            scale, centre = max(1.0, old / new), (i + 0.5) * old / new
            row = [cubic((j + 0.5 - centre) / scale, -0.5) for j in range(old)]
            matrix[i] = torch.tensor(row, dtype=torch.float64) / sum(row)
            continue
        corners = interpolation.endswith("corners")
        centre = i * (old - 1) / max(new - 1, 1) if corners else (i + 0.5) * old / new - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):  # the border is repeated outside
            weight = cubic(j - centre, -0.75) if interpolation.startswith("bicubic") else max(0.0, 1 - abs(j - centre))
            matrix[i, min(max(j, 0), old - 1)] += weight
    return matrix


def resize(cells: Tensor, new: tuple[int, int], interpolation: str) -> Tensor:
    """A grid (h, w, D) resampled to (new h, new w, D)."""
    down, across = (axis(old, size, interpolation) for old, size in zip(cells.shape[:2], new, strict=True))
    return torch.einsum("ih,jw,hwd->ijd", down, across, cells.double())


def patch_embeddings(module: nn.Module, x: Tensor) -> Tensor:
    """Cut out every patch, multiply it with the kernel, put it behind the class token, add its position."""
    state = {name: value.double() for name, value in module.state_dict().items()}
    kernel, size = state["proj.weight"], module.patch_size
    rows, columns = x.shape[2] // size, x.shape[3] // size
    cells = resize(state["pos_embed"][0, 1:].reshape(*module.grid, -1), (rows, columns), module.interpolation)
    tokens = [(state["cls_token"][0] + state["pos_embed"][0, :1]).expand(len(x), -1)]
    for i in range(rows):
        for j in range(columns):
            patch = x.double()[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
            tokens.append(torch.einsum("bcpq,dcpq->bd", patch, kernel) + state["proj.bias"] + cells[i, j])
    return torch.stack(tokens, 1)
