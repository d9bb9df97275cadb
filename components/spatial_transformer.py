# SPDX-License-Identifier: MIT
"""Resample an image where a localization network says.

    output(y, x) = input sampled bilinearly at transform(theta, (x, y))

Letters: B batch, C channels, H W input pixels, h w output pixels, P parameters.

Source: "Spatial Transformer Networks", Jaderberg et al. 2015 (https://arxiv.org/abs/1506.02025), equations 1 and 5;
several steps: "Inverse Compositional Spatial Transformer Networks", Lin and Lucey 2017
(https://arxiv.org/abs/1612.03897).

Convention: theta maps *output* to *input* coordinates, x before y, both in [-1, 1]; a scale of 2 therefore shows the
image at half its size. ``align_corners=False`` puts -1 and 1 on the outer edges of the border pixels, ``True`` on their
centres; grid and sampling always use the same one. With an affine theta equal to ``F.affine_grid`` and
``F.grid_sample`` in everything but speed, empty batches and autocast: coordinates are never computed in less than
float32, because bfloat16 takes steps of 1/256 near the border, which is a whole pixel at 512 pixels. Where TF32 is
allowed it may cost the offsets of a spline a thousandth, and no other coordinate anything.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .transforms import Affine, Transform, whole

AFFINE = Affine()
PADDING_MODES = ("zeros", "border", "reflection", "mean")
FAR = 1e6  # half sides of the image


def check_images(x: Tensor) -> None:
    """Refuse what is no batch of images."""
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"SpatialTransformer: input {tuple(x.shape)} must be (B, C, H, W) with C, H, W at least 1")
    if not x.is_floating_point():
        raise TypeError(f"SpatialTransformer: input ({x.dtype}) must be floating point")


def sides(output_size: int | Sequence[int]) -> tuple[int, ...]:
    """Height and width of an output, from one or two numbers."""
    given = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    numbers = (int, torch.SymInt)  # sizes of tensors are symbols in an exported graph
    size = tuple(side if type(side) in numbers else whole("SpatialTransformer: output_size", side) for side in given)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"SpatialTransformer: output_size ({output_size}) must be one or two positive numbers")
    return size


def theta_of(transform: Transform, params: Tensor, x: Tensor, align_corners: bool) -> Tensor:
    """Theta of the parameters of a batch of images, in float32 at least."""
    batch = x.shape[0]  # not len(x), which would fix the batch size of an exported graph
    shapes = [(batch, transform.num_params), *([(batch, 2, 3)] if isinstance(transform, Affine) else [])]
    if params.shape not in shapes:
        name, wanted = type(transform).__name__, " or ".join(map(str, shapes))
        raise ValueError(f"SpatialTransformer: parameters {tuple(params.shape)} of {name} must be {wanted}")
    height, width = (max(size - 1, 1) if align_corners else size for size in x.shape[2:])
    params = params.reshape(-1, transform.num_params).to(torch.promote_types(x.dtype, torch.float32))
    return transform.theta(params, width / height)


def composed(transform: Transform, first: Tensor, second: Tensor) -> Tensor:
    """Theta of two warps, one after the other."""
    return transform.compose(first, second)


def warp(
    x: Tensor,
    theta: Tensor,
    transform: Transform,
    output_size: int | Sequence[int] | None,
    padding_mode: str,
    align_corners: bool,
    samples: int,
) -> Tensor:
    """Sample each image where its theta says: (B, C, H, W) -> (B, C, h, w) in the type of the input."""
    check_images(x)
    if theta.shape != (shape := (x.shape[0], *transform.theta_shape)):
        name = type(transform).__name__
        raise ValueError(f"SpatialTransformer: theta {tuple(theta.shape)} of {name} must be {shape}")
    exact = torch.promote_types(torch.promote_types(x.dtype, theta.dtype), torch.float32)
    theta = theta.to(exact)
    height, width = x.shape[2:] if output_size is None else sides(output_size)
    grid = transform.grid(theta, height, width, align_corners=align_corners, samples=samples)
    if padding_mode in ("border", "reflection"):  # torch would crash: https://github.com/pytorch/pytorch/issues/24823
        grid = grid.nan_to_num().clamp(-FAR, FAR)
    image = x.to(exact)
    mean = image.mean((2, 3), keepdim=True) if padding_mode == "mean" else None
    warped = F.grid_sample(
        image if mean is None else image - mean,
        grid,
        mode="bilinear",
        padding_mode="zeros" if mean is not None else padding_mode,
        align_corners=align_corners,
    )
    if mean is not None:
        warped = warped + mean
    if samples > 1:
        warped = F.avg_pool2d(warped, samples)
    if padding_mode in ("border", "reflection"):  # they clamp coordinates, and a theta of NaN would not show
        warped = warped + (0 * theta).sum((1, 2)).view(-1, 1, 1, 1)
    return warped.to(x.dtype)


def with_theta(warped: Tensor, theta: Tensor, wanted: bool) -> Tensor | tuple[Tensor, Tensor]:
    """Return the images, with theta beside them where it is wanted."""
    return (warped, theta) if wanted else warped


# torch.fx, which follows no branch, calls them as they are
for _name in ("check_images", "composed", "theta_of", "warp", "with_theta"):
    torch.fx.wrap(_name)


class SpatialTransformer(nn.Module):
    """Warp each image with the transform that a localization module predicts from it.

    Args:
        localization: Module from images (B, C, H, W) to the parameters (B, P) of the transform.
        transform: One of ``components.transforms``: ``Translation``, ``Rotation``, ``Similarity``, ``Affine`` (the
            default), ``Projective`` or ``ThinPlateSpline``.
        steps: Predictions: each after the first one sees the image as warped so far. Theta is composed, and the
            output is sampled from the input once. Bounds of the transform hold for each prediction.
        output_size: Height and width of the output in pixels, one number for a square; the input's by default.
        padding_mode: What lies outside the frame: ``zeros``, ``border``, ``reflection``, or ``mean``, the mean colour
            of the image.
        align_corners: Whether -1 and 1 are the centres of the border pixels instead of their outer edges.
        samples: Points along either axis of every output pixel, of which it is the mean. More than one keeps fine
            patterns from aliasing where an image is shrunk, and blurs it a little where it is not; with ``zeros`` it
            darkens the border pixels, whose outer points lie beyond the outermost centres.

    Shape:
        - Input: (B, C, H, W), floating point.
        - Output: (B, C, h, w) in the type of the input; with ``return_theta=True`` also theta: (B, 2, 3) for all but
          ``Projective``, (B, 3, 3), and ``ThinPlateSpline``, (B, K, 2).

    Raises:
        TypeError: If ``localization`` is not a module or ``transform`` not a transform, a number is not whole, or the
            input is not floating point.
        ValueError: If an option is not one of the above, the input is not four-dimensional with at least one pixel,
            or ``localization`` returns another shape.
    """

    def __init__(
        self,
        localization: nn.Module,
        *,
        transform: Transform = AFFINE,
        steps: int = 1,
        output_size: int | tuple[int, ...] | None = None,
        padding_mode: str = "zeros",
        align_corners: bool = False,
        samples: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(localization, nn.Module):
            raise TypeError(f"SpatialTransformer: localization ({type(localization).__name__}) must be an nn.Module")
        if not isinstance(transform, Transform):
            raise TypeError(f"SpatialTransformer: transform ({type(transform).__name__}) must be a Transform")
        steps, samples = whole("SpatialTransformer: steps", steps), whole("SpatialTransformer: samples", samples)
        for name, number in (("steps", steps), ("samples", samples)):
            if number < 1:
                raise ValueError(f"SpatialTransformer: {name} ({number}) must be at least 1")
        if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
            raise ValueError(f"SpatialTransformer: padding_mode ({padding_mode!r}) must be one of {PADDING_MODES}")
        if not isinstance(align_corners, bool):
            raise TypeError(f"SpatialTransformer: align_corners ({align_corners!r}) must be True or False")
        self.localization = localization
        self.transform = transform
        self.steps = steps
        self.output_size = None if output_size is None else sides(output_size)
        self.padding_mode = padding_mode
        self.align_corners = align_corners
        self.samples = samples

    @overload
    def forward(self, x: Tensor, return_theta: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_theta: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(self, x: Tensor, return_theta: bool) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the warped images, and theta where it is asked for."""
        check_images(x)
        theta = self.theta(self.localization(x), x)
        for _ in range(self.steps - 1):
            seen = self.warp(x, theta, x.shape[2:])  # (B, C, H, W)
            theta = composed(self.transform, theta, self.theta(self.localization(seen), x))
        warped = self.warp(x, theta)  # (B, C, h, w)
        return with_theta(warped, theta, return_theta)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own returns Any

    def theta(self, params: Tensor, x: Tensor) -> Tensor:
        """Return theta of parameters (B, P) for images (B, C, H, W)."""
        return theta_of(self.transform, params, x, self.align_corners)

    def warp(self, x: Tensor, theta: Tensor, output_size: int | Sequence[int] | None = None) -> Tensor:
        """Warp images (B, C, H, W) with a theta, without the localization: (B, C, h, w), by default as the output."""
        size = self.output_size if output_size is None else output_size
        return warp(x, theta, self.transform, size, self.padding_mode, self.align_corners, self.samples)

    def extra_repr(self) -> str:
        """Show the options in ``print(module)``."""
        return (
            f"transform={self.transform}, steps={self.steps}, output_size={self.output_size}, "
            f"padding_mode={self.padding_mode!r}, align_corners={self.align_corners}, samples={self.samples}"
        )
