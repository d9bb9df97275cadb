"""One loop for every run: train an epoch, evaluate, write a row, keep the last and the best checkpoint."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from scripts.batches import Augment, Prepare, evaluation_batches, training_batches
from scripts.data import Split
from scripts.errors import InputError
from scripts.run_folder import RunFolder

Predict = Callable[[Tensor], tuple[Tensor, Tensor | None]]


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


def one_cycle(warm_up: float) -> Callable[[float], float]:
    """Learning-rate factor at a share of the run: a linear rise over ``warm_up``, then a linear fall to zero."""
    return lambda done: min(done / warm_up, (1 - done) / (1 - warm_up))


def cosine(warm_up: float) -> Callable[[float], float]:
    """Learning-rate factor at a share of the run: a linear rise over ``warm_up``, then half a cosine down to zero."""
    return lambda done: min(done / warm_up, (1 + math.cos(math.pi * max(0.0, done - warm_up) / (1 - warm_up))) / 2)


def constant(done: float) -> float:
    """The learning rate never changes."""
    return 1.0


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
        bfloat16: Forward passes under bfloat16 autocast.
        seed: For the order of the images and their augmentation.
        folder: Where everything is written.
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
    bfloat16: bool
    seed: int
    folder: RunFolder
    about: dict[str, Any]

    def fit(self) -> list[dict[str, float]]:
        """Train all epochs and return the rows of metrics.csv."""
        generator = torch.Generator().manual_seed(self.seed)
        schedulers = self.schedulers()
        rows: list[dict[str, float]] = []
        for epoch in range(1, self.epochs + 1):
            lr = self.optimizers[0].param_groups[0]["lr"]
            self.folder.log(f"Epoch {epoch}/{self.epochs}, learning rate {lr:.6g}")
            row = {"epoch": epoch, "lr": lr, **self.train_epoch(epoch, generator, schedulers)}
            start = time.perf_counter()
            result = self.evaluate(self.held_out)
            row[f"{self.held_out_name}_loss"] = result.loss
            row[f"{self.held_out_name}_accuracy"] = result.accuracy
            row[f"{self.held_out_name}_seconds"] = time.perf_counter() - start
            self.folder.log(result.line(self.held_out_name))
            if self.describe is not None and result.extra is not None:
                columns, remark = self.describe(result.extra)
                row |= columns
                self.folder.log(remark)
            best = all(result.accuracy > earlier[f"{self.held_out_name}_accuracy"] for earlier in rows)
            rows.append(row)
            self._save(row, best)
        return rows

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
            for images, _ in evaluation_batches(split, self.prepare, self.at_once):
                logits, extra = self.predict(images)
                parts.append((logits.float(), extra))
        extras = [extra for _, extra in parts if extra is not None]
        return Evaluation(
            torch.cat([logits for logits, _ in parts]), split.labels, torch.cat(extras) if extras else None
        )

    def train_epoch(
        self, epoch: int, generator: torch.Generator, schedulers: Sequence[torch.optim.lr_scheduler.LRScheduler]
    ) -> dict[str, float]:
        """One pass over the training images: mean loss and accuracy while learning, seconds, images a second."""
        self.model.train()
        steps = min(self.steps_an_epoch, self.steps - (epoch - 1) * self.steps_an_epoch)
        batches = training_batches(self.train, self.batch_size, self.prepare, self.augment, generator)
        totals = torch.zeros(2, device=self.train.labels.device)  # loss and hits; stays there, so a GPU never waits
        seen, start = 0, time.perf_counter()
        name = f"{epoch}/{self.epochs}"
        with tqdm(islice(batches, steps), name, steps, leave=False, disable=None, unit="batch") as bar:
            for images, labels in bar:
                for optimizer in self.optimizers:
                    optimizer.zero_grad()
                for part, truth in zip(images.split(self.at_once), labels.split(self.at_once), strict=True):
                    with self._autocast():
                        logits = self.model(part)
                        loss = F.cross_entropy(logits, truth)
                    share = len(truth) / len(labels)
                    (loss * share).backward()
                    hits = (logits.detach().argmax(1) == truth).sum()
                    totals += torch.stack([loss.detach() * len(truth), hits])
                if self.clip is not None:
                    nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
                for optimizer, schedule in zip(self.optimizers, schedulers, strict=True):
                    optimizer.step()
                    schedule.step()
                seen += len(labels)
                if not bar.disable and bar.n % 10 == 0:
                    bar.set_postfix_str(f"loss {totals[0] / seen:.4f}, accuracy {100 * totals[1] / seen:.2f}%")
        loss_sum, correct = totals.tolist()
        seconds = time.perf_counter() - start
        if not loss_sum < float("inf"):
            raise InputError(f"the training loss of epoch {epoch} ({loss_sum / seen}) must be finite; lower --lr")
        row = {"train_loss": loss_sum / seen, "train_accuracy": 100 * correct / seen}
        self.folder.log(
            f"Train set: Average loss: {row['train_loss']:.4f}, Accuracy: {int(correct)}/{seen} "
            f"({row['train_accuracy']:.2f}%), {seconds:.1f} s"
        )
        return {**row, "train_seconds": seconds, "images_per_second": seen / seconds}

    def schedulers(self) -> list[torch.optim.lr_scheduler.LRScheduler]:
        """One for each optimizer, stepped after every batch."""

        def factor(step: int) -> float:
            return self.schedule(min(1.0, (step + 0.5) / self.steps))

        return [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in self.optimizers]

    def _autocast(self) -> torch.autocast:
        device = self.train.labels.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.bfloat16)

    def _save(self, row: dict[str, float], best: bool) -> None:
        state = {
            **self.about,
            "epoch": int(row["epoch"]),
            "metrics": row,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        self.folder.checkpoint("last.pt", state)
        if best:
            self.folder.checkpoint("best.pt", state)
        self.folder.metrics(row)
