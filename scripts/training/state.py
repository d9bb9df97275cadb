"""The state of a run that changes from step to step, as checkpoints save and restore it."""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scripts.training.plan import Plan
from scripts.training.random_states import random_states, restore_random_states


@dataclass
class Progress:
    """The progress of a run; all but ``rows`` and ``skipped`` belong to the current epoch.

    Args:
        rows: Rows of metrics.csv, one for each finished epoch.
        lr: Learning rate at the start of the epoch.
        shuffle: Generator state at the start of the epoch, which determines the order of its images.
        step: Steps done, including skipped ones.
        loss: Sum of the losses; like ``hits`` and ``seen`` without the images of skipped steps.
        hits: Images classified correctly, as in ``Outcome``.
        seen: Images.
        skipped: Steps skipped in a row up to now.
        seconds: Time spent.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    lr: float = 0.0
    shuffle: Tensor | None = None
    step: int = 0
    loss: float = 0.0
    hits: float = 0.0
    seen: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy in percent so far in the epoch; NaN while every step has been skipped."""
        return (self.loss / self.seen, 100 * self.hits / self.seen) if self.seen else (math.nan, math.nan)

    @property
    def done(self) -> str:
        """How far the run is."""
        return f"{len(self.rows)} epochs and {self.step} steps"


class State:
    """Model, its average, optimizers with their schedules, gradient scaler, random number generators, and progress.

    Args:
        model: On the device.
        optimizers: Their learning rates are the peaks of the schedule.
        plan: The plan of the run.
        device: The device of the images.
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
        self.decay, self.averaged_steps = plan.averaged, 0
        self.average = copy.deepcopy(model) if self.decay else None

    def update_average(self) -> None:
        """Count weights and running statistics in, if the plan wants an average; counters are as in training.

        The first steps are forgotten sooner than the decay alone would. torch's ``AveragedModel`` does the same, and
        waits for a GPU in every step.
        """
        if self.average is None:
            return
        done = self.averaged_steps
        kept = min(self.decay, (1 + done) / (10 + done)) if done else 0.0
        averaged, current = (
            [value.detach() for value in (*each.parameters(), *each.buffers()) if value.is_floating_point()]
            for each in (self.average, self.model)
        )
        get_ema_multi_avg_fn(kept)(averaged, current, done)
        for counter, now in zip(self.average.buffers(), self.model.buffers(), strict=True):
            if not counter.is_floating_point():
                counter.copy_(now)
        self.averaged_steps += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have its average inside, where there is one."""
        if self.average is None:
            yield
            return
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.state_dict())
        try:
            yield
        finally:
            self.model.load_state_dict(trained)

    def saved(self) -> dict[str, Any]:
        """Return the state as tensors and plain values; ``model`` is what is evaluated."""
        averaged = {}
        if self.average is not None:
            averaged = {"trained": self.model.state_dict(), "averaged_steps": self.averaged_steps}
        return {
            "model": (self.model if self.average is None else self.average).state_dict(),
            **averaged,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "rng": random_states(self.device),
            "progress": {each.name: getattr(self.progress, each.name) for each in dataclasses.fields(Progress)},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: If the state does not fit model and optimizers.
        """
        try:
            self.model.load_state_dict(saved["model"] if self.average is None else saved["trained"])
            if self.average is not None:
                self.average.load_state_dict(saved["model"])
                self.averaged_steps = int(saved["averaged_steps"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            for scheduler, state in zip(self.schedulers, saved["schedulers"], strict=True):
                scheduler.load_state_dict(state)
            self.scaler.load_state_dict(saved["scaler"])
            self.generator.set_state(saved["generator"])
            restore_random_states(saved["rng"], self.device)
            self.progress = Progress(**saved["progress"])
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError("the state belongs to another run") from error
