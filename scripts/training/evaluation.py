"""The result of evaluating a model on a split: loss, accuracy and logits."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


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
