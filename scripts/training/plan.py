"""How a network is trained: a recipe as it was published, and the plan that flags, data and machine make of it.

A setting is a field here, with its sentence where a flag may change it: flag, plan, config.json, checkpoint and page
follow. Nothing here needs torch, so that ``--help`` and a wrong flag are answered before it is imported.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.data.transforms import Augment, Normalise
from scripts.system.command_line import positive, setting, whole
from scripts.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, beside the data and the seed.

    Args:
        optimizer: Which one steps the weights, of those in the network's subject.
        schedule: Learning-rate factor at a share of the run from 0 to 1.
        clip: Largest norm of all gradients together; a longer gradient is shortened to it.
        augment: The mirror is left out where it changes the class.
        normalise: Fixed statistics; None for those of the training images.
        image_size: Height and width that images are resized to; None for their own.
        network: Options of the network.
        pretrained: Whether it makes no sense without weights to start from.
        compiled: Whether ``torch.compile`` makes the step faster, by measurement on a CPU; see ``Machine.compiled``.
    """

    lr: float = setting("highest learning rate", type=positive)
    batch_size: int = setting("images a step", type=whole(1))
    at_once: int = setting("most images in one forward pass: less memory, the same result", type=whole(1), default=1000)
    epochs: int = setting("passes over the training images", type=whole(1))
    steps: int | None = setting("length of the run in steps, instead of --epochs", type=whole(1), default=None)
    precision: str = setting(
        "of the forward pass; auto is bfloat16 where the device is fast at it, else float32",
        choices=("auto", "float32", "bfloat16", "float16"), default="auto",
    )  # fmt: skip
    optimizer: str = ""
    schedule: Schedule
    clip: float | None = None
    augment: Augment
    normalise: Normalise | None = None
    image_size: tuple[int, int] | None = None
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretrained: bool = False
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan(Recipe):
    """A recipe as it came out for these flags, this data and this machine: nothing is left open.

    Args:
        recipe: Its name.
        seed: For weights, order and augmentation.
        train_images: How many there are to train on.
        test_images: How many there are to test on.
        classes: Their names.
    """

    recipe: str
    seed: int
    steps: int
    normalise: Normalise
    image_size: tuple[int, int]
    train_images: int
    test_images: int
    classes: tuple[str, ...]

    @property
    def steps_an_epoch(self) -> int:
        """Batches in one pass over the training images, the last of them full or not."""
        return -(-self.train_images // self.batch_size)

    def record(self) -> dict[str, Any]:
        """All of it as plain values."""
        return dataclasses.asdict(self)
