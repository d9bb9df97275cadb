r"""A CNN that sees every image upright: a localization finds the pose, and a transformer undoes it.

    image -> localization -> theta -> upright image -> CNN -> logits
                   \------------- skip --------------/

Letters: B batch, C channels, H W pixels, n steps, S scores.

Source: canonicalisation with a prior as in Mondal et al. 2023 (https://arxiv.org/abs/2310.01647); here the localization
is told the pose, which is known where images are posed on purpose. Several steps: Lin and Lucey 2017
(https://arxiv.org/abs/1612.03897). Shared features: Finnveden et al. 2020 (https://arxiv.org/abs/2004.11678).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components import SpatialTransformer
from components.spatial_transformer import composed
from components.transforms import Affine, Similarity
from scripts.models.cnn import Features
from scripts.models.localizations import Localization, PoseClassification, PoseRegression
from scripts.models.sizes import size


def with_theta(
    logits: Tensor, theta: Tensor | None, scores: list[Tensor], asked: bool
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Return the logits, with theta and scores beside them where they are asked for."""
    if not asked:
        return logits
    if theta is None:
        raise ValueError("UprightCNN: return_theta (True) needs a localization")
    return logits, theta, torch.stack(scores, 1)


for _name in ("composed", "with_theta"):  # torch.fx, which follows no branch, calls them as they are
    torch.fx.wrap(_name)


class UprightCNN(nn.Module):
    """A CNN behind a transformer that turns images upright, or zooms in on an object.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the image.
        stem: Channels of the first layer of the classifier.
        widths: Channels of its stages.
        localization: Stem and widths of the localization; None for no transformer.
        places: Of the features of the localization, as in ``Features``; needed to find an object.
        shared: Whether the localization uses the features of the classifier instead of its own.
        skip: Whether the logits depend on the features of the localization too, which has seen the image as it is.
        predicts: ``angle`` classifies the pose and ``pose`` regresses it, both told in training; ``similarity``, which
            is bounded, and ``affine`` are trained by the classes alone.
        prior: For these two: how much they are kept from changing upright images.
        angles: As in ``PoseClassification``.
        fine: As in ``PoseClassification``.
        steps: Looks at the image, each after the first one at what the transformer made of it so far.
        output_size: As in ``SpatialTransformer``.
        padding_mode: As in ``SpatialTransformer``.
        samples: As in ``SpatialTransformer``.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: (B, num_classes) logits; with ``return_theta=True`` also theta (B, 2, 3) and the scores of every step
          (B, n, S).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        stem: int,
        widths: Sequence[int],
        localization: tuple[int, Sequence[int]] | None = None,
        places: bool = False,
        shared: bool = False,
        skip: bool = False,
        predicts: str = "angle",
        prior: float = 0.0,
        angles: int = 8,
        fine: bool = True,
        steps: int = 1,
        output_size: int | None = None,
        padding_mode: str = "reflection",
        samples: int = 1,
    ) -> None:
        super().__init__()
        num_classes = size("UprightCNN: num_classes", num_classes)
        in_channels = size("UprightCNN: in_channels", in_channels)
        self.features = Features(in_channels, stem, widths)
        self.skip = skip and localization is not None
        self.transformer = None
        read = widths[-1]
        if localization is not None:
            features = self.features
            if not shared:
                features = Features(in_channels, *localization, places=places)
            width = features.width
            found: Localization
            match predicts:
                case "angle":
                    found = PoseClassification(features, width, angles=angles, fine=fine)
                case "pose":
                    found = PoseRegression(features, width)
                case "similarity":
                    found = Localization(features, width, Similarity(180, 1.5, 0.5), prior=prior)
                case "affine":
                    found = Localization(features, width, Affine(), prior=prior)
                case _:
                    wanted = "angle, pose, similarity or affine"
                    raise ValueError(f"UprightCNN: predicts ({predicts!r}) must be {wanted}")
            self.transformer = SpatialTransformer(
                found, transform=found.transform, steps=steps, output_size=output_size, padding_mode=padding_mode,
                samples=samples,
            )  # fmt: skip
            read += width if skip else 0
        self.head = nn.Linear(read, num_classes)

    @property
    def smallest(self) -> int:
        """The least side of an image."""
        return max(part.smallest for part in self.modules() if isinstance(part, Features))

    @property
    def localization(self) -> Localization:
        """The localization of the transformer."""
        assert self.transformer is not None
        assert isinstance(self.transformer.localization, Localization)
        return self.transformer.localization

    def forward(self, x: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the logits, with theta and the scores where they are asked for."""
        theta, scores, seen, skipped = None, [], x, []
        if self.transformer is not None:
            for number in range(self.transformer.steps):
                described = self.localization.features(seen)  # (B, D)
                if self.skip and number == 0:
                    skipped = [described]
                scores.append(self.localization.scores(described))  # (B, S)
                step = self.transformer.theta(self.localization.params(scores[-1]), x)
                theta = step if theta is None else composed(self.transformer.transform, theta, step)  # (B, 2, 3)
                last = number == self.transformer.steps - 1  # what the classifier sees has a size of its own
                seen = self.transformer.warp(x, theta, None if last else x.shape[2:])
        read = torch.cat([self.features(seen), *skipped], 1)  # places are float32 at least
        return with_theta(self.head(read.to(self.head.weight.dtype)), theta, scores, return_theta)

    def pose_loss(self, scores: Tensor, poses: Tensor, aspect: float) -> Tensor:
        """Return how wrong the scores (B, n, S) of all steps are, given the poses (B, 4) and width / height: (B,)."""
        loss = torch.zeros(len(poses), device=poses.device)
        similarity = Similarity()
        for step in scores.unbind(1):
            loss = loss + self.localization.loss(step, poses)
            if scores.shape[1] > 1:  # the next step sees what this one left
                undone = similarity.inverse(self.localization.transform.theta(self.localization.params(step), aspect))
                left = similarity.compose(undone.detach(), similarity.theta(poses, aspect))
                poses = similarity.params(left, aspect)
        return loss
