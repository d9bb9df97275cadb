"""What a run changes from step to step: what a checkpoint takes from it, and puts back."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scripts.training.plan import Plan
from scripts.training.random_states import random_states, restore_random_states


@dataclass
class Progress:
    """How far a run has come, in plain values.

    Args:
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

    rows: list[dict[str, float]] = field(default_factory=list)
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


class State:
    """Model, optimizers and their schedules, gradient scale, random number generators, and how far the run has come.

    Args:
        model: On the device.
        optimizers: Their learning rates are the peaks of the schedule.
        plan: What is to be done.
        device: Of the images.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], plan: Plan, device: torch.device
    ) -> None:
        self.model, self.optimizers, self.device = model, optimizers, device

        def factor(step: int) -> float:
            return plan.schedule(min(1.0, (step + 0.5) / plan.steps))

        self.schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
        self.scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == "float16")
        self.generator = torch.Generator().manual_seed(plan.seed)  # for the order of the images and their augmentation
        self.progress = Progress()

    def saved(self) -> dict[str, Any]:
        """All that it takes to go on: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "rng": random_states(self.device),
            "progress": {each.name: getattr(self.progress, each.name) for each in dataclasses.fields(Progress)},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Put everything back where it was.

        Raises:
            ValueError: If it is the state of another run.
        """
        try:
            self.model.load_state_dict(saved["model"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            for scheduler, state in zip(self.schedulers, saved["schedulers"], strict=True):
                scheduler.load_state_dict(state)
            self.scaler.load_state_dict(saved["scaler"])
            self.generator.set_state(saved["generator"])
            restore_random_states(saved["rng"], self.device)
            self.progress = Progress(**saved["progress"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError("the state is that of another run") from error
