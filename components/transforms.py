# SPDX-License-Identifier: MIT
"""The transforms that a ``SpatialTransformer`` can apply: from parameters to theta, and from theta to a sampling grid.

    parameters (B, P) -> theta -> where in the input every output pixel is sampled (B, h, w, 2)

Letters: B batch, P parameters, K control points, h w points of the output, one for every pixel or several.

Source: "Spatial Transformer Networks", Jaderberg et al. 2015 (https://arxiv.org/abs/1506.02025), sections 3.2 and A.3;
the bounded similarity follows "Inverse Compositional Spatial Transformer Networks", Lin and Lucey 2017
(https://arxiv.org/abs/1612.03897), and so does the composition of theta.

Convention: every transform maps *output* to *input* coordinates, x before y, both in [-1, 1]. Angles are those of the
pixels, of which an image has as many as its aspect (width / height) says, not of the square [-1, 1] x [-1, 1]. The
parameters of all but ``Affine`` are offsets: zeros are the identity. A bound is approached as bound * tanh(value /
bound), which leaves small values as they are.
"""

import math
import operator
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex

import torch
from torch import Tensor


def whole(name: str, value: SupportsIndex) -> int:
    """Return a size as an int: any integer type is taken, but neither True nor False, of NumPy and torch neither."""
    if not isinstance(value, bool) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} ({value!r}) must be an integer")


def check_bound(name: str, value: float | None, least: float = 0.0) -> None:
    """Refuse a bound that is not None or a finite number above the least."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} ({value!r}) must be a number or None")
    if value is not None and not least < value < math.inf:
        raise ValueError(f"{name} ({value}) must be a finite number above {least:g}")
    limits = torch.finfo(torch.float32)
    if value is not None and not limits.tiny <= value <= limits.max:  # a quotient of zeros or of infinities
        raise ValueError(f"{name} ({value}) must be in the range of float32, {limits.tiny:.0e} to {limits.max:.0e}")


def centres(size: int, like: Tensor, align_corners: bool, samples: int = 1) -> Tensor:
    """Coordinates of the centres of pixels along one axis, (size,) in [-1, 1], or of points evenly spaced in them."""
    span = samples * (max(size - 1, 1) if align_corners else size)
    return torch.arange(1 - samples * size, samples * size, 2, device=like.device, dtype=like.dtype) / span


def linear_grid(theta: Tensor, height: int, width: int, align_corners: bool, samples: int = 1) -> Tensor:
    """Multiply every output point (x, y, 1) by a matrix: (B, R, 3) -> (B, R, h, w)."""
    along_x, along_y, shift = theta.unsqueeze(2).unbind(-1)  # (B, R, 1) each: the three columns of theta
    rows = centres(height, theta, align_corners, samples) * along_y + shift  # (B, R, h)
    columns = centres(width, theta, align_corners, samples) * along_x  # (B, R, w)
    return rows.unsqueeze(3) + columns.unsqueeze(2)


def affine_grid(theta: Tensor, height: int, width: int, *, align_corners: bool = False, samples: int = 1) -> Tensor:
    """Return the input coordinates (x, y) of every output point: (B, 2, 3) -> (B, h, w, 2)."""
    # not copied: sampling reads whole planes of x and y faster than pairs
    return linear_grid(theta, height, width, align_corners, samples).permute(0, 2, 3, 1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """A product of small matrices, (..., n, k) and (..., k, m), in the precision of their type.

    No matrix product promises that: under autocast it is in half precision, and where TF32 or another setting of
    ``torch.set_float32_matmul_precision`` allows it, numbers are rounded to 10 or 7 bits, and coordinates by pixels.
    """
    total = a[..., :1] * b[..., :1, :]
    for i in range(1, a.shape[-1]):
        total = torch.addcmul(total, a[..., i : i + 1], b[..., i : i + 1, :])
    return total


def large_product(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product without autocast, for offsets: of these TF32 may cost a thousandth."""
    device_type = a.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):  # the device "meta" has no autocast
        return a @ b
    with torch.autocast(device_type, enabled=False):
        return a @ b


