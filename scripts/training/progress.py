"""How far a run has come: what the loop carries from step to step, and a checkpoint beside weights and optimizers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KEPT = ("rows", "lr", "shuffle", "step", "loss", "hits", "seen", "skipped", "seconds")  # in a checkpoint as they are


@dataclass
class Progress:
    """How far a run has come.

    Args:
        generator: For the order of the images and their augmentation.
        schedulers: One for each optimizer, stepped with it.
        scaler: Lifts float16 gradients out of underflow; does nothing in other precisions.
        rows: Of metrics.csv, one for each epoch that is over.
        lr: Learning rate as the epoch under way began.
        shuffle: State of the generator as it began: the order of its images follows.
        step: Steps done of it, those that were skipped among them.
        loss: Sum over its images, as all sums without those of skipped steps.
        hits: Images whose largest logit was that of their label.
        seen: Images.
        skipped: Steps that were skipped in a row, up to now.
        seconds: Spent on it.
    """

    generator: torch.Generator
    schedulers: Sequence[torch.optim.lr_scheduler.LRScheduler]
    scaler: torch.amp.GradScaler
    rows: list[dict[str, float]]
    lr: float = 0.0
    shuffle: Tensor | None = None
    step: int = 0
    loss: float = 0.0
    hits: int = 0
    seen: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def means(self) -> tuple[float, float]:
        """Loss and accuracy in percent so far in the epoch; not a number as long as every step was skipped."""
        return (self.loss / self.seen, 100 * self.hits / self.seen) if self.seen else (math.nan, math.nan)
