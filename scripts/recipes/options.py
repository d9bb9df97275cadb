"""The flags that both training scripts share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.system.command_line import fraction, names_given, option, overrides, path, positive, whole
from scripts.training.plan import Recipe

AUTO = "auto"  # of --resume: go on with the run in --out, or start it there; else what suits data and machine


@dataclass(frozen=True)
class RunOptions:
    """The flags of a run.

    Args:
        changes: Settings of the recipe that flags override, by name.
        given: Names of the flags on the command line.
    """

    recipe: str = option("", "how to train")
    data: str = option(
        "auto", "auto, cifar10, digits, or a folder {train,test}/<class>/ of images; cluttered:digits and so on puts "
        "these at random places among distractors, and cluttered is short for that", type=path,
    )  # fmt: skip
    changes: Mapping[str, Any] = overrides(Recipe)
    seed: int = option(1, "for weights, order and augmentation", type=whole(0))
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    compile: str = option(
        "auto",
        "compile the network for training; auto compiles where measurements showed a gain",
        choices=("auto", "yes", "no"),
    )
    find_lr: bool = option(
        False, "only find a learning rate: raise it for some hundred steps, and plot the loss against it", type=bool
    )
    tensorboard: bool = option(
        False, "write metrics and figures as an event file of TensorBoard too, into the run folder", type=bool
    )
    validation: float | None = option(
        None, "share of the training images held out to choose the best checkpoint (default: the test set chooses)",
        type=fraction,
    )  # fmt: skip
    limit_train: int | None = option(None, "use at most this many training images", type=whole(1))
    limit_test: int | None = option(None, "use at most this many test images", type=whole(1))
    save_minutes: float = option(10.0, "time between checkpoints within an epoch, in minutes", type=positive)
    resume: str | None = option(
        None, "run folder of an unfinished run to resume, with no other flag; auto: the run in --out, which is "
        "started if there is none", type=path,
    )  # fmt: skip
    out: str | None = option(
        None, "run folder, new or empty (default: runs/<data>-<recipe>-seed<seed>-<time>)", type=path
    )
    given: frozenset[str] = names_given()
