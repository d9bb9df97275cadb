"""The data path: reading images, and preparing batches compared with the training step."""

import itertools
import shutil
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.measure.calls import CALLS
from benchmarks.measure.timing import interleaved, warm_up
from scripts.data.batches import channel_statistics, resized, shuffled, training_batches
from scripts.data.datasets import Split
from scripts.data.image_tree import SPLITS, read_image_tree
from scripts.data.poses import UPRIGHT
from scripts.models.vit import VisionTransformer
from scripts.subjects.stn import build
from scripts.system.machine import this_machine
from scripts.train_stn import RECIPES as STN_RECIPES
from scripts.train_vit import RECIPES as VIT_RECIPES

FEW = 2  # images in an untimed run, and of more than 32 pixels on a CPU
RECIPES = {**STN_RECIPES, **VIT_RECIPES}
TWINS = ("b16-finetune-500", "s14-finetune")  # their batches and steps are those of b16-finetune and s14


@pytest.mark.parametrize("reading", ["decoding", "cached"])
def test_reading_an_image_tree(benchmark: BenchmarkFixture, tmp_path: Path, reading: str) -> None:
    """JPEG files of 32 pixels, as CIFAR-10 is passed around: decoded the first time, then cached."""
    benchmark.group = "reading an image tree"
    count = FEW if benchmark.disabled else 500
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    for split, label in itertools.product(SPLITS, ("cat", "dog")):
        folder = tmp_path / "tree" / split / label
        folder.mkdir(parents=True)
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(folder / f"{i}.jpg")
    cache = tmp_path / "cache"
    read = partial(read_image_tree, tmp_path / "tree", cache)
    tree = read()
    assert tree.splits["train"][0].shape == (2 * count, 3, 32, 32)
    forget = partial(shutil.rmtree, cache) if reading == "decoding" else None
    benchmark.pedantic(read, setup=forget, rounds=1 if benchmark.disabled else 9)
    if not benchmark.disabled:
        benchmark.extra_info["images_per_second"] = 4 * count / benchmark.stats["median"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in TWINS])
def test_augmenting_and_feeding(benchmark: BenchmarkFixture, device: torch.device, name: str) -> None:
    """The batches of a recipe, and a step of its network, with AdamW for all; in turn in every round.

    On a CPU two images stand for a batch of large ones.
    """
    benchmark.group = "augmenting and feeding"
    recipe = RECIPES[name]
    side, _ = recipe.image_size or (32, 32)
    count = min(recipe.batch_size, recipe.at_once)
    if benchmark.disabled or (device.type == "cpu" and side > 32):
        count = FEW
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (count,))).to(device)
    normalise, generator = recipe.normalise or channel_statistics(split.images), torch.Generator().manual_seed(0)

    def prepare(batch: Tensor) -> Tensor:
        return normalise(resized(batch, (side, side)))

    def feed() -> Tensor:
        order = shuffled(split, count, generator)
        return next(training_batches(split, order, prepare, recipe.augment, generator, mix=recipe.mix, classes=10))[0]

    x = feed()
    assert x.shape == (count, 3, side, side)
    if name in VIT_RECIPES:
        network = VisionTransformer.from_preset(image_size=side, **recipe.network)
    else:
        network = build(recipe.network, 10, UPRIGHT, placed=False, transform=True).to(memory_format=torch.channels_last)
    dtype = getattr(torch, this_machine(device).precision(recipe.precision))
    calls = {"feed": feed, "step": CALLS["step"](network.to(device), x, dtype)}
    for call in calls.values():
        warm_up(call, device)
    benchmark.pedantic(feed, rounds=1 if benchmark.disabled else 5)
    if not benchmark.disabled:
        feeding, stepping = (statistics.median(times) for times in interleaved(calls, device, rounds=9).values())
        benchmark.extra_info |= {
            "images_per_second": count / feeding,
            "images_per_second_of_the_model_alone": count / stepping,
            "share_of_the_time": feeding / (feeding + stepping),
        }
