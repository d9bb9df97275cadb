# SPDX-License-Identifier: MIT
"""Turn an image into a sequence of tokens.

    PatchEmbeddings(x) = dropout(concat(class token, W patch_1 + b, ..., W patch_N + b) + positions)

Letters: B batch, C channels, H W pixels, P side of a patch, h w = H/P W/P patches, N = h w, D width.

Source: "An Image is Worth 16x16 Words", Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), equation 1.

Convention: the class token comes first and has a position of its own; patches follow row by row. Positions are learned
for one grid and resampled for any other, by default as in timm. Weights start as in the original Flax code: projection
LeCun normal (cut at two standard deviations), its bias and the class token zero, positions normal(0.02).
"""

import math
import operator
from contextlib import suppress
from numbers import Real
from typing import Any, SupportsIndex

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as every_module

INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "bicubic-antialias": {"mode": "bicubic", "antialias": True},  # timm
    "bicubic": {"mode": "bicubic"},  # Hugging Face
    "bicubic-corners": {"mode": "bicubic", "align_corners": True},  # torchvision
    "bilinear": {"mode": "bilinear"},  # timm, for Google's files
    "bilinear-corners": {"mode": "bilinear", "align_corners": True},  # Google and jeonsworld: ndimage.zoom(order=1)
}


def whole(name: str, value: SupportsIndex) -> int:
    """Return a size as an int: any integer type is taken, but neither True nor False, of NumPy and torch neither."""
    if not isinstance(value, bool) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} ({value!r}) must be an integer")


