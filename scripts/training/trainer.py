"""The training loop: train an epoch, evaluate, write a row of metrics, save the last and the best checkpoint."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scripts.data.batches import resized, shuffled, training_batches
from scripts.data.datasets import Split
from scripts.run.folder import RunFolder, checkpoints
from scripts.system.devices import clock, peak_memory
from scripts.system.errors import Diverged, InputError, Stopped
from scripts.system.processes import ALONE, Processes
from scripts.system.signals import Asked, deferred
from scripts.system.terminal import say
from scripts.training.compiled import Compiled
from scripts.training.evaluation import Evaluation, views
from scripts.training.plan import Plan
from scripts.training.state import Progress, State
from scripts.training.step import Objective, autocast, cross_entropy, train_step

VERSION = 5  # of the content of checkpoints
MOST_SKIPPED = 10  # steps in a row; float16 skips a few at first, until its gradient scale fits
Predict = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def refuse_version(folder: Path, checkpoint: Mapping[str, Any] | None) -> None:
    """Raise InputError if another version of the kit wrote the checkpoint, where there is one."""
    if checkpoint is not None and (version := checkpoint.get("version", 1)) != VERSION:
        wanted = f"a checkpoint of version {VERSION}, as this kit writes; its version is {version}"
        raise InputError(f"--resume ({folder}) must hold {wanted}")


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains a model.

    Args:
        plan: How to train.
        model: On the device.
        objective: From the model as training calls it, images, labels and poses to the loss of a batch and the logits;
            None for the cross entropy with the label smoothing of the plan.
        predict: Forward pass for evaluation: images -> logits and a second output for each image; None if the model
            returns logits alone.
        describe: From all second outputs of ``predict`` to columns of metrics.csv and a line for the log.
        before_epoch: Called with the share of the run that is done, before an epoch or the rest of one.
        optimizers: Stepped together; their learning rates are the peaks of the schedule.
        train: Training images, on the device.
        held_out: Images evaluated after each epoch, on the device.
        held_out_name: ``test`` or ``validation``.
        save_minutes: Time between checkpoints within an epoch; one is also written after every epoch.
        processes: Share the work: every process has all images, and trains and evaluates on its share of each batch.
        folder: The run folder, written by the first process.
        about: Further plain values for the checkpoints.
    """

    plan: Plan
    model: nn.Module
    objective: Objective | None = None
    predict: Predict | None = None
    describe: Callable[[Tensor], tuple[dict[str, float], str]] | None = None
    before_epoch: Callable[[float], None] | None = None
    optimizers: Sequence[torch.optim.Optimizer]
    train: Split
    held_out: Split
    held_out_name: str = "test"
    save_minutes: float = 10.0
    processes: Processes = ALONE
    folder: RunFolder
    about: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, checkpoint: dict[str, Any] | None = None) -> list[dict[str, float]]:
        """Train to the end, from the beginning or from a checkpoint, and return the rows of metrics.csv.

        The model ends with its average where the plan wants one.

        Resumed from a checkpoint, one process on a CPU computes the same bits as an uninterrupted run. Several
        processes, or another number of them, compute the same within the error of summing in another order.

        Raises:
            Stopped: On Ctrl-C or SIGTERM, once the current step is saved.
            Diverged: If ten steps in a row were skipped, or a weight, a running statistic or the held-out loss is not
                finite.
            InputError: If the checkpoint belongs to another run or version of the kit.
        """
        state = self.begin() if checkpoint is None else self.resume(checkpoint)
        rows, done = state.progress.rows, state.progress.step
        self.processes.draw_apart(self.plan.seed, len(rows) * self.plan.steps_an_epoch + done)
        with deferred() as asked:
            while len(state.progress.rows) < self.plan.epochs:
                row = self.train_epoch(state, asked)
                with state.averaged():
                    row |= self.evaluate_epoch()
                row["peak_memory_mib"] = peak_memory(self.device)
                rows = state.progress.rows
                state.progress = Progress(rows=[*rows, row], skipped=state.progress.skipped)
                self.save(state, best=self._ends_with_the_best(state.progress.rows))
                if self.processes.any(bool(asked)):
                    self._stop(state, asked)
        if state.average is not None:
            self.model.load_state_dict(state.average.state_dict())
        return state.progress.rows

    def begin(self) -> State:
        """Return the state before the first step."""
        return State(self.model, self.optimizers, self.plan, self.device)

    def resume(self, checkpoint: dict[str, Any]) -> State:
        """Return the state of a checkpoint, and rewind log and metrics to it.

        Raises:
            InputError: If the checkpoint belongs to another run or version of the kit.
        """
        refuse_version(self.folder.path, checkpoint)
        state = self.begin()
        try:
            about = {name: checkpoint.get(name) for name in self.about}
            other = json.dumps(about, default=repr) != json.dumps({**self.about})
            if other or type(checkpoint.get("log_size")) is not int:
                raise ValueError("another run, or none")
            state.restore(checkpoint)
        except ValueError as error:
            wanted = "must hold a checkpoint of this run; it belongs to another"
            raise InputError(f"--resume ({self.folder.path}) {wanted}") from error
        self.folder.rewind(checkpoint["log_size"], state.progress.rows)
        if state.progress.step == 0 and self._ends_with_the_best(state.progress.rows):
            self.folder.checkpoint("best.pt", checkpoint)  # it may have died before this
        if self.processes.first:
            say(f"{self.folder.path} goes on after {state.progress.done}, processes: {self.processes.count}")
        return state

    def train_epoch(self, state: State, asked: Asked) -> dict[str, float]:
        """Train the rest of the current epoch, and return its loss, accuracy, time and throughput."""
        self.model.train()
        plan, progress, epoch = self.plan, state.progress, len(state.progress.rows) + 1
        if self.before_epoch is not None:
            self.before_epoch((epoch - 1) / plan.epochs)
        generator = state.generator
        if progress.step == 0:
            progress.lr = self.optimizers[0].param_groups[0]["lr"]
            progress.shuffle = generator.get_state()
            self.folder.log(f"Epoch {epoch}/{plan.epochs}, learning rate {progress.lr:.6g}")
        else:  # the order was drawn before the steps that are done
            assert progress.shuffle is not None
            generator = torch.Generator()
            generator.set_state(progress.shuffle)
        steps = min(plan.steps_an_epoch, plan.steps - (epoch - 1) * plan.steps_an_epoch)
        order = shuffled(self.train, plan.batch_size, generator)[progress.step : steps]
        batches = self.batches(order, state)
        started = clock(self.device) - progress.seconds
        saved, name = time.monotonic(), f"{epoch}/{plan.epochs}"
        quiet = None if self.processes.first else True  # None shows the bar only in a terminal
        with tqdm(batches, name, steps, initial=progress.step, leave=False, disable=quiet, unit="batch") as bar:
            for chosen, batch in zip(order, bar, strict=True):
                stop = self._step(state, batch, len(chosen), asked)
                if not bar.disable and progress.step % 10 == 0:
                    loss, accuracy = progress.means
                    bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2f}%")
                due = self.processes.first and time.monotonic() - saved > 60 * self.save_minutes
                if progress.step < steps and (stop or due):
                    progress.seconds, saved = clock(self.device) - started, time.monotonic()
                    self.save(state)
                    if stop:
                        self._stop(state, asked)
        seconds, (loss, accuracy) = clock(self.device) - started, progress.means
        hits = f"{progress.hits:.0f}/{progress.seen} ({accuracy:.2f}%)"
        self.folder.log(f"Train set: Average loss: {loss:.4f}, Accuracy: {hits}, {seconds:.1f} s")
        return {
            "epoch": epoch,
            "lr": progress.lr,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "train_seconds": seconds,
            "images_per_second": progress.seen / seconds,
        }

    def _step(self, state: State, batch: tuple[Tensor, Tensor, Tensor], count: int, asked: Asked) -> bool:
        """Make a step and count it, or log why it is skipped; return whether to stop after it.

        Raises:
            Diverged: If too many steps in a row are skipped.
        """
        progress = state.progress
        progress.step += 1
        outcome = train_step(state, self.network, self.loss, self.plan, self.processes, batch, count, asked)
        if not outcome.broken:
            progress.loss += outcome.loss
            progress.hits += outcome.hits
            progress.seen += count
            progress.skipped = 0
            return outcome.stop
        progress.skipped += 1
        where = f"step {progress.step} of epoch {len(progress.rows) + 1}"
        self.folder.log(f"WARNING: {where} is skipped: {outcome.broken}")
        if progress.skipped >= MOST_SKIPPED:
            raise Diverged(self._advised(f"{progress.skipped} steps in a row were skipped, up to {where}"))
        return outcome.stop

    @cached_property
    def network(self) -> nn.Module:
        """The model as training calls it: compiled if planned, and wrapped for several processes."""
        share = self.processes.share(min(self.plan.batch_size, len(self.train)))
        full = min(share.stop - share.start, self.plan.at_once)
        return self.processes.parallel(Compiled(self.model, full) if self.plan.compiled else self.model)

    @property
    def loss(self) -> Objective:
        """What is minimised."""
        return self.objective or partial(cross_entropy, label_smoothing=self.plan.label_smoothing)

    def batches(self, order: Iterable[Tensor], state: State) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Return this process's share of the batches of an order, as the plan changes and mixes them."""
        plan = self.plan
        prepare = self.prepare if plan.augment.size is None else plan.normalise  # crops come in their size
        return training_batches(
            self.train, order, prepare, plan.augment, state.generator, self.processes.share, plan.poses, plan.mix,
            len(plan.classes),
        )  # fmt: skip

    def evaluate(self, split: Split) -> Evaluation:
        """Evaluate the model on a split: logits are averaged over the views, and second outputs are of the first."""
        self.model.eval()
        self.processes.agree(self.model.buffers())  # running statistics, which each has of its share
        parts = []
        with torch.inference_mode(), autocast(self.device, self.plan.precision):
            mine = split[self.processes.share(len(split))]
            for images in mine.images.split(self.plan.at_once):
                seen = [self._predicted(self.prepare(view)) for view in views(images, self.plan)]
                (first, extra), *others = seen
                parts.append((sum((logits for logits, _ in others), first) / len(seen), extra))
        logits = self.processes.joined(torch.cat([logits for logits, _ in parts]), len(split))
        extras = [extra for _, extra in parts if extra is not None]
        extra = self.processes.joined(torch.cat(extras), len(split)) if extras else None
        return Evaluation(logits, split.labels, extra)

    def _predicted(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, extra = self.predict(images) if self.predict else (self.model(images), None)
        return logits.float(), extra

    def evaluate_epoch(self) -> dict[str, float]:
        """Evaluate the held-out images and log the result; return the columns of metrics.csv."""
        start = clock(self.device)
        result, name = self.evaluate(self.held_out), self.held_out_name
        seconds = clock(self.device) - start
        row = {f"{name}_loss": result.loss, f"{name}_accuracy": result.accuracy, f"{name}_seconds": seconds}
        averaged = "" if self.plan.tta == "none" else f", test-time augmentation: {self.plan.tta}"
        self.folder.log(result.line(name) + averaged)
        if self.describe is not None and result.extra is not None:
            columns, remark = self.describe(result.extra)
            row |= columns
            self.folder.log(remark)
        return row

    def prepare(self, images: Tensor) -> Tensor:
        """Resize and normalise uint8 images for the model."""
        return self.plan.normalise(resized(images, self.plan.image_size))

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.train.labels.device

    def save(self, state: State, best: bool = False) -> None:
        """Write last.pt, best.pt after the best epoch so far, and metrics.csv between epochs.

        Raises:
            Diverged: If a weight, a running statistic or the held-out loss is not finite; then nothing is written.
        """
        for name, weight in self.model.state_dict().items():
            if not weight.isfinite().all():
                raise Diverged(self._advised(f"{name} is not finite"))
        rows = state.progress.rows
        if rows and not math.isfinite(rows[-1][f"{self.held_out_name}_loss"]):  # then no prediction means anything
            raise Diverged(self._advised(f"the {self.held_out_name} loss is not finite"))
        checkpoint = {
            **self.about,
            "version": VERSION,
            "epoch": len(rows),
            "metrics": rows[-1] if rows else {},
            "log_size": self.folder.log_size,
            **state.saved(),
        }
        self.folder.keep(checkpoint)
        if best:  # after last.pt, so that it is of no epoch that is repeated; resume makes up for it
            self.folder.checkpoint("best.pt", checkpoint)
        if state.progress.step == 0:
            self.folder.metrics(rows)

    def _ends_with_the_best(self, rows: Sequence[dict[str, float]]) -> bool:
        """Whether the last epoch is better than all before it."""
        accuracy = f"{self.held_out_name}_accuracy"
        return bool(rows) and all(rows[-1][accuracy] > earlier[accuracy] for earlier in rows[:-1])

    def _stop(self, state: State, asked: Asked) -> NoReturn:
        by = asked.by or signal.SIGTERM  # if the signal reached another process
        raise Stopped(by, f"stopped by {by.name} after {state.progress.done}", str(self.folder.path))

    def _advised(self, what: str) -> str:
        advice = "lower --lr" if self.plan.precision == "float32" else "lower --lr, or use --precision float32"
        kept = f"the last checkpoint in {self.folder.path} is unchanged; " if checkpoints(self.folder.path) else ""
        return f"{what}; {kept}{advice}"
