"""Small image folders to train on."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "newt")


def write_tree(root: Path, per_class: int = 8, side: int = 32, suffix: str = "png") -> Path:
    """Write ``{train,test}/<class>/<i>.<suffix>``: noise around a grey for each class; test has a quarter as many."""
    draw = np.random.default_rng(0)
    for split, count in (("train", per_class), ("test", max(1, per_class // 4))):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = draw.normal(60 + 60 * label, 40, (side, side, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.{suffix}")
    return root
