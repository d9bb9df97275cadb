# SPDX-License-Identifier: MIT
"""Predict the parameters of a spatial transform from the image itself.

    theta = fc2(relu(fc1(pool_4x4(relu(max_2x2(conv2(relu(max_2x2(conv1(x))))))))))

Letters: B batch, C channels, H W pixels, P parameters.

Source: "Spatial Transformer Networks", Jaderberg et al. 2015 (https://arxiv.org/abs/1506.02025), section 3.1, with
the layer sizes of the PyTorch spatial transformer tutorial. At 32x32 the adaptive pooling is the identity, so the
tutorial's weights load once they are renamed: ``localization.0`` and ``.3`` are ``conv1`` and ``conv2`` here,
``fc_loc.0`` and ``.2`` are ``fc1`` and ``fc2``.

Convention: the last layer starts with zero weights. With P = 6 its bias is the identity of a 2x3 affine matrix, row by
row; with any other P it is zero, the identity of transforms that are parametrised as offsets.
"""

import operator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import SupportsIndex

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOLED = 4  # what 32 pixels leave after both convolutions and poolings
SMALLEST = 18  # the side that leaves one cell there


def whole(name: str, value: SupportsIndex) -> int:
    """Return a size as an int: any integer type is taken, but neither True nor False, of NumPy and torch neither."""
    if not isinstance(value, bool) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} ({value!r}) must be an integer")


def check_images(x: Tensor, channels: int) -> None:
    """Refuse images of other channels."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"LocalizationNet: input {tuple(x.shape)} must be (B, {channels}, H, W)")


class LocalizationNet(nn.Module):
    """Two small convolutions and two linear layers that start at the identity transform.

    Args:
        in_channels: Channels of the image or feature map.
        num_params: Length of the parameter vector; 6 for an affine transform.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W), any H and W. A side under 18 pixels is centred in 18 pixels of zeros.
        - Output: (B, num_params), in the type of the parameters under autocast too: half precision would round a
          shift to whole pixels on large images.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If a size is not positive, or the input is not (B, in_channels, H, W).
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_params: int = 6,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_channels = whole("LocalizationNet: in_channels", in_channels)
        num_params = whole("LocalizationNet: num_params", num_params)
        for name, value in (("in_channels", in_channels), ("num_params", num_params)):
            if value < 1:
                raise ValueError(f"LocalizationNet: {name} ({value}) must be at least 1")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"LocalizationNet: dtype ({dtype!r}) must be a floating-point torch.dtype")
        self.in_channels = in_channels
        self.num_params = num_params
        self.conv1 = nn.Conv2d(in_channels, 8, kernel_size=7, device=device, dtype=dtype)
        self.conv2 = nn.Conv2d(8, 10, kernel_size=5, device=device, dtype=dtype)
        self.fc1 = nn.Linear(10 * POOLED * POOLED, 32, device=device, dtype=dtype)
        self.fc2 = nn.Linear(32, num_params, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights; the last layer returns to the identity transform."""
        for layer in (self.conv1, self.conv2, self.fc1):
            layer.reset_parameters()
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)
        if self.num_params == 6:
            with torch.no_grad():  # made from the bias, which may be sharded, and on any device
                self.fc2.bias.copy_(torch.ones_like(self.fc2.bias).cumsum(0) % 4 == 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one parameter vector an image: (B, C, H, W) -> (B, P)."""
        check_images(x, self.in_channels)
        x = F.relu(F.max_pool2d(self.conv1(at_least(x, SMALLEST)), 2), inplace=True)  # (B, 8, (H - 6) // 2, ...)
        x = F.relu(F.max_pool2d(self.conv2(x), 2), inplace=True)  # (B, 10, ((H - 6) // 2 - 4) // 2, ...)
        x = average_to(x, POOLED).flatten(1)  # (B, 160)
        with without_autocast(x):
            theta: Tensor = self.fc2(F.relu(self.fc1(x.to(type_of(self.fc1, x)))))  # (B, P)
        return theta

    def extra_repr(self) -> str:
        """Show the two sizes in ``print(module)``."""
        return f"in_channels={self.in_channels}, num_params={self.num_params}"


def type_of(layer: nn.Module, x: Tensor) -> torch.dtype:
    """The type of a layer's weights, that of x if it has none."""
    # a replica of nn.DataParallel has no parameters, but attributes; a quantised layer has a method of that name
    weight = [*layer.parameters(), getattr(layer, "weight", None)][0]
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else x.dtype


def average_to(x: Tensor, side: int) -> Tensor:
    """Average images to so many cells a side: (B, C, H, W) -> (B, C, side, side), the same one where H = W = side."""
    # a graph that is exported for any image size must not remember that this one needed no averaging
    if not torch.compiler.is_exporting() and x.shape[2:] == (side, side):
        return x
    return F.adaptive_avg_pool2d(x, side)


def at_least(x: Tensor, side: int) -> Tensor:
    """Centre an image in zeros until neither height nor width is under ``side``."""
    rows, columns = max(0, side - x.shape[2]), max(0, side - x.shape[3])
    if rows == columns == 0:
        return x
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off where it is on; the device "meta" does not have it, and raises if it is asked."""
    if not isinstance(x, Tensor):  # torch.fx traces with a stand-in, and its graph has the autocast of its caller
        return nullcontext()
    device_type = x.device.type
    on = device_type != "meta" and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if on else nullcontext()


for _name in ("at_least", "average_to", "check_images"):  # torch.fx, which follows no branch, calls them as they are
    torch.fx.wrap(_name)
