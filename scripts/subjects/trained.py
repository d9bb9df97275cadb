"""A trained network from its run folder, with what its run did to images before the network saw them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from scripts.data.poses import Poses
from scripts.data.transforms import Normalise
from scripts.models.vit import VisionTransformer
from scripts.run.folder import read_config
from scripts.subjects.stn import build
from scripts.system.errors import InputError
from scripts.system.files import read_torch


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Args:
        network: In evaluation mode, on the CPU.
        normalise: From uint8 images to its input.
        size: Height and width that the run resized images to.
        classes: Names of the classes.
        facts: The run as plain values.
    """

    network: nn.Module
    normalise: Normalise
    size: tuple[int, int]
    classes: tuple[str, ...]
    facts: dict[str, Any]


def read_trained(folder: Path, checkpoint: str = "auto", flag: str = "RUN") -> Trained:
    """Read the network of a run, which may be unfinished.

    Args:
        folder: The run folder.
        checkpoint: ``best``, ``last``, or ``auto`` for the one that the figures of the report show.
        flag: What the folder is called on the command line.

    Raises:
        InputError: If there is no such run or checkpoint, or it holds another network.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{flag} ({folder}) must be a run folder; it has no config.json")
    if checkpoint == "auto":
        checkpoint = "best" if read_config(folder)["asked"].get("validation") else "last"
    path = folder / f"{checkpoint}.pt"
    if not path.is_file():
        raise InputError(f"{flag} ({folder}) must hold {path.name}; it is missing")
    state = read_torch(path)
    try:
        network = _built(state)
        network.load_state_dict(state["model"])
        names = ("recipe", "seed", "epoch", "pose", "tta")
        return Trained(
            network=network.eval(),
            normalise=Normalise(**state["normalise"]),
            size=(state["image_size"][0], state["image_size"][1]),
            classes=tuple(state["classes"]),
            facts={"checkpoint": path.name, **{name: state[name] for name in names}, "step": state["progress"]["step"]},
        )
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} must hold a network of this kit; it holds something else") from error


def _built(state: dict[str, Any]) -> nn.Module:
    """The network that a checkpoint is of."""
    if not isinstance(state, dict):
        raise TypeError("a checkpoint is a dict")
    options, classes = dict(state["network"]), len(state["classes"])
    if "patches" in state:  # the options are those of a preset, with its name
        del options["preset"]
        return VisionTransformer(classes, **options | {"image_size": tuple(state["image_size"])})
    transform = any(name.startswith("transformer.") for name in state["model"])
    return build(options, classes, Poses(**state["poses"]), state["placed"], transform)