def rate(name: str, value: float) -> float:
    """Return the probability of dropping something as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} ({value!r}) must be a number")
    if not 0 <= value < 1:
        raise ValueError(f"{name} ({value}) must be at least 0 and less than 1")
    return float(value)


def resize_pos_embed(
    pos_embed: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    prefix: int = 1,
    interpolation: str = "bicubic-antialias",
) -> Tensor:
    """Resample positions (1, prefix + N, D) from a grid of old rows and columns to a new one; the prefix stays."""
    if pos_embed.shape[:2] != (1, prefix + old[0] * old[1]):
        shape = tuple(pos_embed.shape)
        raise ValueError(f"resize_pos_embed: pos_embed {shape} must be (1, {prefix} + {old[0]} * {old[1]}, D)")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"resize_pos_embed: interpolation ({interpolation!r}) must be one of {(*INTERPOLATIONS,)}")
    # a graph that is exported for any image size must not remember that this one needed no resizing
    if not torch.compiler.is_exporting() and tuple(old) == tuple(new):
        return pos_embed
    exact = torch.promote_types(pos_embed.dtype, torch.float32)  # antialiasing knows no half precision
    cells = rearrange(pos_embed[:, prefix:].to(exact), "b (h w) d -> b d h w", h=old[0])
    # with antialiasing torch repeats the first cell of an upright column of numbers (2.14); lying down it does not
    column = not isinstance(new[1], torch.SymInt) and new[1] == 1  # in an exported graph a symbol is more than one
    size, cells = (new[::-1], cells.mT) if column else (new, cells)
    cells = F.interpolate(cells, size=size, **INTERPOLATIONS[interpolation]).to(pos_embed.dtype)
    cells = cells.mT if column else cells
    return torch.cat([pos_embed[:, :prefix], rearrange(cells, "b d h w -> b (h w) d")], 1)


def is_plain(layer: nn.Conv2d, patch_size: int) -> bool:
    """Whether a call of this layer is the product of every patch with its weight, and nothing else.

    Adapters and quantisation take the layer's place, its ``forward`` or its weight; hooks want to see the call.
    """
    if type(layer) is not nn.Conv2d or type(layer.weight) is not nn.Parameter or "forward" in layer.__dict__:
        return False
    side = (patch_size, patch_size)
    if (layer.kernel_size, layer.stride, layer.padding, layer.dilation) != (side, side, (0, 0), (1, 1)):
        return False
    if layer.groups != 1:
        return False
    if layer._forward_pre_hooks or layer._forward_hooks or layer._backward_pre_hooks or layer._backward_hooks:
        return False
    everywhere = every_module._global_forward_pre_hooks or every_module._global_forward_hooks
    return not (everywhere or every_module._global_backward_pre_hooks or every_module._global_backward_hooks)


def check_images(x: Tensor, channels: int, patch_size: int) -> None:
    """Refuse images of other channels, or of no whole number of patches."""
    if x.ndim != 4 or x.shape[1] != channels or any(side < 1 or side % patch_size for side in x.shape[2:]):
        wanted = f"(B, {channels}, H, W) with H and W multiples of {patch_size}"
        raise ValueError(f"PatchEmbeddings: input {tuple(x.shape)} must be {wanted}")


for _name in ("check_images", "resize_pos_embed"):  # torch.fx, which follows no branch, calls them as they are
    torch.fx.wrap(_name)


class PatchEmbeddings(nn.Module):
    """Project every patch, put the class token in front, add positions.

    Args:
        image_size: Height and width in pixels that the positions are learned for, one number for a square.
        patch_size: Side of a patch in pixels.
        dim: Width of a token.
        in_channels: Channels of the image.
        dropout: Probability of dropping an element of the output.
        interpolation: How positions are resampled for another image size, one of ``INTERPOLATIONS``.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W), any H and W that ``patch_size`` divides.
        - Output: (B, 1 + H/P W/P, dim), the class token first.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is out of range, or the input has another shape.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        *,
        dim: int,
        in_channels: int = 3,
        dropout: float = 0.0,
        interpolation: str = "bicubic-antialias",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        patch_size, dim = whole("PatchEmbeddings: patch_size", patch_size), whole("PatchEmbeddings: dim", dim)
        in_channels = whole("PatchEmbeddings: in_channels", in_channels)
        for name, value in (("patch_size", patch_size), ("dim", dim), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"PatchEmbeddings: {name} ({value}) must be at least 1")
        given = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
        sides = [whole("PatchEmbeddings: image_size", side) for side in given]
        if len(sides) != 2 or any(side < 1 or side % patch_size for side in sides):
            raise ValueError(f"PatchEmbeddings: image_size ({image_size}) must be one or two multiples of {patch_size}")
        dropout = rate("PatchEmbeddings: dropout", dropout)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"PatchEmbeddings: dtype ({dtype!r}) must be a floating-point torch.dtype")
        if interpolation not in (*INTERPOLATIONS,):
            raise ValueError(f"PatchEmbeddings: interpolation ({interpolation!r}) must be one of {(*INTERPOLATIONS,)}")
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.grid = (sides[0] // patch_size, sides[1] // patch_size)
        self.interpolation = interpolation
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim, device=device, dtype=dtype))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], dim, device=device, dtype=dtype))
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size, device=device, dtype=dtype)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a new projection and new positions; class token and bias return to zero."""
        std = self.proj.weight[0].numel() ** -0.5 / 0.8796256610342398  # the cut leaves a unit normal variable 0.88
        within = math.erf(2**0.5)  # nn.init.trunc_normal_ draws in a loop, which a fake or compiling device cannot
        self.proj.weight.detach().uniform_(-within, within).erfinv_().mul_(2**0.5 * std)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]  # torch's stub: a convolution may have none
        nn.init.zeros_(self.cls_token)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return class token and patches: (B, C, H, W) -> (B, 1 + H/P W/P, D)."""
        size = self.patch_size
        check_images(x, self.in_channels, size)
        grid = (x.shape[2] // size, x.shape[3] // size)
        if is_plain(self.proj, size):  # one matrix product takes half to all of a convolution's time
            x = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=size, q=size)  # (B, N, C P P)
            x = F.linear(x, self.proj.weight.flatten(1), self.proj.bias)  # (B, N, D)
        else:
            x = self.proj(x).flatten(2).mT  # (B, N, D)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)  # (B, 1 + N, D)
        x = self.dropout(x + resize_pos_embed(self.pos_embed, self.grid, grid, interpolation=self.interpolation))
        return x

    def extra_repr(self) -> str:
        """Show the options in ``print(module)``."""
        shown = f"in_channels={self.in_channels}, patch_size={self.patch_size}, grid={self.grid}"
        return f"{shown}, interpolation={self.interpolation!r}"
