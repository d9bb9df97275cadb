"""What the data path costs: an epoch of the tutorial run against its bare forward, backward and step."""

import statistics
import time
from pathlib import Path

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn import functional as F

from scripts.batches import shuffled, training_batches
from scripts.data import Split
from scripts.models import STNClassifier
from scripts.run_folder import RunFolder
from scripts.signals import Asked
from scripts.train_stn import RECIPES
from scripts.training import Trainer

LIMIT = 1.1
IMAGES = 256 * 40


def test_an_epoch_costs_little_more_than_the_bare_steps(
    benchmark: BenchmarkFixture, device: torch.device, tmp_path: Path
) -> None:
    """Both in turn in every round, so that the machine's moods hit both; the median ratio counts."""
    benchmark.group = "epoch"
    recipe = RECIPES["tutorial"]
    assert recipe.normalise is not None
    torch.manual_seed(0)
    network = STNClassifier().to(device).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=device)
    split = Split(images, torch.randint(0, 10, (IMAGES,), device=device)).to(device)
    generator = torch.Generator().manual_seed(0)
    order = shuffled(split, recipe.batch_size, generator)
    ready = list(training_batches(split, order, recipe.normalise, recipe.augment, generator))
    optimizers = recipe.optimizers(network, recipe.lr)
    trainer = Trainer(
        model=network, predict=lambda x: (network(x), None), optimizers=optimizers, schedule=recipe.schedule,
        train=split, held_out=split, held_out_name="test", prepare=recipe.normalise, augment=recipe.augment,
        batch_size=recipe.batch_size, steps=400_000, precision="float32", seed=0,
        folder=RunFolder.create(tmp_path / "run"), about={},
    )  # fmt: skip
    ratios = []

    def bare() -> float:
        start = time.perf_counter()
        for x, y in ready:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = F.cross_entropy(network(x), y)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        loss.item()  # waits for the device
        return time.perf_counter() - start

    def round_of_both() -> None:
        bare_seconds = bare()
        progress = trainer.begin()
        progress.shuffle = progress.generator.get_state()
        ratios.append(trainer.train_epoch(progress, Asked())["train_seconds"] / bare_seconds)

    network.train()
    benchmark.pedantic(round_of_both, rounds=1 if benchmark.disabled else 9, warmup_rounds=1)
    ratio = statistics.median(ratios[1:] or ratios)
    benchmark.extra_info["epoch_over_bare_steps"] = ratio
    print(f"\nepoch / bare steps: median {ratio:.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")
    assert benchmark.disabled or ratio <= LIMIT
