"""Small runs, and what is compared of them."""

import re
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import nn

from scripts.data.datasets import Split
from scripts.data.transforms import Augment, Normalise
from scripts.recipes.schedules import constant, one_cycle
from scripts.run.folder import RunFolder
from scripts.training.optimizers import Muon
from scripts.training.trainer import Trainer
from tests.support.strategies import generator


def dots(count: int, seed: int) -> Split:
    """Dark images of class 0 and bright ones of class 1."""
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, 3, 4, 4), generator=generator(seed), dtype=torch.uint8)
    return Split(noise + (100 * labels).byte().view(-1, 1, 1, 1), labels)


def trainer(folder: Path, **changes: object) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    settings = {
        "model": model,
        "predict": lambda x: (model(x), None),
        "describe": lambda extra: ({"extra_mean": extra.mean().item()}, f"mean {extra.mean():.3f}"),
        "optimizers": [torch.optim.SGD(model.parameters(), lr=0.05)],
        "schedule": constant,
        "train": dots(30, seed=1),
        "held_out": dots(14, seed=2),
        "held_out_name": "test",
        "prepare": Normalise((0.5,) * 3, (0.5,) * 3),
        "augment": Augment(),
        "batch_size": 8,
        "steps": 12,
        "precision": "float32",
        "seed": 0,
        "folder": RunFolder.create(folder),
        "about": {"classes": ["dark", "bright"]},
    }
    return Trainer(**{**settings, **changes})


def run(folder: RunFolder | Path, seed: int = 0, **changes: object) -> Trainer:
    """Everything that draws or remembers: dropout, augmentation, momentum, Adam's moments, Muon, a schedule."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    optimizers = [
        Muon([model[0].weight, model[3].weight], lr=0.02, weight_decay=0.01, dtype=torch.float32),
        torch.optim.AdamW([model[0].bias, model[3].bias], lr=0.01),
        torch.optim.SGD(model[5].parameters(), lr=0.05, momentum=0.9),
    ]
    folder = RunFolder.create(folder) if isinstance(folder, Path) else folder
    settings: dict[str, Any] = {
        "model": model, "predict": lambda x: (model(x), None), "optimizers": optimizers, "steps": 11,
        "schedule": one_cycle(0.3), "augment": Augment(mirror=True, shift=1), "save_minutes": 1e-9, "clip": 5.0,
    }  # fmt: skip
    return Trainer(**{**vars(trainer(Path(mkdtemp()))), "folder": folder, **settings, **changes})


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Rows without what the machine decides: seconds, images a second, and memory."""
    return [{name: row[name] for name in row if not re.search("second|memory", name)} for row in rows]


def log_without_times(path: Path) -> str:
    return re.sub(r", [\d.]+ s$", "", (path / "train.log").read_text(), flags=re.MULTILINE)
