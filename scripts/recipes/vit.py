"""How a Vision Transformer is trained, and the flags of its entry."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from scripts.data.transforms import Augment, Normalise
from scripts.recipes.recipe import Recipe, RunOptions
from scripts.recipes.schedules import cosine, one_cycle
from scripts.system.command_line import option


@dataclass(frozen=True, kw_only=True)
class ViTRecipe(Recipe):
    """How to train a Vision Transformer.

    Args:
        preset: Which one, of ``PRESETS``.
        options: What of the preset is changed.
        image_size: Side in pixels that images are resized to; None for their own size.
        pretrained: Whether it makes no sense without weights to start from.
    """

    preset: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int | None = None
    pretrained: bool = False


FINETUNE = ViTRecipe(
    preset="b16",
    image_size=224,
    pretrained=True,
    lr=0.03,
    batch_size=512,
    epochs=103,
    steps=10_000,
    normalise=Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    augment=Augment(mirror=True, crop=0.05, size=224),
    schedule=cosine(warm_up=500 / 10_000),
    clip=1.0,
    at_once=64,
    optimizer="sgd",
)
RECIPES = {
    "lite": ViTRecipe(
        preset="lite",
        options={"patch_dropout": 0.5},
        lr=0.006,
        batch_size=256,
        epochs=20,
        augment=Augment(mirror=True, shift=2),
        schedule=one_cycle(warm_up=0.1),
        compiled=True,
        optimizer="muon",
    ),
    "b16": ViTRecipe(
        preset="b16",
        options={"dropout": 0.0},
        lr=3e-4,
        batch_size=128,
        epochs=10,
        augment=Augment(mirror=True, shift=2),
        schedule=one_cycle(warm_up=0.2),
        clip=1.0,
        compiled=True,
        optimizer="adamw",
    ),
    "b16-finetune": FINETUNE,
    "b16-finetune-500": dataclasses.replace(FINETUNE, epochs=6, steps=500, schedule=cosine(warm_up=100 / 500)),
}


@dataclass(frozen=True)
class Options(RunOptions):
    """Train a Vision Transformer and write a report."""

    recipe: str = option("lite", "what to train, and how", choices=tuple(RECIPES))
    weights: str | None = option(None, "file to start from: .npz, .safetensors or .pt of any family (default: none)")
