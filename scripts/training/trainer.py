"""One loop for every run: train an epoch, evaluate, write a row, keep the last and the best checkpoint."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from scripts.data.batches import Prepare, evaluation_batches, shuffled, training_batches
from scripts.data.datasets import Split
from scripts.data.transforms import Augment
from scripts.run.folder import RunFolder
from scripts.system.devices import clock, peak_memory
from scripts.system.errors import Diverged, InputError, Stopped
from scripts.system.processes import ALONE, Processes
from scripts.system.signals import Asked, deferred
from scripts.training.compiled import Compiled
from scripts.training.evaluation import Evaluation
from scripts.training.progress import KEPT, Progress
from scripts.training.random_states import random_states, restore_random_states

VERSION = 3  # of what a checkpoint and the rows in it hold
MOST_SKIPPED = 10  # steps in a row; float16 needs a few until its scale has fallen far enough
Predict = Callable[[Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything a run needs.

    Args:
        model: On the device.
        predict: Forward pass for evaluation: images -> logits and, where the model has it, something to describe.
        describe: From all that ``predict`` reported to columns of metrics.csv and what the log says of them.
        optimizers: Stepped together; their learning rates are the peaks of ``schedule``.
        schedule: Learning-rate factor at a share of the run from 0 to 1.
        clip: Largest norm of all gradients together; a longer gradient is shortened to it.
        train: The images trained on, on the device.
        held_out: The images evaluated each epoch, on the device.
        held_out_name: What those are, ``test`` or ``validation``.
        prepare: From uint8 images to what the model takes.
        batch_size: Images a step.
        at_once: Most images in one forward pass: a larger batch adds up the gradients of its parts.
        steps: Length of the run. An epoch is one pass over the training images; the last one may be cut short.
        precision: Type of the forward passes, under autocast: float32, bfloat16 or float16.
        compiled: Whether training passes of whole batches go through ``torch.compile``; evaluation never does.
        seed: For the order of the images and their augmentation.
        save_minutes: A checkpoint is written after every epoch, and within one so often.
        processes: That share the work. Every one has all images, and evaluates and trains on its share of each batch.
        folder: Where everything is written, by the first of them.
        about: Kept in the checkpoints beside the weights: plain values alone.
    """

    model: nn.Module
    predict: Predict
    describe: Callable[[Tensor], tuple[dict[str, float], str]] | None = None
    optimizers: Sequence[torch.optim.Optimizer]
    schedule: Callable[[float], float]
    clip: float | None = None
    train: Split
    held_out: Split
    held_out_name: str
    prepare: Prepare
    augment: Augment
    batch_size: int
    at_once: int = 1000
    steps: int
    precision: str
    compiled: bool = False
    seed: int
    save_minutes: float = 10.0
    processes: Processes = ALONE
    folder: RunFolder
    about: dict[str, Any]

    def fit(self, checkpoint: dict[str, Any] | None = None) -> list[dict[str, float]]:
        """Train to the end, from the beginning or from a checkpoint, and return the rows of metrics.csv.

        From a checkpoint one process on a CPU makes the same numbers as if the run had never been stopped; several, or
        another number of them, come as near as sums in another order.

        Raises:
            Stopped: On Ctrl-C or a request to terminate, once the step under way is saved.
            Diverged: If ten steps in a row had to be skipped, or a weight is not finite.
            InputError: If the checkpoint is of another version of the kit.
        """
        progress = self.begin() if checkpoint is None else self.restore(checkpoint)
        self.processes.draw_apart(self.seed, len(progress.rows) * self.steps_an_epoch + progress.step)
        with deferred() as asked:
            while len(progress.rows) < self.epochs:
                if progress.step == 0:
                    progress.lr = self.optimizers[0].param_groups[0]["lr"]
                    progress.shuffle = progress.generator.get_state()
                    self.folder.log(f"Epoch {len(progress.rows) + 1}/{self.epochs}, learning rate {progress.lr:.6g}")
                row = {"epoch": len(progress.rows) + 1, "lr": progress.lr, **self.train_epoch(progress, asked)}
                row |= self._held_out_columns()
                row["peak_memory_mib"] = peak_memory(self.device)
                accuracy = f"{self.held_out_name}_accuracy"
                best = all(row[accuracy] > earlier[accuracy] for earlier in progress.rows)
                progress = Progress(
                    progress.generator, progress.schedulers, progress.scaler, [*progress.rows, row],
                    skipped=progress.skipped,
                )  # fmt: skip
                if best:  # before last.pt: if it ends in between, the epoch is done once more
                    self.folder.checkpoint("best.pt", self.state(progress))
                self.save(progress)
                if self.processes.any(bool(asked)) and len(progress.rows) < self.epochs:
                    self._stop(progress, asked)
        return progress.rows

    def begin(self) -> Progress:
        """Nothing is done yet."""
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        return Progress(torch.Generator().manual_seed(self.seed), self.schedulers(), scaler, [])

    def state(self, progress: Progress) -> dict[str, Any]:
        """All that it takes to go on: tensors and plain values.

        Raises:
            Diverged: If a weight is not finite.
        """
        for name, weight in self.model.named_parameters():
            if not weight.isfinite().all():
                raise Diverged(self._astray(f"{name} is not finite"))
        return {
            **self.about,
            "version": VERSION,
            "epoch": len(progress.rows),
            "metrics": progress.rows[-1] if progress.rows else {},
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in progress.schedulers],
            "scaler": progress.scaler.state_dict(),
            "generator": progress.generator.get_state(),
            "rng": random_states(self.device),
            "log_size": self.folder.log_size,
            **{name: getattr(progress, name) for name in KEPT},
        }

    def restore(self, checkpoint: dict[str, Any]) -> Progress:
        """Put model, optimizers and random number generators back, and return how far the run had come.

        Raises:
            InputError: If the checkpoint is that of another run, or of another version of the kit.
        """
        if (version := checkpoint.get("version", 1)) != VERSION:
            wanted = f"a run of this version of the kit ({VERSION}); its checkpoint is of version {version}"
            raise InputError(f"--resume ({self.folder.path}) must be {wanted}")
        progress = self.begin()
        try:
            self.model.load_state_dict(checkpoint["model"])
            for optimizer, state in zip(self.optimizers, checkpoint["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            for scheduler, state in zip(progress.schedulers, checkpoint["schedulers"], strict=True):
                scheduler.load_state_dict(state)
            progress.scaler.load_state_dict(checkpoint["scaler"])
            progress.generator.set_state(checkpoint["generator"])
            restore_random_states(checkpoint["rng"], self.device)
            kept = {name: checkpoint[name] for name in KEPT}
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            wanted = "must hold a checkpoint of this run; it is that of another"
            raise InputError(f"--resume ({self.folder.path}) {wanted}") from error
        self.folder.rewind(checkpoint["log_size"], checkpoint["rows"])
        return dataclasses.replace(progress, **kept)

    def save(self, progress: Progress) -> None:
        """Write last.pt and, between epochs, metrics.csv."""
        self.folder.keep(self.state(progress))
        if progress.step == 0:
            self.folder.metrics(progress.rows)

    def _stop(self, progress: Progress, asked: Asked) -> NoReturn:
        by = asked.by or signal.SIGTERM  # it reached another process alone
        where = f"stopped by {by.name} after {len(progress.rows)} epochs and {progress.step} steps"
        raise Stopped(by, where, str(self.folder.path))

    def _held_out_columns(self) -> dict[str, float]:
        """Evaluate the held-out images, and say so in the log."""
        start = clock(self.device)
        result, name = self.evaluate(self.held_out), self.held_out_name
        seconds = clock(self.device) - start
        row = {f"{name}_loss": result.loss, f"{name}_accuracy": result.accuracy, f"{name}_seconds": seconds}
        self.folder.log(result.line(name))
        if self.describe is not None and result.extra is not None:
            columns, remark = self.describe(result.extra)
            row |= columns
            self.folder.log(remark)
        return row

    @property
    def device(self) -> torch.device:
        """Where the images are, and all that is made of them."""
        return self.train.labels.device

    @property
    def steps_an_epoch(self) -> int:
        """Batches in one pass over the training images, the last of them full or not."""
        return -(-len(self.train) // self.batch_size)

    @property
    def epochs(self) -> int:
        """Passes over the training images, the last of them whole or not."""
        return -(-self.steps // self.steps_an_epoch)

    def evaluate(self, split: Split) -> Evaluation:
        """Run the model over a split without training it."""
        self.model.eval()
        parts = []
        with torch.inference_mode(), self._autocast():
            for images, _ in evaluation_batches(split[self.processes.share(len(split))], self.prepare, self.at_once):
                logits, extra = self.predict(images)
                parts.append((logits.float(), extra))
        logits = self.processes.joined(torch.cat([logits for logits, _ in parts]), len(split))
        extras = [extra for _, extra in parts if extra is not None]
        return Evaluation(
            logits, split.labels, self.processes.joined(torch.cat(extras), len(split)) if extras else None
        )

    def train_epoch(self, progress: Progress, asked: Asked) -> dict[str, float]:
        """What remains of one pass over the training images: mean loss and accuracy while learning, seconds, speed."""
        self.model.train()
        epoch = len(progress.rows) + 1
        steps = min(self.steps_an_epoch, self.steps - (epoch - 1) * self.steps_an_epoch)
        order = self._order(progress)[progress.step : steps]
        batches = training_batches(
            self.train, order, self.prepare, self.augment, progress.generator, self.processes.share
        )
        started = clock(self.device) - progress.seconds
        saved, name = time.monotonic(), f"{epoch}/{self.epochs}"
        quiet = None if self.processes.first else True  # None: where there is no terminal
        with tqdm(batches, name, steps, initial=progress.step, leave=False, disable=quiet, unit="batch") as bar:
            for chosen, (images, labels) in zip(order, bar, strict=True):
                progress.step += 1
                stop = self._train_step(progress, images, labels, len(chosen), asked)
                if not bar.disable and bar.n % 10 == 0:
                    loss, accuracy = progress.means
                    bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2f}%")
                due = self.processes.first and time.monotonic() - saved > 60 * self.save_minutes
                if progress.step < steps and (stop or due):
                    progress.seconds, saved = clock(self.device) - started, time.monotonic()
                    self.save(progress)
                    if stop:
                        self._stop(progress, asked)
        seconds, (loss, accuracy) = clock(self.device) - started, progress.means
        self.folder.log(
            f"Train set: Average loss: {loss:.4f}, Accuracy: {progress.hits}/{progress.seen} "
            f"({accuracy:.2f}%), {seconds:.1f} s"
        )
        return {
            "train_loss": loss,
            "train_accuracy": accuracy,
            "train_seconds": seconds,
            "images_per_second": progress.seen / seconds,
        }

    def _order(self, progress: Progress) -> tuple[Tensor, ...]:
        """The batches of the epoch under way as positions, also when part of it is done."""
        assert progress.shuffle is not None
        generator = torch.Generator()
        generator.set_state(progress.shuffle)
        order = shuffled(self.train, self.batch_size, generator)
        if progress.step == 0:
            progress.generator.set_state(generator.get_state())
        return order

    def _train_step(self, progress: Progress, images: Tensor, labels: Tensor, count: int, asked: Asked) -> bool:
        """One step of the optimizers, skipped if the loss or a gradient is not finite.

        Args:
            progress: Goes on by it.
            images: This process's share of the batch, also if it is none.
            labels: Theirs.
            count: Images in the whole batch.
            asked: Whether this process is to stop.

        Returns:
            Whether any process is: all stop after the same step.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        totals = torch.zeros(3, device=labels.device)
        parts = list(zip(images.split(self.at_once), labels.split(self.at_once), strict=True))
        for number, (part, truth) in enumerate(parts, start=1):
            with self.processes.accumulating(self._parallel) if number < len(parts) else nullcontext():
                with self._autocast():
                    logits = self._parallel(part)
                loss = F.cross_entropy(logits.float(), truth, reduction="sum")
                # the mean over the processes of these sums is the mean over the batch, whatever their shares
                progress.scaler.scale(loss * (self.processes.count / count)).backward()
            hits = (logits.detach().argmax(1) == truth).sum()
            totals[:2] += torch.stack([loss.detach(), hits])
        for optimizer in self.optimizers:
            progress.scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([weight.grad for weight in self.model.parameters() if weight.grad is not None])
        totals[2].fill_(bool(asked))  # an assignment would copy it there, and wait
        # before the step, or it could not be skipped: the one time in a step that a GPU is waited for
        loss_sum, correct, stop, length = torch.stack([*self.processes.total(totals), norm]).tolist()
        if math.isfinite(loss_sum) and math.isfinite(length):
            if self.clip is not None:
                nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip, norm)
            for optimizer, scheduler in zip(self.optimizers, progress.schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            progress.loss += loss_sum
            progress.hits += int(correct)
            progress.seen += count
            progress.skipped = 0
        else:
            self._skip(progress, loss_sum / count)
        progress.scaler.update()
        return bool(stop)

    @cached_property
    def _parallel(self) -> nn.Module:
        share = self.processes.share(min(self.batch_size, len(self.train)))
        whole = min(share.stop - share.start, self.at_once)
        return self.processes.parallel(Compiled(self.model, whole) if self.compiled else self.model)

    def _skip(self, progress: Progress, loss: float) -> None:
        """Say why a step is not made.

        Raises:
            Diverged: If it is one too many.
        """
        progress.skipped += 1
        found = [
            name
            for name, weight in self.model.named_parameters()
            if weight.grad is not None and not weight.grad.isfinite().all()
        ]
        others = f" and {len(found) - 1} others" if len(found) > 1 else ""
        what = f"the gradient of {found[0]}{others}" if found else "the loss or the norm of all gradients"
        scale = f", gradient scale {progress.scaler.get_scale():g}" if progress.scaler.is_enabled() else ""
        where = f"step {progress.step} of epoch {len(progress.rows) + 1}"
        self.folder.log(f"WARNING: {where} is skipped: {what} is not finite (loss {loss:.4g}{scale})")
        if progress.skipped >= MOST_SKIPPED:
            raise Diverged(self._astray(f"{progress.skipped} steps in a row were skipped, up to {where}"))

    def _astray(self, what: str) -> str:
        advice = "lower --lr" if self.precision == "float32" else "lower --lr, or use --precision float32"
        return f"{what}; the last checkpoint in {self.folder.path} was left as it was; {advice}"

    def schedulers(self) -> list[torch.optim.lr_scheduler.LRScheduler]:
        """One for each optimizer, stepped after every batch."""

        def factor(step: int) -> float:
            return self.schedule(min(1.0, (step + 0.5) / self.steps))

        return [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in self.optimizers]

    def _autocast(self) -> torch.autocast:
        device = self.device.type
        return torch.autocast(device, dtype=getattr(torch, self.precision), enabled=self.precision != "float32")
