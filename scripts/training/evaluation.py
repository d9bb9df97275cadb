"""The views of an image that are evaluated, and the result of a split: loss, accuracy and logits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from scripts.data.poses import posed
from scripts.training.plan import Plan


def views(images: Tensor, plan: Plan) -> Iterator[Tensor]:
    """Yield uint8 images as they are, then as test-time augmentation changes them."""
    yield images
    if plan.tta == "mirror":
        yield images.flip(-1)
    if plan.tta == "turns":
        for turn in range(1, plan.poses.turns):
            poses = torch.zeros(len(images), 4, device=images.device)
            poses[:, 0] = 2 * math.pi * turn / plan.poses.turns
            yield posed(images, poses)


@dataclass(frozen=True)
class Evaluation:
    """Logits (N, classes) and labels (N,) of a whole split, and the model's second output for each image, if any."""

    logits: Tensor
    labels: Tensor
    extra: Tensor | None

    @property
    def loss(self) -> float:
        """Mean cross entropy."""
        return F.cross_entropy(self.logits, self.labels).item()

    @property
    def correct(self) -> int:
        """Number of images that are classified correctly."""
        return int((self.logits.argmax(1) == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Correctly classified images in percent."""
        return 100 * self.correct / len(self.labels)

    def line(self, name: str) -> str:
        """One line for the log, worded as in the published run."""
        score = f"{self.correct}/{len(self.labels)} ({self.accuracy:.2f}%)"
        return f"{name.capitalize()} set: Average loss: {self.loss:.4f}, Accuracy: {score}"