def bounded(value: Tensor, bound: float | None) -> Tensor:
    """Keep a value under a bound, smoothly."""
    return value if bound is None else float(bound) * torch.tanh(value / float(bound))


def similarity_matrix(angle: Tensor, log_scale: Tensor, shift_x: Tensor, shift_y: Tensor, aspect: float) -> Tensor:
    """Turn, scale and shift: four of (B,) -> (B, 2, 3)."""
    scale = log_scale.exp()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([cos, -sin / aspect, shift_x, sin * aspect, cos, shift_y], 1).reshape(-1, 2, 3)


@dataclass(frozen=True)
class Transform(ABC):
    """A family of transforms; a value without state, whose attributes are its options.

    Attributes:
        num_params: P.
        identity: The parameters of the identity.
        theta_shape: The shape of the theta of one image.
    """

    @property
    def num_params(self) -> int:
        """The number of parameters."""
        return len(self.identity)

    @property
    @abstractmethod
    def identity(self) -> tuple[float, ...]:
        """The parameters of the identity."""

    @property
    @abstractmethod
    def theta_shape(self) -> tuple[int, int]:
        """The shape of the theta of one image."""

    @abstractmethod
    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return theta of parameters (B, P), for images of an aspect (width / height)."""

    @abstractmethod
    def grid(self, theta: Tensor, height: int, width: int, *, align_corners: bool = False, samples: int = 1) -> Tensor:
        """Return the input coordinates (x, y) of every output point, ``samples`` along either axis of each pixel.

        h is height * samples, w is width * samples: (B, h, w, 2).
        """

    @abstractmethod
    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """Return theta of warping with ``first``, and the result with ``second``: p -> first(second(p))."""


@dataclass(frozen=True)
class MatrixTransform(Transform):
    """Transforms whose theta is a matrix (B, 2, 3)."""

    theta_shape = (2, 3)

    def grid(self, theta: Tensor, height: int, width: int, *, align_corners: bool = False, samples: int = 1) -> Tensor:
        """Multiply every output point (x, y, 1) by theta."""
        return affine_grid(theta, height, width, align_corners=align_corners, samples=samples)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """Multiply the matrices."""
        turn, shift = product(first[:, :, :2], second), first[:, :, 2:]
        return torch.cat([turn[:, :, :2], turn[:, :, 2:] + shift], 2)

    def inverse(self, theta: Tensor) -> Tensor:
        """Return theta of the way back; not finite where theta flattens the image."""
        (a, b, x), (c, d, y) = (row.unbind(1) for row in theta.unbind(1))
        rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
        return (torch.stack(rows, 1) / (a * d - b * c).unsqueeze(1)).reshape(-1, 2, 3)


@dataclass(frozen=True)
class Translation(MatrixTransform):
    """A shift: parameters (x, y) in half widths and half heights; theta (B, 2, 3).

    Args:
        max_shift: Bound on either; None for none.
    """

    max_shift: float | None = None
    identity = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_bound("Translation: max_shift", self.max_shift)

    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return the matrix of a shift."""
        x, y = bounded(params, self.max_shift).unbind(1)
        zero = torch.zeros_like(x)
        return similarity_matrix(zero, zero, x, y, aspect)


