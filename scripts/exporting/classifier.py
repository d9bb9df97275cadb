"""The network of a run as what is exported: uint8 images in, logits out, and in words what a caller has to know."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from scripts.data.transforms import Normalise
from scripts.subjects.trained import Trained


class Classifier(nn.Module):
    """A network that normalises its images itself.

    Args:
        network: From normalised images to logits.
        normalise: As in its run.

    Shape:
        - Input: uint8 (B, 3, H, W).
        - Output: (B, classes) logits.
    """

    def __init__(self, network: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalise.mean, normalise.std))
        self.network = network
        self.register_buffer("shift", -mean / std)
        self.register_buffer("factor", 1 / (255 * std))

    def forward(self, images: Tensor) -> Any:
        """Return the logits."""
        return self.network(torch.addcmul(self.shift, images.to(self.shift.dtype), self.factor))  # type: ignore[arg-type]


def metadata(trained: Trained) -> dict[str, str]:
    """Return what is written beside the graph: the names of the classes, the input in words, and the run as JSON."""
    height, width = trained.size
    return {
        "classes": json.dumps(trained.classes),
        "input": f"uint8 RGB images (B, 3, {height}, {width}), upright, resized with antialiasing; it normalises them",
        "output": "logits (B, classes), in the order of classes",
        "run": json.dumps(trained.facts),
    }
