"""The learning-rate range test: train for some hundred steps while the rate rises, and see what the loss does.

    rate of step i = lr 10^(-3 + 6 (i + 1/2) / 300)

Every parameter group keeps its ratio to ``lr``, as in a run.

Source: "Cyclical Learning Rates for Training Neural Networks", Smith 2015 (https://arxiv.org/abs/1506.01186), section
3.3; exponential and with an end at four times the least loss, as in fastai and Lightning.

Convention: these smooth by a running mean, which lags, and suggest the rate where the loss falls fastest. That place
depends on the noise: where the loss explodes at the end, single steps fall fastest. Here a loss is the median of the 17
steps around it, which does not lag and which no single step moves, and the suggestion is a level, not a slope.
"""

import dataclasses
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor
from tqdm import tqdm

from scripts.data.batches import shuffled
from scripts.system.errors import Stopped
from scripts.system.signals import deferred
from scripts.training.schedule import Schedule
from scripts.training.state import State
from scripts.training.step import train_step
from scripts.training.trainer import MOST_SKIPPED, Trainer

STEPS = 300
LOWEST, HIGHEST = 1e-3, 1e3  # times the learning rate of the plan
NEIGHBOURS = 8  # steps on either side whose losses a smoothed loss is the median of; a third of a power of ten
DIVERGED = 4.0  # times the least smoothed loss
FALLEN = 0.8  # share of the fall of the loss that is done at the suggested rate
LEAST_FALL = 0.05  # of the first loss, to suggest anything


class Rise(Schedule):
    """The exponential rise from ``LOWEST`` to ``HIGHEST``."""

    def __call__(self, done: float) -> float:
        """Return the factor."""
        return LOWEST * float((HIGHEST / LOWEST) ** done)


@dataclass(frozen=True)
class RangeTest:
    """The rates and losses of all steps that were made.

    Args:
        rates: Learning rate of each step, in the unit of ``--lr``.
        losses: What was minimised, the mean over the batch.
        diverged_at: The rate at which the test was ended because the loss diverged; None if it did not.
    """

    rates: list[float]
    losses: list[float]
    diverged_at: float | None

    @property
    def smoothed(self) -> list[float]:
        """For each step the median of the losses around it."""
        return smoothed(self.losses)

    @property
    def least(self) -> int:
        """The step with the least smoothed loss."""
        smooth = self.smoothed
        return smooth.index(min(smooth))

    @property
    def suggestion(self) -> float | None:
        """The rate at which four fifths of the fall of the smoothed loss are done; None if it hardly falls."""
        if not self.losses:
            return None
        smooth = self.smoothed
        first, fall = smooth[0], smooth[0] - min(smooth)
        if fall < LEAST_FALL * first:
            return None
        return next(rate for rate, loss in zip(self.rates, smooth, strict=True) if loss <= first - FALLEN * fall)


def range_test(trainer: Trainer) -> RangeTest:
    """Train while the rate rises, until the loss diverges. Nothing is saved, evaluated or logged.

    Args:
        trainer: Of a run that has not begun. Its model and optimizers cannot be used afterwards.

    Raises:
        Stopped: On Ctrl-C or SIGTERM, after the current step.
    """
    plan = dataclasses.replace(trainer.plan, schedule=Rise(), steps=STEPS)
    state = State(trainer.model, trainer.optimizers, plan, trainer.device)
    trainer.processes.draw_apart(plan.seed, 0)
    trainer.model.train()
    rates: list[float] = []
    losses: list[float] = []
    skipped, quiet = 0, None if trainer.processes.first else True
    with deferred() as asked, tqdm(total=STEPS, leave=False, disable=quiet, unit="batch") as bar:
        for count, batch in batches(trainer, state):
            rate = plan.lr * plan.schedule((len(rates) + 0.5) / STEPS)
            outcome = train_step(state, trainer.network, trainer.loss, plan, trainer.processes, batch, count, asked)
            if outcome.stop:
                by = asked.by or signal.SIGTERM  # if the signal reached another process
                raise Stopped(by, f"stopped by {by.name} after {len(rates)} steps of the range test; nothing is kept")
            skipped = skipped + 1 if outcome.broken else 0
            if skipped == MOST_SKIPPED:
                return RangeTest(rates, losses, rate)
            if outcome.broken:  # float16 skips a few at first; the rate does not rise
                continue
            rates.append(rate)
            losses.append(outcome.loss / count)
            bar.update()
            if _diverged(smoothed(losses)):
                return RangeTest(rates, losses, rates[-1])
            if len(rates) == STEPS:
                break
    return RangeTest(rates, losses, None)


def smoothed(losses: Sequence[float]) -> list[float]:
    """For each step the median of the losses around it."""
    return [median(losses[max(0, i - NEIGHBOURS) : i + NEIGHBOURS + 1]) for i in range(len(losses))]


def _diverged(smooth: Sequence[float]) -> bool:
    """Whether the last losses are above the first one and far above the least."""
    return smooth[-1] > max(DIVERGED * min(smooth), smooth[0])


def batches(trainer: Trainer, state: State) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """Yield the batches of a run without end, each with its size in all processes."""
    while True:
        order = shuffled(trainer.train, trainer.plan.batch_size, state.generator)
        yield from zip(map(len, order), trainer.batches(order, state), strict=True)