@dataclass(frozen=True)
class Rotation(MatrixTransform):
    """A turn around the centre: one parameter, the angle in radians; theta (B, 2, 3).

    Args:
        max_angle: Bound in degrees; None for none.
    """

    max_angle: float | None = None
    identity = (0.0,)

    def __post_init__(self) -> None:
        check_bound("Rotation: max_angle", self.max_angle)

    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return the matrix of a turn."""
        angle = bounded(params[:, 0], None if self.max_angle is None else math.radians(self.max_angle))
        zero = torch.zeros_like(angle)
        return similarity_matrix(angle, zero, zero, zero, aspect)


@dataclass(frozen=True)
class Similarity(MatrixTransform):
    """Turn, scale and shift: parameters (angle in radians, log of the scale, x, y); theta (B, 2, 3).

    Args:
        max_angle: Bound in degrees; None for none.
        max_scale: Bound on the scale and on its inverse; None for none.
        max_shift: Bound in half widths and half heights; None for none.
    """

    max_angle: float | None = None
    max_scale: float | None = None
    max_shift: float | None = None
    identity = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        check_bound("Similarity: max_angle", self.max_angle)
        check_bound("Similarity: max_scale", self.max_scale, least=1.0)
        check_bound("Similarity: max_shift", self.max_shift)

    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return the matrix of a similarity."""
        angle, log_scale, x, y = params.unbind(1)
        return similarity_matrix(
            bounded(angle, None if self.max_angle is None else math.radians(self.max_angle)),
            bounded(log_scale, None if self.max_scale is None else math.log(self.max_scale)),
            bounded(x, self.max_shift),
            bounded(y, self.max_shift),
            aspect,
        )

    @staticmethod
    def params(theta: Tensor, aspect: float) -> Tensor:
        """Return the unbounded parameters (B, 4) of a theta that is a similarity; angles from -pi to pi."""
        cos, sin = theta[:, 0, 0], theta[:, 1, 0] / aspect
        scale = torch.hypot(cos, sin)
        return torch.stack([torch.atan2(sin, cos), scale.log(), theta[:, 0, 2], theta[:, 1, 2]], 1)


@dataclass(frozen=True)
class Affine(MatrixTransform):
    """Any matrix: its six numbers, row by row, are the parameters; theta (B, 2, 3). Unbounded."""

    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return the parameters as a matrix."""
        return params.reshape(-1, 2, 3)


@dataclass(frozen=True)
class Projective(Transform):
    """A homography: parameters are offsets to the first eight numbers of the identity, row by row; theta (B, 3, 3).

    A point goes to (x / w, y / w), as in OpenCV; where w is zero, to the centre. Unbounded.
    """

    identity = (0.0,) * 8
    theta_shape = (3, 3)

    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return the homography, whose last number is one."""
        eye = torch.eye(3, device=params.device, dtype=params.dtype)
        return eye + torch.cat([params, torch.zeros_like(params[:, :1])], 1).reshape(-1, 3, 3)

    def grid(self, theta: Tensor, height: int, width: int, *, align_corners: bool = False, samples: int = 1) -> Tensor:
        """Multiply every output point (x, y, 1) by theta, and divide by the third coordinate."""
        points = linear_grid(theta, height, width, align_corners, samples)  # (B, 3, h, w)
        xy, w = points[:, :2], points[:, 2:]
        # infinity in place of zero: both the quotient and its gradient are then zero
        return (xy / w.masked_fill(w == 0, math.inf)).permute(0, 2, 3, 1)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """Multiply the homographies."""
        return product(first, second)

    def inverse(self, theta: Tensor) -> Tensor:
        """Return the homography of the way back, up to a factor: the adjugate."""
        rows = theta.unbind(1)
        columns = [torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)]
        return torch.stack(columns, 2)


