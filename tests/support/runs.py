"""Small runs, and the parts of them that tests compare."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.data.datasets import Split
from scripts.data.mixing import Mix
from scripts.data.poses import POSES, UPRIGHT
from scripts.data.transforms import Augment, Normalise
from scripts.run.folder import RunFolder
from scripts.system.command_line import Options, as_flags, parse
from scripts.training import trainer as loop
from scripts.training.optimizers import Muon
from scripts.training.plan import Plan
from scripts.training.schedule import Schedule
from scripts.training.step import Outcome, cross_entropy, train_step
from scripts.training.trainer import Trainer
from tests.support.sources import ROOT
from tests.support.strategies import generator

# what forked processes find imported; torch imports the first two when a model is wrapped for several processes
PRELOADED = ["torch._dynamo", "torch.distributed.tensor.parallel.ddp", "tests.scripts.system.test_processes",
             "tests.scripts.system.test_elastic"]  # fmt: skip


def dots(count: int, seed: int) -> Split:
    """Dark images of class 0 and bright ones of class 1."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, 3, 4, 4), generator=generator(seed), dtype=torch.uint8)
    return Split(noise + (100 * labels).byte().view(-1, 1, 1, 1), labels)


def told_poses(network: nn.Module, images: Tensor, labels: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy, and a loss that depends on the pose of each image."""
    loss, logits = cross_entropy(network, images, labels, poses)
    return loss + 0.1 * (logits[:, 0] - poses.sum(1)).square().sum(), logits


PLAN = Plan(
    recipe="small", seed=0, lr=0.05, batch_size=8, epochs=3, steps=12, precision="float32", optimizer="sgd",
    schedule=Schedule(), augment=Augment(), normalise=Normalise((0.5,) * 3, (0.5,) * 3), image_size=(4, 4),
    train_images=30, test_images=14, classes=("dark", "bright"), poses=UPRIGHT,
)  # fmt: skip


def trainer(folder: RunFolder | Path, **changes: object) -> Trainer:
    """A linear layer that learns to classify dots.

    Args:
        folder: Its run folder.
        changes: Changes to its plan and to the other arguments of the trainer.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    settings: dict[str, Any] = {
        "plan": PLAN,
        "model": model,
        "predict": lambda x: (model(x), None),
        "describe": lambda extra: ({"extra_mean": extra.mean().item()}, f"mean {extra.mean():.3f}"),
        "optimizers": [torch.optim.SGD(model.parameters(), lr=0.05)],
        "train": dots(30, seed=1),
        "held_out": dots(14, seed=2),
        "held_out_name": "test",
        "folder": RunFolder.create(folder) if isinstance(folder, Path) else folder,
        "about": {"classes": ["dark", "bright"]},
    }
    planned = {field.name: changes.pop(field.name) for field in fields(Plan) if field.name in changes}
    settings |= changes
    plan = replace(settings["plan"], **({"train_images": len(settings["train"])} | planned))
    settings["plan"] = replace(plan, epochs=-(-plan.steps // plan.steps_an_epoch))
    return Trainer(**settings)


def run(folder: RunFolder | Path, seed: int = 0, dropout: float = 0.3, **changes: object) -> Trainer:
    """A run with randomness and state of all kinds: dropout, augmentation, poses, mixing, moments, averaged weights."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    optimizers = [
        Muon([model[0].weight, model[3].weight], lr=0.02, weight_decay=0.01, dtype=torch.float32),
        torch.optim.AdamW([model[0].bias, model[3].bias], lr=0.01),
        torch.optim.SGD(model[5].parameters(), lr=0.05, momentum=0.9),
    ]
    settings: dict[str, Any] = {
        "model": model, "predict": lambda x: (model(x), x[:, 0, 0]), "optimizers": optimizers, "steps": 11,
        "schedule": Schedule("linear", warm_up=0.3), "augment": Augment(mirror=True, shift=1), "poses": POSES["rts"],
        "objective": told_poses, "save_minutes": 1e-9, "clip": 5.0, "averaged": 0.7, "mix": Mix(mixup=0.3, cutmix=0.3),
    }  # fmt: skip
    return trainer(folder, **(settings | changes))


@contextmanager
def at_step(step: int, act: Callable[[], object], *, after: bool = False) -> Iterator[None]:
    """Call ``act`` before or after that step of a run."""
    count = 0

    def counted(*given: Any) -> Outcome:
        nonlocal count
        count += 1
        if count == step and not after:
            act()
        outcome = train_step(*given)
        if count == step and after:
            act()
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        yield


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Rows without the figures that depend on the machine: seconds, throughput and memory."""
    return [{name: row[name] for name in row if not re.search("second|memory", name)} for row in rows]


def log_without_times(path: Path) -> str:
    return re.sub(r", [\d.]+ s$", "", (path / "train.log").read_text(), flags=re.MULTILINE)


def flags(entry: type[Options], **given: object) -> Options:
    """Parsed flags, on the CPU and in float32 on any machine."""
    return parse(entry, "", as_flags({"device": "cpu", "precision": "float32", **given}))


@contextmanager
def full_disk(size: int = 64_000) -> Iterator[None]:
    """A limit on the size of a file, in bytes, stands in for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def terminated(arguments: Sequence[str], folder: Path, line: str) -> tuple[list[str], str, int]:
    """Run ``python -m``, terminate it once a line of output begins so, and return its lines, errors and exit code.

    It has as many threads as this process: another number sums in another order.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        printed = [""]
        while not printed[-1].startswith(line):
            printed.append(process.stdout.readline())
            assert printed[-1], process.communicate()[1]
        process.terminate()
        return printed, process.communicate()[1], process.returncode
