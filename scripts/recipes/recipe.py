"""What a person may ask of a run, and how a network is trained: flags and recipes, as plain values.

Nothing here needs torch, so that ``--help`` and a wrong flag are answered before it is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scripts.data.transforms import Augment, Normalise
from scripts.system.command_line import option, positive, share, whole


@dataclass(frozen=True)
class RunOptions:
    """The flags of every run."""

    recipe: str = option("", "how to train")
    data: str = option("auto", "auto, cifar10, digits, or a folder {train,test}/<class>/*.{png,jpg}")
    epochs: int | None = option(None, "passes over the training images (default: the recipe's)", type=whole(1))
    steps: int | None = option(None, "length of the run in steps, instead of --epochs", type=whole(1))
    seed: int = option(1, "for weights, order and augmentation", type=whole(0))
    batch_size: int | None = option(None, "images a step (default: the recipe's)", type=whole(1))
    at_once: int | None = option(
        None, "most images in one forward pass: less memory, the same result (default: the recipe's)", type=whole(1)
    )
    lr: float | None = option(None, "highest learning rate (default: the recipe's)", type=positive)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: str | None = option(
        None, "of the forward pass; auto is bfloat16 where the device is fast at it, else float32 (default: the "
        "recipe's)", choices=("auto", "float32", "bfloat16", "float16"),
    )  # fmt: skip
    compile: str = option(
        "auto",
        "compile the network for training; auto is yes where that was measured to pay",
        choices=("auto", "yes", "no"),
    )
    validation: float | None = option(
        None, "share of the training images held out to choose the best checkpoint (default: the test set chooses)",
        type=share,
    )  # fmt: skip
    limit_train: int | None = option(None, "use at most so many training images", type=whole(1))
    limit_test: int | None = option(None, "use at most so many test images", type=whole(1))
    save_minutes: float = option(10.0, "time between checkpoints within an epoch, in minutes", type=positive)
    resume: str | None = option(None, "run folder of a run that was ended early, to go on with; takes no other flag")
    out: str | None = option(None, "run folder, new or empty (default: runs/<data>-<recipe>-seed<seed>-<time>)")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, beside the data and the seed.

    Args:
        lr: Highest learning rate.
        batch_size: Images a step.
        epochs: Length of the run in passes over the training images.
        steps: Its length in steps, where that is what was published.
        normalise: Fixed statistics; None for those of the training images.
        augment: The mirror is left out where it changes the class.
        optimizer: Which one steps the weights, of those that are written for the network.
        schedule: As in ``Trainer``.
        clip: As in ``Trainer``.
        at_once: As in ``Trainer``.
        precision: As in ``Machine.precision``.
        compiled: Whether ``torch.compile`` makes the step faster, by measurement on a CPU; see ``Machine.compiled``.
    """

    lr: float
    batch_size: int
    epochs: int
    steps: int | None = None
    normalise: Normalise | None = None
    augment: Augment
    optimizer: str
    schedule: Callable[[float], float]
    clip: float | None = None
    at_once: int = 1000
    precision: str = "auto"
    compiled: bool = False
