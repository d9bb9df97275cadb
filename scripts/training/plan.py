"""How a network is trained: a recipe, and the plan that flags, data and machine make of it.

A setting is one field here, with a help text if a flag may override it; flag, plan, config.json, checkpoint and report
follow. This module does not import torch, so that ``--help`` and wrong flags are answered quickly.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.data.mixing import UNMIXED, Mix
from scripts.data.poses import POSES, Poses
from scripts.data.transforms import Augment, Normalise
from scripts.system.command_line import positive, setting, whole
from scripts.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, apart from data and seed.

    Args:
        optimizer: Name of one of the optimizers in the network's subject.
        schedule: Learning-rate factor over the run.
        label_smoothing: Share of the target that is spread evenly over all classes.
        averaged: Decay in a step of the moving average of the weights that is evaluated and saved, (1 + n) / (10 + n)
            at most after n steps; zero for none.
        clip: Largest norm of all gradients together; a longer gradient is scaled down to it.
        augment: Augmentation; mirroring is dropped if it changes the class.
        mix: How training images are mixed with each other.
        normalise: Fixed statistics; None for those of the training images.
        image_size: Height and width that images are resized to; None for their own. Training images are left in the
            size of ``augment`` where it has one.
        network: Options of the network.
        localization_lr: Learning rate of the localization of a spatial transformer, as a share of that of the others.
        whole_images: Share of the run, at its end, in which a Vision Transformer that drops patches keeps all.
        pretrained: Whether the recipe requires pretrained weights.
        compiled: Whether ``torch.compile`` makes the step faster on a CPU, as measured; see ``Machine.compiled``.
    """

    lr: float = setting("peak learning rate", type=positive)
    batch_size: int = setting("images a step", type=whole(1))
    at_once: int = setting(
        "most images a forward pass: less memory, the same result but for dropout and batch norm", type=whole(1),
        default=1000,
    )  # fmt: skip
    epochs: int = setting("passes over the training images", type=whole(1))
    steps: int | None = setting("length of the run in steps, instead of --epochs", type=whole(1), default=None)
    precision: str = setting(
        "of the forward pass; auto is bfloat16 if the device is fast at it, else float32",
        choices=("auto", "float32", "bfloat16", "float16"), default="auto",
    )  # fmt: skip
    pose: str = setting(
        "what is done to training and test images: c8 turns each by a multiple of 45 degrees; rts turns it by up to 45 "
        "degrees, scales it by 0.7 to 1.2 and shifts it by up to a fifth of its sides",
        choices=tuple(POSES), default="none",
    )  # fmt: skip
    tta: str = setting(
        "test-time augmentation: logits are averaged over an image and its mirror image, or over its turns by the "
        "angles of --pose c8",
        choices=("none", "mirror", "turns"), default="none",
    )  # fmt: skip
    optimizer: str = ""
    schedule: Schedule
    label_smoothing: float = 0.0
    averaged: float = 0.0
    clip: float | None = None
    augment: Augment
    mix: Mix = UNMIXED
    normalise: Normalise | None = None
    image_size: tuple[int, int] | None = None
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    localization_lr: float = 1.0
    whole_images: float = 0.0
    pretrained: bool = False
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan(Recipe):
    """A recipe completed for the flags, the data and the machine of a run.

    Args:
        recipe: Name of the recipe.
        poses: The poses of that name.
        placed: Whether objects have places of their own, as in cluttered scenes; then nothing else moves them.
        seed: For weights, order, augmentation and poses of training images.
        train_images: Number of training images.
        test_images: Number of test images.
        classes: Names of the classes.
    """

    recipe: str
    poses: Poses
    placed: bool = False
    seed: int
    steps: int
    normalise: Normalise
    image_size: tuple[int, int]
    train_images: int
    test_images: int
    classes: tuple[str, ...]

    @property
    def steps_an_epoch(self) -> int:
        """Batches in one pass over the training images, including a last smaller one."""
        return -(-self.train_images // self.batch_size)

    def record(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return dataclasses.asdict(self)
