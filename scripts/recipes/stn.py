"""Recipes for the spatial transformer network, and the flags of train_stn."""

import dataclasses
from dataclasses import dataclass

from scripts.data.transforms import Augment, Normalise
from scripts.recipes.options import RunOptions
from scripts.system.command_line import option
from scripts.training.plan import Recipe
from scripts.training.schedule import Schedule

UPRIGHT = Recipe(  # of every UprightCNN
    lr=0.02,
    batch_size=250,
    epochs=50,
    augment=Augment(mirror=True, shift=2),
    schedule=Schedule("linear", warm_up=0.1),
    label_smoothing=0.1,
    optimizer="muon",
)
RECIPES = {
    "tutorial": Recipe(
        lr=0.01,
        batch_size=256,
        epochs=50,
        network={"dropout": 0.5},
        normalise=Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        augment=Augment(),
        schedule=Schedule(),
        precision="float32",
        optimizer="sgd",
    ),
    "tuned": Recipe(
        lr=0.02,
        batch_size=128,
        epochs=50,
        network={"dropout": 0.0},
        augment=Augment(mirror=True, shift=2),
        schedule=Schedule("linear", warm_up=0.2),
        optimizer="muon",
    ),
    "small": dataclasses.replace(
        UPRIGHT, lr=0.08, network={"stem": 8, "widths": (16, 32, 40), "localization": (4, (7, 12, 12))}
    ),
    "strong": dataclasses.replace(
        UPRIGHT,
        lr=0.04,
        augment=Augment(mirror=True, shift=4, cutout=8),
        network={"stem": 24, "widths": (40, 96, 144), "localization": (12, (24, 44, 64))},
    ),
    "zoom": dataclasses.replace(
        UPRIGHT,
        batch_size=100,
        epochs=20,
        network={
            "stem": 8,
            "widths": (16, 32, 40),
            "localization": (8, (16, 16, 16)),
            "places": True,
            "predicts": "pose",
            "output_size": 32,
            "alone": (8, (18, 36, 47)),
        },
    ),
}


@dataclass(frozen=True)
class Options(RunOptions):
    """Train a spatial transformer network and write a report."""

    recipe: str = option("small", "how to train; tutorial is exactly the published run", choices=tuple(RECIPES))
    no_transformer: bool = option(False, "train the classifier alone, for comparison", type=bool)
