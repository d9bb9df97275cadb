"""The arms of study ``transformer``: when does a spatial transformer help, and what makes it help?

All train the same way. The transformers stand in front of the same classifier; the plain network has no transformer
and is as much wider as makes it equal in parameters and in multiply-adds.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from scripts.recipes.options import RunOptions
from scripts.recipes.stn import UPRIGHT
from scripts.system.command_line import option
from scripts.training.plan import Recipe

PLAIN = dataclasses.replace(UPRIGHT, epochs=8, lr=0.08, network={"stem": 8, "widths": (26, 44, 68)})


def _behind(predicts: str, **options: Any) -> Recipe:
    """A recipe for the classifier behind a transformer."""
    network = {"stem": 8, "widths": (21, 38, 58), "localization": (6, (12, 22, 36)), "predicts": predicts}
    return dataclasses.replace(PLAIN, network=network | options)


def _angle(predicts: str = "angle", **options: Any) -> Recipe:
    """The kit's best, changed: it is told the angle, and a skip connection leads around the transformer."""
    return _behind(predicts, **{"skip": True} | options)


def _slow(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, localization_lr=0.1)


ARMS = {
    "plain": PLAIN,
    "affine": _behind("affine"),
    "affine-slow": _slow(_behind("affine")),
    "similarity": _behind("similarity"),
    "similarity-slow": _slow(_behind("similarity")),
    "similarity-prior": _behind("similarity", prior=1.0),
    "angle": _angle(),
    "angle-regressed": _angle(predicts="pose"),
    "angle-no-skip": _angle(skip=False),
    "angle-slow": _slow(_angle()),
    "angle-two-steps": _angle(steps=2),
    "angle-shared": _angle(shared=True),
    "angle-zeros": _angle(padding_mode="zeros"),
    "angle-mean": _angle(padding_mode="mean"),
    "angle-four-samples": _angle(samples=2),
}
COMPARED = ("plain", "angle", "affine", "similarity")
# what is trained in which poses: the comparison in all of them, the ablations where turns are largest
RUNS = [
    *((arm, pose) for pose in ("c8", "none", "rts") for arm in COMPARED),
    *((arm, "c8") for arm in ARMS if arm not in COMPARED),
    ("similarity-prior", "none"),
    ("angle-four-samples", "rts"),
]


@dataclass(frozen=True)
class ArmOptions(RunOptions):
    """Train one arm of the study."""

    recipe: str = option("plain", "which arm", choices=tuple(ARMS))
    no_transformer = False
