"""The arms of study ``compact``: what is each part of the recipe worth?

All train eight epochs, and differ from the recipe in that and in one thing.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from scripts.data.mixing import Mix
from scripts.recipes.vit import RECIPES, Options
from scripts.system.command_line import option
from scripts.training.plan import Recipe

COMPACT = dataclasses.replace(RECIPES["compact"], epochs=8)


def _network(**options: Any) -> Recipe:
    return dataclasses.replace(COMPACT, network={**COMPACT.network, **options})


def _augment(**changes: Any) -> Recipe:
    return dataclasses.replace(COMPACT, augment=dataclasses.replace(COMPACT.augment, **changes))


ARMS = {
    "compact": COMPACT,
    "no-convolutions": _network(stem=()),
    "adamw": dataclasses.replace(COMPACT, optimizer="adamw", lr=0.002),
    "no-average": dataclasses.replace(COMPACT, averaged=0.0),
    "no-label-smoothing": dataclasses.replace(COMPACT, label_smoothing=0.0),
    "shifted-and-cut": _augment(shift=4, cutout=12),
    "distorted": _augment(geometry=0.15, colour=0.3),
    "mixed": dataclasses.replace(COMPACT, mix=Mix(mixup=0.25, cutmix=0.25)),
    "patch-dropout": dataclasses.replace(_network(patch_dropout=0.5), whole_images=0.2),
    "sequence-pooling": _network(pool="sequence"),
    "two-layers": _network(depth=2),
}
RUNS = [(arm, "none") for arm in ARMS]


@dataclass(frozen=True)
class ArmOptions(Options):
    """Train one arm of the study."""

    recipe: str = option("compact", "which arm", choices=tuple(ARMS))
