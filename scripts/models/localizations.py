"""How the parameters of a transform are found: from the features of an image, told its pose in training or not.

    features (B, D) -> scores (B, S) -> parameters (B, P)

Letters: B batch, D width of the features, S scores, P parameters, K angles.

Each has a loss of its scores, given the pose that an image was put into: the parameters of ``Similarity`` that undo it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.localization_net import without_autocast
from components.transforms import Similarity, Transform


class Localization(nn.Module):
    """Predict any transform; nobody tells it the pose, but it may be told that upright images need no change.

    Args:
        features: Module from images (B, C, H, W) to vectors (B, width).
        width: D.
        transform: Whose parameters are predicted.
        prior: Weight of the distance from the identity in the loss of images that are upright.

    Shape:
        - Input: (B, C, H, W).
        - Output: parameters (B, P).
    """

    def __init__(self, features: nn.Module, width: int, transform: Transform, *, prior: float = 0.0) -> None:
        super().__init__()
        self.features, self.transform, self.prior = features, transform, prior
        self.head = starting_at(torch.tensor(transform.identity), width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters for each image."""
        return self.params(self.scores(self.features(x)))

    def scores(self, features: Tensor) -> Tensor:
        """Return what the head says of each image, without autocast: it would round a shift to whole pixels."""
        with without_autocast(features):
            scores: Tensor = self.head(features.to(self.head.weight.dtype))
        return scores

    def params(self, scores: Tensor) -> Tensor:
        """Return the parameters that the scores stand for."""
        return scores

    def loss(self, scores: Tensor, poses: Tensor) -> Tensor:
        """Return how wrong the scores of each image are, given its pose (B, 4): (B,)."""
        change = (scores - scores.new_tensor(self.transform.identity)).square().sum(1)
        return self.prior * change.where((poses == 0).all(1), 0)


class PoseRegression(Localization):
    """Predict the pose itself: cosine and sine of the angle, log of the scale, shift x, shift y."""

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__(features, width, Similarity())
        self.head = starting_at(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]), width)

    def params(self, scores: Tensor) -> Tensor:
        """Return the pose, whose angle is that of cosine and sine."""
        return torch.cat([torch.atan2(scores[:, 1:2], scores[:, :1]), scores[:, 2:]], 1)

    def loss(self, scores: Tensor, poses: Tensor) -> Tensor:
        """Return the distance from the pose."""
        true = torch.cat([poses[:, :1].cos(), poses[:, :1].sin(), poses[:, 1:]], 1)
        return distance(scores, true)


class PoseClassification(Localization):
    """Predict the pose with its angle as the likeliest of several, which is learned much sooner than a regression.

    The scores are K logits; where the pose is fine, also K offsets as shares of half a step, log of the scale, x and y.

    Args:
        features: As in ``Localization``.
        width: As in ``Localization``.
        angles: K, evenly spaced around the circle from zero.
        fine: Whether poses differ by more than these angles.
    """

    def __init__(self, features: nn.Module, width: int, *, angles: int = 8, fine: bool = True) -> None:
        super().__init__(features, width, Similarity())
        self.angles, self.fine = angles, fine
        self.head = starting_at(torch.zeros(2 * angles + 3 if fine else angles), width)

    def params(self, scores: Tensor) -> Tensor:
        """Return the likeliest pose."""
        likeliest = scores[:, : self.angles].argmax(1)
        angle = likeliest * (2 * math.pi / self.angles)
        if not self.fine:
            return F.pad(angle.unsqueeze(1), (0, 3))
        return torch.cat([(angle + self._offset(scores, likeliest)).unsqueeze(1), scores[:, -3:]], 1)

    def loss(self, scores: Tensor, poses: Tensor) -> Tensor:
        """Return the cross entropy of the angle, and the distance from the rest of the pose where it is fine."""
        step = 2 * math.pi / self.angles
        nearest = (poses[:, 0] / step).round()
        loss = F.cross_entropy(scores[:, : self.angles], nearest.long() % self.angles, reduction="none")
        if not self.fine:
            return loss
        found = torch.cat([self._offset(scores, nearest.long() % self.angles).unsqueeze(1), scores[:, -3:]], 1)
        return loss + distance(found, torch.cat([(poses[:, 0] - nearest * step).unsqueeze(1), poses[:, 1:]], 1))

    def _offset(self, scores: Tensor, angle: Tensor) -> Tensor:
        """The offset in radians from one of the angles, at most half a step."""
        chosen = scores[:, self.angles : 2 * self.angles].gather(1, angle.unsqueeze(1)).squeeze(1)
        return math.pi / self.angles * chosen.tanh()


def starting_at(scores: Tensor, width: int) -> nn.Linear:
    """A head that gives these scores for every image until it is trained."""
    head = nn.Linear(width, len(scores))
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(scores)
    return head


def distance(found: Tensor, true: Tensor) -> Tensor:
    """A distance that counts small errors squared, and is as large as the cross entropy of an angle: (B, n) -> (B,)."""
    return 4 * F.smooth_l1_loss(found, true, beta=0.1, reduction="none").sum(1)
