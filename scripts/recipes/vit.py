"""Recipes for the Vision Transformer, and the flags of train_vit."""

import dataclasses
from dataclasses import dataclass

from scripts.data.transforms import Augment, Normalise
from scripts.recipes.options import RunOptions
from scripts.system.command_line import option, path
from scripts.training.plan import Recipe
from scripts.training.schedule import Schedule

FINETUNE = Recipe(
    network={"preset": "b16"},
    image_size=(224, 224),
    pretrained=True,
    lr=0.03,
    batch_size=512,
    epochs=103,
    steps=10_000,
    normalise=Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    augment=Augment(mirror=True, crop=0.05, size=224),
    schedule=Schedule("cosine", warm_up=500 / 10_000),
    clip=1.0,
    at_once=64,
    optimizer="sgd",
)
S14 = Recipe(  # DINOv2's small network, with 25 patches in training and 36 afterwards
    network={"preset": "s14", "stochastic_depth": 0.1, "patch_dropout": 0.5},
    whole_images=0.25,
    image_size=(84, 84),  # a random crop shows objects larger than an image does: https://arxiv.org/abs/1906.06423
    lr=5e-4,
    batch_size=128,
    epochs=12,
    normalise=Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    augment=Augment(mirror=True, crop=0.5, size=70),
    schedule=Schedule("linear", warm_up=0.1),
    label_smoothing=0.1,
    clip=1.0,
    optimizer="adamw",
)
RECIPES = {
    "compact": Recipe(
        network={"preset": "compact"},
        lr=0.01,
        batch_size=250,
        epochs=16,
        augment=Augment(mirror=True, shift=2),
        schedule=Schedule("linear", warm_up=0.1),
        label_smoothing=0.1,
        averaged=0.995,
        optimizer="muon",
    ),
    "lite": Recipe(
        network={"preset": "lite", "patch_dropout": 0.5},
        lr=0.006,
        batch_size=256,
        epochs=20,
        augment=Augment(mirror=True, shift=2),
        schedule=Schedule("linear", warm_up=0.1),
        compiled=True,
        optimizer="muon",
    ),
    "b16": Recipe(
        network={"preset": "b16", "dropout": 0.0},
        lr=0.008,
        batch_size=512,  # a step of Muon costs as much as 700 images
        epochs=10,
        augment=Augment(mirror=True, shift=2),
        schedule=Schedule("linear", warm_up=0.1),
        label_smoothing=0.1,
        compiled=True,
        optimizer="muon",
    ),
    "s14": S14,
    "s14-finetune": dataclasses.replace(S14, pretrained=True, optimizer="layered-adamw"),
    "b16-finetune": FINETUNE,
    "b16-finetune-500": dataclasses.replace(
        FINETUNE, epochs=6, steps=500, schedule=Schedule("cosine", warm_up=100 / 500)
    ),
}


@dataclass(frozen=True)
class Options(RunOptions):
    """Train a Vision Transformer and write a report."""

    recipe: str = option("compact", "which network to train, and how", choices=tuple(RECIPES))
    weights: str | None = option(
        None, "file to start from: .npz, .safetensors or .pt of any family (default: none)", type=path
    )
