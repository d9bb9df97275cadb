"""The overhead of a run over its bare training steps: the data path, and the checkpoint after an epoch."""

import statistics
from pathlib import Path

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn import functional as F

from scripts.data.batches import shuffled, training_batches
from scripts.data.datasets import Dataset, Split
from scripts.experiment import planned
from scripts.run.folder import RunFolder
from scripts.subjects.stn import subject
from scripts.system.command_line import parse
from scripts.system.devices import clock
from scripts.system.machine import Machine, this_machine
from scripts.system.signals import Asked
from scripts.train_stn import RECIPES, Options
from scripts.training.trainer import Trainer

LIMIT = 1.1  # of an epoch over its bare steps
CHECKPOINT_LIMIT = 0.01  # of an epoch of CIFAR-10
IMAGES = 256 * 40
CIFAR10_IMAGES = 50_000


def stn_trainer(recipe_name: str, device: torch.device, folder: Path) -> Trainer:
    """A run of train-stn on random images."""
    recipe = RECIPES[recipe_name]
    torch.manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=device)
    split = Split(images, torch.randint(0, 10, (IMAGES,), device=device)).to(device)
    options = parse(Options, "", ["--recipe", recipe_name, "--steps", "400000", "--precision", "float32"])
    dataset = Dataset("random", "random images", [str(digit) for digit in range(10)], split, split)
    plan = planned(recipe, options, dataset, split, this_machine(device))
    stn = subject(options, plan, device)
    return Trainer(
        plan=plan, model=stn.network, optimizers=stn.optimizers, train=split, held_out=split,
        folder=RunFolder.create(folder),
    )  # fmt: skip


def within(share: float, limit: float, machine: Machine) -> bool:
    """Whether a figure keeps a limit, which is a CPU's; on a GPU the figure is reported without a limit."""
    return machine.accelerated or share <= limit


def epoch_seconds(trainer: Trainer) -> float:
    return trainer.train_epoch(trainer.begin(), Asked())["train_seconds"]


def test_an_epoch_costs_little_more_than_the_bare_steps(
    benchmark: BenchmarkFixture, device: torch.device, tmp_path: Path
) -> None:
    """The median of the ratios of rounds, in which both alternate."""
    benchmark.group = "epoch"
    trainer = stn_trainer("tutorial", device, tmp_path / "run")
    generator = torch.Generator().manual_seed(0)
    order = shuffled(trainer.train, trainer.plan.batch_size, generator)
    batches = list(training_batches(trainer.train, order, trainer.prepare, trainer.plan.augment, generator))
    ratios = []

    def bare() -> float:
        start = clock(device)
        for x, y, _ in batches:
            for optimizer in trainer.optimizers:
                optimizer.zero_grad()
            F.cross_entropy(trainer.model(x), y).backward()
            for optimizer in trainer.optimizers:
                optimizer.step()
        return clock(device) - start

    def round_of_both() -> None:
        bare_seconds = bare()
        ratios.append(epoch_seconds(trainer) / bare_seconds)

    trainer.model.train()
    benchmark.pedantic(round_of_both, rounds=1 if benchmark.disabled else 9, warmup_rounds=1)
    ratio = statistics.median(ratios[1:] or ratios)
    benchmark.extra_info["epoch_over_bare_steps"] = ratio
    assert benchmark.disabled or within(ratio, LIMIT, this_machine(device)), f"from {min(ratios)} to {max(ratios)}"


def test_a_checkpoint_costs_less_than_one_percent_of_an_epoch(
    benchmark: BenchmarkFixture, device: torch.device, tmp_path: Path
) -> None:
    """All that is written after the best epoch so far: best.pt, last.pt with its hash, and metrics.csv."""
    benchmark.group = "checkpoint"
    trainer = stn_trainer("tuned", device, tmp_path / "run")
    if not benchmark.disabled:
        epoch_seconds(trainer)  # the first one is longer
    epoch = statistics.median(epoch_seconds(trainer) for _ in range(1 if benchmark.disabled else 3))
    epoch *= CIFAR10_IMAGES / IMAGES
    state = trainer.begin()
    state.progress.rows.append({"epoch": 1.0, "test_loss": 1.0, "test_accuracy": 50.0})
    seconds = []

    def checkpoint() -> None:
        start = clock(device)
        trainer.save(state, best=True)
        seconds.append(clock(device) - start)

    benchmark.pedantic(checkpoint, rounds=1 if benchmark.disabled else 50, warmup_rounds=1)
    share, size = statistics.median(seconds) / epoch, (trainer.folder.path / "last.pt").stat().st_size
    benchmark.extra_info |= {"checkpoint_bytes": size, "share_of_an_epoch": share}
    assert benchmark.disabled or within(share, CHECKPOINT_LIMIT, this_machine(device))
