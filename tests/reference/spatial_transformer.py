"""A warp pixel by pixel, and each transform point by point."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.transforms import Affine, Projective, Rotation, Similarity, Transform, Translation

Point = tuple[float, float]
Map = Callable[[float, float], Point]  # from a point of the output to one of the input, both in [-1, 1]


def sample(image: Tensor, x: float, y: float) -> Tensor:
    """One bilinear sample (C,) of an image (C, H, W) at pixel coordinates; zero outside."""
    _, height, width = image.shape
    total = image.new_zeros(len(image))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[:, row, column]
    return total


def warp(images: Tensor, maps: list[Map], height: int, width: int, align_corners: bool) -> Tensor:
    """Every output pixel on its own: to [-1, 1], through its image's map, back to input pixels, sample."""
    _, _, rows, columns = images.shape

    def normalised(i: int, size: int) -> float:
        return (2 * i / max(size - 1, 1) - (size > 1)) if align_corners else (2 * i + 1) / size - 1

    def pixel(u: float, size: int) -> float:
        return (u + 1) / 2 * (size - 1) if align_corners else ((u + 1) * size - 1) / 2

    out = images.new_zeros(len(images), images.shape[1], height, width)
    for b, through in enumerate(maps):
        for i in range(height):
            for j in range(width):
                x, y = through(normalised(j, width), normalised(i, height))
                out[b, :, i, j] = sample(images[b], pixel(x, columns), pixel(y, rows))
    return out


def homography(h: list[float]) -> Map:
    """Nine numbers, row by row; OpenCV's definition."""

    def through(x: float, y: float) -> Point:
        w = h[6] * x + h[7] * y + h[8]
        return ((h[0] * x + h[1] * y + h[2]) / w, (h[3] * x + h[4] * y + h[5]) / w) if w else (0.0, 0.0)

    return through


def similarity(angle: float, log_scale: float, dx: float, dy: float, width: float, height: float) -> Map:
    """Turned and scaled around the centre as complex numbers, in pixels."""
    turn = math.exp(log_scale) * complex(math.cos(angle), math.sin(angle))

    def through(x: float, y: float) -> Point:
        turned = turn * complex(x * width / 2, y * height / 2)
        return turned.real / (width / 2) + dx, turned.imag / (height / 2) + dy

    return through


def spline(offsets: list[float]) -> Map:
    """A thin-plate spline for each axis, whose coefficients solve the equations at a square grid of control points."""
    points = round(math.sqrt(len(offsets) / 2))
    along = [2 * i / (points - 1) - 1 for i in range(points)]
    control = [(x, y) for y in along for x in along]

    def terms(x: float, y: float) -> list[float]:
        distances = [math.hypot(x - a, y - b) for a, b in control]
        return [*(r * r * math.log(r) if r else 0.0 for r in distances), 1.0, x, y]

    rows = torch.tensor([terms(*point) for point in control], dtype=torch.float64)
    side = torch.zeros(3, 3, dtype=torch.float64)
    system = torch.cat([rows, torch.cat([rows[:, -3:].T, side], 1)])
    moved = torch.tensor(control, dtype=torch.float64) + torch.tensor(offsets, dtype=torch.float64).view(-1, 2)
    coefficients = torch.linalg.solve(system, torch.cat([moved, torch.zeros(3, 2, dtype=torch.float64)]))

    def through(x: float, y: float) -> Point:
        a, b = (torch.tensor(terms(x, y), dtype=torch.float64) @ coefficients).tolist()
        return a, b

    return through


def limited(values: list[float], *bounds: float | None) -> list[float]:
    """Every value under its bound, which None leaves as it is."""
    pairs = zip(values, bounds, strict=True)
    return [value if bound is None else bound * math.tanh(value / bound) for value, bound in pairs]


def through(transform: Transform, params: list[float], width: float, height: float) -> Map:
    """The map of a transform; width and height are the pixels from -1 to 1."""
    match transform:
        case Affine():
            return homography([*params, 0, 0, 1])
        case Translation(bound):
            return similarity(0, 0, *limited(params, bound, bound), width, height)
        case Rotation(bound):
            return similarity(*limited(params, bound and math.radians(bound)), 0, 0, 0, width, height)
        case Similarity(turn, scale, shift):
            bounds = turn and math.radians(turn), scale and math.log(scale), shift, shift
            return similarity(*limited(params, *bounds), width, height)
        case Projective():
            return homography([a + b for a, b in zip([*params, 0], (1, 0, 0, 0, 1, 0, 0, 0, 1), strict=True)])
    return spline(params)


def spatial_transformer(module: nn.Module, x: Tensor) -> Tensor:
    """The module in cases.py, whose localization is a linear layer on the pixels."""
    height, width = (max(side - 1, 1) if module.align_corners else side for side in x.shape[2:])
    params = module.localization.double()(x.double()).tolist()
    maps = [through(module.transform, each, width, height) for each in params]
    return warp(x.double(), maps, *module.output_size, module.align_corners)
