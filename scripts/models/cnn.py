"""A small modern CNN, as classifier and as localization network.

    conv 2x2 -> GELU -> for every width: conv 3x3 -> max pool 2x2 -> norm -> GELU -> conv 3x3 -> norm -> GELU

Letters: B batch, C channels, H W pixels, D the last width.

Source: the network of airbench94 (K. Jordan 2024, https://github.com/KellerJordan/cifar10-airbench), with other widths
and without the whitening of its first layer. Places are those of C. Finn et al. 2016 (https://arxiv.org/abs/1509.06113).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.transforms import centres
from scripts.models.sizes import size, sizes


class Features(nn.Module):
    """Turn an image into a vector: convolutions, then the largest value of every channel, and where it is if asked for.

    Args:
        in_channels: Channels of the image.
        stem: Channels of the first layer.
        widths: Channels of the stages, each of which halves height and width.
        places: Whether the vector tells where things are too: ``places``.

    Shape:
        - Input: (B, C, H, W); ``smallest`` is the least side.
        - Output: (B, D), with places (B, 3 D); ``width`` is its length.
    """

    def __init__(self, in_channels: int, stem: int, widths: Sequence[int], *, places: bool = False) -> None:
        super().__init__()
        stem, widths = size("Features: stem", stem), sizes("Features: widths", widths)
        self.smallest = 2 ** (len(widths) + 1) + 1  # of one image batch norm then has four values a channel, not one
        self.places = places
        self.width = widths[-1] * (3 if places else 1)
        self.stem = nn.Conv2d(in_channels, stem, kernel_size=2)
        pairs = zip((stem, *widths[:-1]), widths, strict=True)
        self.stages = nn.Sequential(*(stage(before, width) for before, width in pairs))

    def forward(self, x: Tensor) -> Tensor:
        """Return what is left of every channel of the last stage."""
        x = self.stages(F.gelu(self.stem(x)))  # (B, D, h, w)
        # not amax: when that is compiled in half precision its gradient is NaN (pytorch#195214)
        largest = x.flatten(2).max(2).values  # (B, D)
        return torch.cat([largest, places(x)], 1) if self.places else largest


def places(x: Tensor) -> Tensor:
    """Return where each channel is large, the mean place under a softmax: (B, D, h, w) -> all x, all y (B, 2 D).

    They are in [-1, 1], as for theta.
    """
    height, width = x.shape[2:]
    shares = x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2).softmax(2).unflatten(2, (height, width))
    across, down = shares.sum(2), shares.sum(3)  # (B, D, w), (B, D, h)
    # sums of products, not matrix products, which autocast would compute in half precision
    x, y = (across * centres(width, across, False)).sum(2), (down * centres(height, down, False)).sum(2)
    return torch.cat([x, y], 1)


torch.fx.wrap("places")  # torch.fx, which follows no size, calls it as it is


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
