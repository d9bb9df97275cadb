"""A CNN that sees every image upright: a localization predicts the pose, and a transformer undoes it.

    image -> PoseNet -> pose -> SpatialTransformer -> upright image -> CNN -> logits

Letters: B batch, C channels, H W pixels, K angles.

Source: canonicalisation with a prior as in Mondal et al. 2023 (https://arxiv.org/abs/2310.01647); here the localization
is told the pose, which is known where images are posed on purpose.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components import SpatialTransformer
from components.transforms import Similarity, whole
from scripts.models.cnn import Features


class PoseNet(nn.Module):
    """Predict the pose of an image: its angle as one of several, with an offset if wanted; its scale and its shift.

    Classifying the angle is learned much sooner than regressing it.

    Args:
        features: Module from images to vectors (B, width).
        width: Their length.
        angles: K, the number of angles around the circle, evenly spaced from zero.
        fine: Whether offsets to the angle, scale and shift are predicted too.

    Shape:
        - Input: (B, C, H, W).
        - Output: (B, 4), parameters of ``Similarity``: angle in radians, log of the scale, shift x, shift y.
    """

    def __init__(self, features: nn.Module, width: int, *, angles: int = 8, fine: bool = True) -> None:
        super().__init__()
        self.angles, self.fine = angles, fine
        self.features = features
        self.head = nn.Linear(width, 2 * angles + 3 if fine else angles)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pose of each image."""
        return self.pose(self.scores(x))

    def scores(self, x: Tensor) -> Tensor:
        """Return K logits, and where it is fine K offsets as shares of half a step, log of the scale, x and y."""
        scores: Tensor = self.head(self.features(x))
        return scores.float()  # half precision would round a shift to whole pixels on large images

    def pose(self, scores: Tensor) -> Tensor:
        """Return the likeliest pose (B, 4)."""
        likeliest = scores[:, : self.angles].argmax(1)
        angle = likeliest * (2 * math.pi / self.angles)
        if not self.fine:
            return F.pad(angle.unsqueeze(1), (0, 3))
        return torch.cat([(angle + self._offset(scores, likeliest)).unsqueeze(1), scores[:, -3:]], 1)

    def loss(self, scores: Tensor, poses: Tensor) -> Tensor:
        """Return how wrong the scores of each image are, given its pose (B, 4): (B,)."""
        step = 2 * math.pi / self.angles
        nearest = (poses[:, 0] / step).round()
        loss = F.cross_entropy(scores[:, : self.angles], nearest.long() % self.angles, reduction="none")
        if not self.fine:
            return loss
        found = torch.cat([self._offset(scores, nearest.long() % self.angles).unsqueeze(1), scores[:, -3:]], 1)
        true = torch.cat([(poses[:, 0] - nearest * step).unsqueeze(1), poses[:, 1:]], 1)
        return loss + 4 * F.smooth_l1_loss(found, true, beta=0.1, reduction="none").sum(1)

    def _offset(self, scores: Tensor, angle: Tensor) -> Tensor:
        """The offset in radians from one of the angles, at most half a step."""
        chosen = scores[:, self.angles : 2 * self.angles].gather(1, angle.unsqueeze(1)).squeeze(1)
        return math.pi / self.angles * chosen.tanh()


def with_theta(
    logits: Tensor, theta: Tensor | None, scores: Tensor | None, asked: bool
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Return the logits, with theta and scores beside them where they are asked for."""
    if not asked:
        return logits
    if theta is None or scores is None:
        raise ValueError("UprightCNN: return_theta (True) needs a localization")
    return logits, theta, scores


torch.fx.wrap("with_theta")  # torch.fx, which follows no branch, calls it as it is


class UprightCNN(nn.Module):
    """A CNN behind a transformer that turns images upright.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the image.
        stem: Channels of the first layer of the classifier.
        widths: Channels of its stages.
        localization: Stem and widths of the localization; None for no transformer.
        angles: As in ``PoseNet``.
        fine: As in ``PoseNet``.
        padding_mode: As in ``SpatialTransformer``.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: (B, num_classes) logits; with ``return_theta=True`` also theta (B, 2, 3) and the scores of the pose.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        stem: int,
        widths: Sequence[int],
        localization: tuple[int, Sequence[int]] | None = None,
        angles: int = 8,
        fine: bool = True,
        padding_mode: str = "reflection",
    ) -> None:
        super().__init__()
        num_classes = whole("UprightCNN: num_classes", num_classes)
        in_channels = whole("UprightCNN: in_channels", in_channels)
        self.transformer = None
        if localization is not None:
            features = Features(in_channels, *localization)
            pose = PoseNet(features, localization[1][-1], angles=angles, fine=fine)
            self.transformer = SpatialTransformer(pose, transform=Similarity(), padding_mode=padding_mode)
        self.features = Features(in_channels, stem, widths)
        self.head = nn.Linear(widths[-1], num_classes)

    @property
    def smallest(self) -> int:
        """The least side of an image."""
        return max(part.smallest for part in self.modules() if isinstance(part, Features))

    def forward(self, x: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the logits, with theta and the scores of the pose where they are asked for."""
        theta = scores = None
        if self.transformer is not None:
            scores = self.localization.scores(x)  # (B, 2 K + 3)
            theta = self.transformer.theta(self.localization.pose(scores), x)  # (B, 2, 3)
            x = self.transformer.warp(x, theta)
        return with_theta(self.head(self.features(x)), theta, scores, return_theta)

    @property
    def localization(self) -> PoseNet:
        """The localization of the transformer."""
        assert self.transformer is not None
        assert isinstance(self.transformer.localization, PoseNet)
        return self.transformer.localization