@dataclass(frozen=True)
class ThinPlateSpline(Transform):
    """The smoothest map that takes a grid of control points where theta says.

    Parameters are the offsets (x, y) of the control points in half widths and half heights, row by row; theta
    (B, K, 2) has their places in the input. Unbounded, and without an inverse: the map may fold.

    Args:
        points: Control points along either axis, evenly spaced from -1 to 1; at least 2.

    Raises:
        TypeError: If the number is not whole.
        ValueError: If there are fewer.
    """

    points: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", whole("ThinPlateSpline: points", self.points))
        if self.points < 2:
            raise ValueError(f"ThinPlateSpline: points ({self.points}) must be at least 2")
        # numbers of Python: they follow the theta to any type and device, and into any exported graph
        object.__setattr__(self, "_inverse", _spline_inverse(self.points))

    @property
    def identity(self) -> tuple[float, ...]:
        """Offsets of zero."""
        return (0.0,) * (2 * self.points**2)

    @property
    def theta_shape(self) -> tuple[int, int]:
        """A point (x, y) for each control point."""
        return (self.points**2, 2)

    def theta(self, params: Tensor, aspect: float) -> Tensor:
        """Return the places of the control points."""
        return self._control(params).T + params.reshape(-1, self.points**2, 2)

    def grid(self, theta: Tensor, height: int, width: int, *, align_corners: bool = False, samples: int = 1) -> Tensor:
        """Evaluate the spline at every output point; its weights there are those of all images.

        What moves is computed alone: the identity is exact however coarse matrix products may be.
        """
        y, x = (centres(side, theta, align_corners, samples) for side in (height, width))  # (h,) and (w,)
        h, w = height * samples, width * samples
        y, x = y[:, None].expand(h, w), x.expand(h, w)
        places = torch.stack([x.flatten(), y.flatten()])  # (2, h w)
        offsets = (theta - self._control(theta).T).mT.flatten(0, 1)  # (2 B, K)
        moved = large_product(offsets, self._weights(places))  # (2 B, h w): one product for all images
        planes = moved.reshape(-1, 2, h * w) + places
        return planes.reshape(-1, 2, h, w).permute(0, 2, 3, 1)  # (B, h, w, 2)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """Move the control points twice: exact there, and between them the smoothest map."""
        return product(self._weights(second.mT).mT, first)

    def _control(self, like: Tensor) -> Tensor:
        """The control points (2, K), row by row."""
        along = torch.arange(1 - self.points, self.points, 2, device=like.device, dtype=like.dtype) / (self.points - 1)
        return torch.stack([along.repeat(self.points), along.repeat_interleave(self.points)])

    def _weights(self, places: Tensor) -> Tensor:
        """The share of every control point in the map at each of some places: (..., 2, n) -> (..., K, n)."""
        inverse = torch.tensor(self._inverse, device=places.device, dtype=places.dtype)  # type: ignore[attr-defined]
        return product(inverse, _basis(places, self._control(places)))


def _basis(places: Tensor, control: Tensor) -> Tensor:
    """The functions that a spline is a sum of, r^2 log r^2 for every control point, 1, x and y: (..., K + 3, n)."""
    squares = (places.unsqueeze(-2) - control.unsqueeze(-1)).square().sum(-3)  # (..., K, n)
    bumps = squares * squares.clamp(min=1e-30).log()  # clamped: at a control point the logarithm has no gradient
    return torch.cat([bumps, torch.ones_like(places[..., :1, :]), places], -2)


def _spline_inverse(points: int) -> list[list[float]]:
    """From the functions of ``_basis`` to the shares of the control points in a spline, (K, K + 3).

    In Python, because a tensor would be on the current device, which may hold no numbers, or fake.
    """
    along = [index / (points - 1) for index in range(1 - points, points, 2)]
    control = [(x, y) for y in along for x in along]
    squares = [[(x - u) ** 2 + (y - v) ** 2 for u, v in control] for x, y in control]
    bumps = [[square * math.log(max(square, 1e-30)) for square in row] for row in squares]
    flat = [[1.0, *place] for place in control]
    below = [[*column, 0.0, 0.0, 0.0] for column in zip(*flat, strict=True)]
    system = [*(bump + row for bump, row in zip(bumps, flat, strict=True)), *below]
    return _inverse(system)[: len(control)]


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    """Gauss-Jordan elimination with partial pivoting."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda j: abs(rows[j][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in (*range(i), *range(i + 1, size)):
            rows[j] = [value - rows[j][i] * leading for value, leading in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]
