"""A small modern CNN, as classifier and as localization network.

    conv 2x2 -> GELU -> for every width: conv 3x3 -> max pool 2x2 -> norm -> GELU -> conv 3x3 -> norm -> GELU

Letters: B batch, C channels, H W pixels, D the last width.

Source: the network of airbench94 (K. Jordan 2024, https://github.com/KellerJordan/cifar10-airbench), with other widths
and without the whitening of its first layer.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Features(nn.Module):
    """Turn an image into a vector: convolutions, then the largest value of every channel.

    Args:
        in_channels: Channels of the image.
        stem: Channels of the first layer.
        widths: Channels of the stages, each of which halves height and width.

    Shape:
        - Input: (B, C, H, W); ``smallest`` is the least side.
        - Output: (B, D).
    """

    def __init__(self, in_channels: int, stem: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.smallest = 2 ** len(widths) + 1
        self.stem = nn.Conv2d(in_channels, stem, kernel_size=2)
        pairs = zip((stem, *widths[:-1]), widths, strict=True)
        self.stages = nn.Sequential(*(stage(before, width) for before, width in pairs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest value of every channel of the last stage."""
        x = self.stages(F.gelu(self.stem(x)))  # (B, D, h, w)
        return x.amax((2, 3))


def stage(before: int, width: int, **factory: Any) -> nn.Sequential:
    """Two convolutions with a pooling: (B, before, H, W) -> (B, width, H // 2, W // 2)."""
    return nn.Sequential(
        nn.Conv2d(before, width, kernel_size=3, padding=1, bias=False, **factory),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(width, **factory),
        nn.GELU(),
        nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False, **factory),
        nn.BatchNorm2d(width, **factory),
        nn.GELU(),
    )
