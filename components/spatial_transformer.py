# SPDX-License-Identifier: MIT
"""Resample an image where a localization network says.

    output(y, x) = input sampled bilinearly at theta @ (x, y, 1)

Letters: B batch, C channels, H W input pixels, h w output pixels.

Source: "Spatial Transformer Networks", Jaderberg et al. 2015 (https://arxiv.org/abs/1506.02025), equations 1 and 5.

Convention: theta (B, 2, 3) maps *output* to *input* coordinates, x before y, both in [-1, 1]; a scale of 2 therefore
shows the image at half its size. ``align_corners=False`` puts -1 and 1 on the outer edges of the border pixels,
``True`` on their centres; grid and sampling always use the same one. Equal to ``F.affine_grid`` and ``F.grid_sample``
in everything but speed, empty batches and autocast: coordinates are never computed in less than float32, because
bfloat16 takes steps of 1/256 near the border, which is a whole pixel at 512 pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PADDING_MODES = ("zeros", "border", "reflection")


def affine_grid(theta: Tensor, height: int, width: int, *, align_corners: bool = False) -> Tensor:
    """Return the input coordinates (x, y) of every output pixel: (B, 2, 3) -> (B, height, width, 2)."""

    def centres(size: int) -> Tensor:
        span = max(size - 1, 1) if align_corners else size
        return torch.arange(1 - size, size, 2, device=theta.device, dtype=theta.dtype) / span

    along_x, along_y, shift = theta.unsqueeze(2).unbind(-1)  # (B, 2, 1) each: the three columns of theta
    rows = centres(height) * along_y + shift  # (B, 2, h)
    columns = centres(width) * along_x  # (B, 2, w)
    grid = rows.unsqueeze(3) + columns.unsqueeze(2)  # (B, 2, h, w)
    return grid.permute(0, 2, 3, 1)  # not copied: sampling reads whole planes of x and y faster than pairs


def check_images(x: Tensor) -> None:
    """Refuse what is no batch of images."""
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"SpatialTransformer: input {tuple(x.shape)} must be (B, C, H, W) with C, H, W at least 1")
    if not x.is_floating_point():
        raise TypeError(f"SpatialTransformer: input ({x.dtype}) must be floating point")


def affine_matrix(theta: Tensor, x: Tensor) -> Tensor:
    """The parameters of a batch of images as matrices (B, 2, 3), in float32 at least."""
    batch = x.shape[0]  # not len(x), which would fix the batch size of an exported graph
    if theta.shape not in ((batch, 6), (batch, 2, 3)):
        raise ValueError(f"SpatialTransformer: theta {tuple(theta.shape)} must be ({batch}, 6) or ({batch}, 2, 3)")
    return theta.reshape(-1, 2, 3).to(torch.promote_types(x.dtype, torch.float32))


def warp(
    x: Tensor, theta: Tensor, output_size: tuple[int, int] | None, padding_mode: str, align_corners: bool
) -> Tensor:
    """Sample each image where its theta says: (B, C, H, W) -> (B, C, h, w) in the type of the input."""
    height, width = output_size or x.shape[2:]
    grid = affine_grid(theta, height, width, align_corners=align_corners)
    warped = F.grid_sample(
        x.to(theta.dtype), grid, mode="bilinear", padding_mode=padding_mode, align_corners=align_corners
    )
    if padding_mode != "zeros":  # they clamp coordinates, NaN to the border, and a broken theta would not show
        warped = warped + (0 * theta).sum((1, 2)).view(-1, 1, 1, 1)
    return warped.to(x.dtype)


for _name in ("affine_matrix", "check_images", "warp"):  # torch.fx, which follows no branch, calls them as they are
    torch.fx.wrap(_name)


class SpatialTransformer(nn.Module):
    """Warp each image with the affine transform that a localization module predicts from it.

    Args:
        localization: Module from images (B, C, H, W) to affine parameters (B, 6) or (B, 2, 3).
        output_size: Height and width of the output in pixels, one number for a square; the input's by default.
        padding_mode: What lies outside the frame: ``zeros``, ``border`` or ``reflection``.
        align_corners: Whether -1 and 1 are the centres of the border pixels instead of their outer edges.

    Shape:
        - Input: (B, C, H, W), floating point.
        - Output: (B, C, h, w) in the type of the input; with ``return_theta=True`` also theta (B, 2, 3).

    Raises:
        TypeError: If ``localization`` is not a module, or the input is not floating point.
        ValueError: If an option is not one of the above, the input is not four-dimensional with at least one pixel,
            or ``localization`` returns another shape.
    """

    def __init__(
        self,
        localization: nn.Module,
        *,
        output_size: int | tuple[int, int] | None = None,
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(localization, nn.Module):
            raise TypeError(f"SpatialTransformer: localization ({type(localization).__name__}) must be an nn.Module")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"SpatialTransformer: padding_mode ({padding_mode!r}) must be one of {PADDING_MODES}")
        size = (output_size, output_size) if isinstance(output_size, int) else output_size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"SpatialTransformer: output_size ({output_size}) must be one or two positive numbers")
        self.localization = localization
        self.output_size = size
        self.padding_mode = padding_mode
        self.align_corners = align_corners

    def forward(self, x: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the warped images, and theta where it is asked for."""
        check_images(x)
        theta = affine_matrix(self.localization(x), x)  # (B, 2, 3)
        warped = warp(x, theta, self.output_size, self.padding_mode, self.align_corners)  # (B, C, h, w)
        return (warped, theta) if return_theta else warped

    def extra_repr(self) -> str:
        """Show the options in ``print(module)``."""
        return f"output_size={self.output_size}, padding_mode={self.padding_mode!r}, align_corners={self.align_corners}"
