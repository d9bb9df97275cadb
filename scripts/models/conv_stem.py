"""Convolutions in front of the patches of a Vision Transformer.

    image -> conv 2x2 -> GELU -> for every width: conv 3x3 -> max pool 2x2 -> norm -> GELU -> conv 3x3 -> norm -> GELU
          -> patches

Letters: B batch, C channels, H W pixels, S stride.

Source: "Early Convolutions Help Transformers See Better", Xiao et al. 2021 (https://arxiv.org/abs/2106.14881), and the
convolutional tokens of "Escaping the Big Data Paradigm with Compact Transformers", Hassani et al. 2021
(https://arxiv.org/abs/2104.05704). The layers are those of airbench94, as in ``cnn.py``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.models.cnn import stage
from scripts.models.resnet import check_sides
from scripts.models.sizes import size, sizes

FIRST = 24  # channels of the first layer: each of the 12 values of 2x2 pixels and its negative, as in airbench94


class ConvStem(nn.Module):
    """A convolution of 2x2 pixels, then stages of convolutions, each of which halves height and width.

    Args:
        widths: Channels of the stages.
        in_channels: Channels of the image.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W), any H and W that ``stride`` divides.
        - Output: (B, out_channels, H / S, W / S).
    """

    def __init__(
        self,
        widths: Sequence[int],
        in_channels: int = 3,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = size("ConvStem: in_channels", in_channels)
        widths = sizes("ConvStem: widths", widths)
        self.stride, self.out_channels = 2 ** len(widths), widths[-1]
        self.first = nn.Conv2d(self.in_channels, FIRST, kernel_size=2, device=device, dtype=dtype)
        pairs = zip((FIRST, *widths[:-1]), widths, strict=True)
        self.stages = nn.Sequential(*(stage(before, width, device=device, dtype=dtype) for before, width in pairs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map: (B, C, H, W) -> (B, out_channels, H / S, W / S)."""
        check_sides("ConvStem", x, self.in_channels, self.stride)
        x = F.gelu(self.first(F.pad(x, (0, 1, 0, 1))))  # (B, 24, H, W): a row and a column of zeros keep the size
        features: Tensor = self.stages(x)
        return features
