"""Small Vision Transformers, their weights under the names of other families, and a hostile pickle."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scripts.models.vit import VisionTransformer
from scripts.weights.families import to_family
from scripts.weights.files import write_arrays
from scripts.weights.names import FAMILIES
from tests.support.strategies import generator

WRITTEN = [family for family in FAMILIES if not FAMILIES[family].layer_scale]  # the others are only read
every_family = pytest.mark.parametrize("family", WRITTEN)


SIZE = {"image_size": 32, "patch_size": 8, "dim": 12, "depth": 2, "num_heads": 3, "mlp_dim": 20}


def network(num_classes: int = 7, seed: int = 0, **options: object) -> VisionTransformer:
    """A network with every parameter drawn, even the head, which would start at zero."""
    model = VisionTransformer(num_classes, **(SIZE | options))
    draw = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return model.eval()


def by_heart(model: nn.Module, images: Tensor, labels: Tensor, steps: int = 60) -> list[float]:
    """Train on one batch alone, and return the loss before each step and after the last."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for step in range(steps + 1):
        loss = nn.functional.cross_entropy(model(images), labels)
        losses.append(loss.item())
        if step < steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


def bits(arrays: dict[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {
        name: (array.dtype, array.shape, array.contiguous().view(torch.uint8).numpy().tobytes())
        for name, array in arrays.items()
    }


def google(**changes: Tensor | None) -> dict[str, Tensor]:
    """The arrays of a small Google file. A change of None removes an array; its name has ``__`` for each slash."""
    arrays = to_family(network().state_dict(), "google", 3)
    arrays |= {name.replace("__", "/"): array for name, array in changes.items() if array is not None}
    return {name: array for name, array in arrays.items() if changes.get(name.replace("/", "__"), array) is not None}


def with_pre_logits(path: Path, num_classes: int, family: str = "google") -> Path:
    prefix = FAMILIES[family].prefix + "pre_logits/"
    arrays = to_family(network(num_classes).state_dict(), family, 3)
    write_arrays(path, arrays | {f"{prefix}kernel": torch.ones(12, 12), f"{prefix}bias": torch.ones(12)})
    return path


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.target, "boom")


TINY = {"patch_size": 16, "dim": 24, "depth": 2, "num_heads": 2, "mlp_dim": 32, "dropout": 0.1}
TINY_LITE = {**TINY, "patch_size": 4, "dropout": 0.0}
TINY_PRESETS = {  # in place of those that recipes name: 86 M parameters would take a minute
    "b16": TINY,
    "lite": TINY_LITE,
    "compact": TINY_LITE | {"patch_size": 8, "stem": (4, 6, 6)},
    "s14": TINY | {"patch_size": 14, "interpolation": "bicubic"},
}
