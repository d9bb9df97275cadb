"""The warp of each transform in other libraries: kornia's, and what people write with torch alone.

All sample the same points. In torch, a function takes the kit's parameters. In kornia it takes its own: most of its
transforms map the input to the output, in pixels and degrees; its homographies and splines map the output to the input,
in [-1, 1], as the kit's do. ``align_corners`` is True, which all of kornia's transforms know in every version.
"""

from collections.abc import Callable
from functools import partial

import torch
from kornia.geometry import transform as kornia
from torch import Tensor
from torch.nn import functional as F

Warper = Callable[[Tensor, Tensor], Tensor]  # images and parameters -> images
Peers = tuple[Warper, Warper, Tensor]  # in torch, in kornia, and kornia's parameters


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    """Sample images at the points of a grid."""
    return F.grid_sample(x, grid, align_corners=True)


def with_matrix(x: Tensor, theta: Tensor) -> Tensor:
    """The warp of the PyTorch tutorial."""
    return sampled(x, F.affine_grid(theta.view(-1, 2, 3), list(x.shape), align_corners=True))


def places(x: Tensor) -> Tensor:
    """The points (1, x, y) of all pixels, row by row: (H W, 3)."""
    along_y, along_x = (torch.linspace(-1, 1, size, device=x.device, dtype=x.dtype) for size in x.shape[2:])
    y, x = torch.meshgrid(along_y, along_x, indexing="ij")
    return torch.stack([torch.ones_like(x), x, y], -1).view(-1, 3)


def translation(params: Tensor, side: int) -> Peers:
    """A shift."""

    def in_torch(x: Tensor, shift: Tensor) -> Tensor:
        one = torch.eye(2, device=x.device, dtype=x.dtype).expand(len(x), 2, 2)
        return with_matrix(x, torch.cat([one, shift.unsqueeze(2)], 2))

    return in_torch, kornia.translate, params * (1 - side) / 2


def rotation(params: Tensor, side: int) -> Peers:
    """A turn around the centre."""

    def in_torch(x: Tensor, angle: Tensor) -> Tensor:
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return with_matrix(x, torch.cat([cos, -sin, zero, sin, cos, zero], 1))

    return in_torch, kornia.rotate, params[:, 0].rad2deg()


def similarity(params: Tensor, side: int) -> Peers:
    """Turn, scale and shift; in kornia the way back, which shifts first."""

    def in_torch(x: Tensor, params: Tensor) -> Tensor:
        angle, log_scale, shift_x, shift_y = params.split(1, 1)
        scale = log_scale.exp()
        cos, sin = scale * angle.cos(), scale * angle.sin()
        return with_matrix(x, torch.cat([cos, -sin, shift_x, sin, cos, shift_y], 1))

    def in_kornia(x: Tensor, params: Tensor) -> Tensor:
        degrees, scale, shift = params[:, 0], params[:, 1:2].expand(-1, 2), params[:, 2:]
        turned = kornia.get_rotation_matrix2d((side - 1) / 2 + shift, degrees, scale)
        matrix = torch.cat([turned[:, :, :2], turned[:, :, 2:] - shift.unsqueeze(2)], 2)
        return kornia.warp_affine(x, matrix, (side, side))

    degrees, scale, shift = params[:, :1].rad2deg(), params[:, 1:2].neg().exp(), params[:, 2:] * (side - 1) / 2
    return in_torch, in_kornia, torch.cat([degrees, scale, shift], 1)


def affine(params: Tensor, side: int) -> Peers:
    """A matrix."""
    half = (side - 1) / 2
    pixels = torch.tensor([[1 / half, 0, -1], [0, 1 / half, -1], [0, 0, 1]])  # to [-1, 1]
    square = F.pad(params.view(-1, 2, 3), (0, 0, 0, 1))
    square[:, 2, 2] = 1
    matrix = (pixels.inverse() @ square @ pixels).inverse()[:, :2]
    return with_matrix, partial(kornia.warp_affine, dsize=(side, side)), matrix


def projective(params: Tensor, side: int) -> Peers:
    """A homography."""

    def in_torch(x: Tensor, offsets: Tensor) -> Tensor:
        theta = torch.eye(3, device=x.device, dtype=x.dtype) + F.pad(offsets, (0, 1)).view(-1, 3, 3)
        points = places(x).roll(-1, 1) @ theta.mT
        return sampled(x, (points[..., :2] / points[..., 2:]).view(len(x), *x.shape[2:], 2))

    def in_kornia(x: Tensor, theta: Tensor) -> Tensor:
        return kornia.homography_warp(x, theta, (side, side), align_corners=True)

    return in_torch, in_kornia, torch.eye(3) + F.pad(params, (0, 1)).view(-1, 3, 3)


def spline(params: Tensor, side: int) -> Peers:
    """A thin-plate spline, whose equations are solved for all images at once.

    For kornia too: its own ``get_tps_transform`` centres the bumps on the targets, which is another map.
    """
    along = torch.linspace(-1, 1, 4)
    y, x = torch.meshgrid(along, along, indexing="ij")
    control = torch.stack([x.flatten(), y.flatten()], 1)

    def basis(at: Tensor, knots: Tensor) -> Tensor:
        """A bump for every knot, then 1, x and y."""
        squares = (at[:, None, 1:] - knots).square().sum(2)
        return torch.cat([torch.xlogy(squares, squares), at], 1)

    def weights(knots: Tensor, targets: Tensor) -> Tensor:
        system = basis(F.pad(knots, (1, 0), value=1.0), knots)
        system = torch.cat([system, F.pad(system[:, -3:].T, (0, 3))])
        return torch.linalg.solve(system, F.pad(targets, (0, 0, 0, 3)))

    def in_torch(x: Tensor, offsets: Tensor) -> Tensor:
        knots = control.to(x)
        grid = basis(places(x), knots) @ weights(knots, knots + offsets.view(len(x), -1, 2))
        return sampled(x, grid.view(len(x), *x.shape[2:], 2))

    def in_kornia(x: Tensor, targets: Tensor) -> Tensor:
        knots = control.to(x)
        bumps, rest = weights(knots, targets).tensor_split([-3], 1)
        return kornia.warp_image_tps(x, knots.expand(len(x), -1, -1), 2 * bumps, rest, align_corners=True)

    return in_torch, in_kornia, control + params.view(len(params), -1, 2)


PEERS: dict[str, Callable[[Tensor, int], Peers]] = {  # by the names of the kit's transforms
    "Translation": translation,
    "Rotation": rotation,
    "Similarity": similarity,
    "Affine": affine,
    "Projective": projective,
    "ThinPlateSpline": spline,
}
