"""The studies: the arms of each, in which poses they are trained, and the flags of ``make study``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scripts.recipes import stn_arms, vit_arms
from scripts.recipes.options import RunOptions
from scripts.system.command_line import option, path, whole
from scripts.training.plan import Recipe


class Study(NamedTuple):
    """What is compared.

    Args:
        arms: Recipes by name.
        runs: Arm and pose of every run, in the order in which they are trained and listed.
        options: The flags of a run.
    """

    arms: Mapping[str, Recipe]
    runs: Sequence[tuple[str, str]]
    options: type[RunOptions]


STUDIES = {
    "transformer": Study(stn_arms.ARMS, stn_arms.RUNS, stn_arms.ArmOptions),
    "compact": Study(vit_arms.ARMS, vit_arms.RUNS, vit_arms.ArmOptions),
}


@dataclass(frozen=True)
class Options:
    """Run a study: train every arm with several seeds, and print what was reached."""

    of: str = option(
        "transformer", "what is studied: when a spatial transformer helps, or what parts of recipe compact are worth",
        choices=tuple(STUDIES),
    )  # fmt: skip
    data: str = option("auto", "as in train_stn", type=path)
    out: str | None = option(
        None, "folder of the runs, by default runs/study-<of>; finished ones stay, an unfinished one is resumed",
        type=path,
    )  # fmt: skip
    seeds: int = option(3, "runs of every arm", type=whole(1))
    epochs: int | None = option(None, "passes over the training images instead of 8, for a trial", type=whole(1))
    limit_train: int | None = option(None, "use at most this many training images", type=whole(1))
    limit_test: int | None = option(None, "use at most this many test images", type=whole(1))
