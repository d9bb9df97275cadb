"""The network of the spatial transformer tutorial."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components import LocalizationNet, SpatialTransformer
from components.localization_net import average_to
from components.mlp import rate
from scripts.models.sizes import size

SMALLEST = 16  # side in pixels that leaves one cell after both convolutions and poolings of the classifier
CELLS = 5  # cells a side that 32 pixels leave there


def with_theta(logits: Tensor, theta: Tensor | None, asked: bool) -> Tensor | tuple[Tensor, Tensor]:
    """Return the logits, and theta beside them where it is asked for."""
    if not asked:
        return logits
    if theta is None:
        raise ValueError("STNClassifier: return_theta (True) needs transform=True")
    return logits, theta


for _name in ("average_to", "with_theta"):  # torch.fx, which follows no branch, calls them as they are
    torch.fx.wrap(_name)


class STNClassifier(nn.Module):
    """The network of the PyTorch spatial transformer tutorial: a transformer in front of a small CNN.

    39,884 parameters for three channels and ten classes. Images may have any size from 16 pixels a side: the last
    feature map is averaged to 5x5 cells, which changes nothing at 32x32.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the image.
        dropout: Probability of dropping a channel after conv2 and a unit after fc1.
        padding_mode: As in ``SpatialTransformer``.
        transform: False leaves the transformer out, for comparison.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: (B, num_classes) logits; with ``return_theta=True`` also theta (B, 2, 3).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        dropout: float = 0.5,
        padding_mode: str = "zeros",
        transform: bool = True,
    ) -> None:
        super().__init__()
        self.smallest = SMALLEST
        num_classes = size("STNClassifier: num_classes", num_classes)
        in_channels = size("STNClassifier: in_channels", in_channels)
        dropout = rate("STNClassifier: dropout", dropout)
        if not isinstance(transform, bool):
            raise TypeError(f"STNClassifier: transform ({transform!r}) must be True or False")
        self.transformer = None
        if transform:
            self.transformer = SpatialTransformer(LocalizationNet(in_channels), padding_mode=padding_mode)
        self.conv1 = nn.Conv2d(in_channels, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(20 * CELLS * CELLS, 50)
        self.fc1_drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits, and theta if requested."""
        theta = None
        if self.transformer is not None:
            x, theta = self.transformer(x, return_theta=True)  # (B, C, H, W), (B, 2, 3)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 10, (H - 4) // 2, ...)
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))  # (B, 20, ((H - 4) // 2 - 4) // 2, ...)
        x = average_to(x, CELLS).flatten(1)  # (B, 500)
        x = self.fc1_drop(F.relu(self.fc1(x)))  # (B, 50)
        return with_theta(self.fc2(x), theta, return_theta)
