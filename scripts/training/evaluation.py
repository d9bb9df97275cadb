"""What a model says of a whole split, and how well that agrees with the labels."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Evaluation:
    """What a model says of a whole split: logits (N, classes), labels (N,), and what else it reports of each image."""

    logits: Tensor
    labels: Tensor
    extra: Tensor | None

    @property
    def loss(self) -> float:
        """Mean cross entropy."""
        return F.cross_entropy(self.logits, self.labels).item()

    @property
    def correct(self) -> int:
        """Images whose largest logit is that of their label."""
        return int((self.logits.argmax(1) == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Percent of the images."""
        return 100 * self.correct / len(self.labels)

    def line(self, name: str) -> str:
        """One line, in the words of the published run."""
        score = f"{self.correct}/{len(self.labels)} ({self.accuracy:.2f}%)"
        return f"{name.capitalize()} set: Average loss: {self.loss:.4f}, Accuracy: {score}"
