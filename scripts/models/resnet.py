"""The ResNet in front of a hybrid Vision Transformer.

    conv 7x7 -> norm -> ReLU -> max pool -> stages of units: x -> ReLU(shortcut(x) + norm(conv(...)))

Letters: B batch, C channels, H W pixels, S stride.

Source: the hybrid of "An Image is Worth 16x16 Words", Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), with
the group norm and standardised weights of "Big Transfer" (https://arxiv.org/abs/1912.11370).

Convention: a norm follows its convolution, unlike in Big Transfer; the 3x3 convolution has the stride; what is odd in
the padding is at the end, as in TensorFlow's SAME. Epsilons are those of timm: 1e-5 in a norm, 1e-8 in a filter's
variance.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.models.sizes import size, sizes

WIDTH = 64  # channels of the first convolution
GROWTH = 4  # channels of a unit's output / of its 3x3 convolution
GROUPS = 32  # of every norm


def stride_of(units: Sequence[int]) -> int:
    """Return the side in pixels of a cell of the feature map of a ResNet."""
    return 2 ** (1 + len(units))


def check_sides(name: str, x: Tensor, channels: int, stride: int) -> None:
    """Refuse images of other channels, or whose sides the stride does not divide."""
    if x.ndim != 4 or x.shape[1] != channels or any(side < 1 or side % stride for side in x.shape[2:]):
        raise ValueError(
            f"{name}: input {tuple(x.shape)} must be (B, {channels}, H, W) with H and W multiples of {stride}"
        )


torch.fx.wrap("check_sides")  # torch.fx, which follows no branch, calls it as it is


class StdConv(nn.Conv2d):
    """A convolution with standardised weights: every filter has mean 0 and variance 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Number of filters.
        size: Side of a filter.
        stride: Step between two outputs; it must divide the sides of the input.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: (B, out_channels, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        stride: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rest = max(size - stride, 0)  # rows of padding, above and below
        super().__init__(
            in_channels, out_channels, size, stride, padding=rest // 2, bias=False, device=device, dtype=dtype
        )
        self.odd = rest % 2

    def reset_parameters(self) -> None:
        """Draw new filters, LeCun normal."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: (B, C, H, W) -> (B, out_channels, H / stride, W / stride)."""
        filters = F.layer_norm(self.weight, self.weight.shape[1:], eps=1e-8)
        if self.odd:  # SAME has the odd row and column at the end
            x = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(x, filters, stride=self.stride, padding=self.padding)


class Bottleneck(nn.Module):
    """A unit of three convolutions beside a shortcut, which is a convolution where shapes differ.

    Args:
        in_channels: Channels of the input.
        width: Channels inside.
        stride: Of the 3x3 convolution and the shortcut.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: (B, 4 * width, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        out_channels = GROWTH * width
        self.conv1 = StdConv(in_channels, width, 1, device=device, dtype=dtype)
        self.norm1 = nn.GroupNorm(GROUPS, width, device=device, dtype=dtype)
        self.conv2 = StdConv(width, width, 3, stride, device=device, dtype=dtype)
        self.norm2 = nn.GroupNorm(GROUPS, width, device=device, dtype=dtype)
        self.conv3 = StdConv(width, out_channels, 1, device=device, dtype=dtype)
        self.norm3 = nn.GroupNorm(GROUPS, out_channels, device=device, dtype=dtype)
        nn.init.zeros_(self.norm3.weight)  # the unit starts as its shortcut
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            conv = StdConv(in_channels, out_channels, 1, stride, device=device, dtype=dtype)
            norm = nn.GroupNorm(GROUPS, out_channels, device=device, dtype=dtype)
            self.downsample = nn.Sequential(OrderedDict(conv=conv, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions compute to the shortcut: (B, C, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))  # (B, width, H, W)
        y = F.relu(self.norm2(self.conv2(y)))  # (B, width, H / stride, W / stride)
        return F.relu(self.downsample(x) + self.norm3(self.conv3(y)))


class ResNet(nn.Module):
    """The convolutional part of a hybrid, without the last stage and the head of a classifier.

    Args:
        units: Number of units in each stage; ``(3, 4, 9)`` is the R50 of the paper's R50+ViT-B/16.
        in_channels: Channels of the image.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W), any H and W that ``stride`` divides.
        - Output: (B, out_channels, H / S, W / S). S is 4 and ``out_channels`` is 256 with one stage;
          each further stage doubles both.

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If an option is out of range, or the input has another shape.
    """

    def __init__(
        self,
        units: Sequence[int],
        *,
        in_channels: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        units = sizes("ResNet: units", units)
        self.in_channels = size("ResNet: in_channels", in_channels)
        if not 1 <= len(units) <= 4:
            raise ValueError(f"ResNet: units ({units}) must be one to four numbers")
        conv = StdConv(self.in_channels, WIDTH, 7, 2, device=device, dtype=dtype)
        norm = nn.GroupNorm(GROUPS, WIDTH, device=device, dtype=dtype)
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)  # which pads at the end
        self.stem = nn.Sequential(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU(), pool=pool))
        self.stages = nn.Sequential()
        channels = WIDTH
        for i, count in enumerate(units):
            width, stage = WIDTH * 2**i, nn.Sequential()
            for j in range(count):
                stage.append(Bottleneck(channels, width, 2 if i and not j else 1, device=device, dtype=dtype))
                channels = GROWTH * width
            self.stages.append(stage)
        self.out_channels = channels
        self.stride = stride_of(units)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map: (B, C, H, W) -> (B, out_channels, H / S, W / S)."""
        check_sides("ResNet", x, self.in_channels, self.stride)
        return self.stages(self.stem(x))
