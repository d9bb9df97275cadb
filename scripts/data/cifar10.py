"""Read the batches of CIFAR-10's official archive.

They are pickles, which could run code: none is opened before the MD5 of all has been checked.
"""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scripts.system.errors import InputError

ARCHIVE, ARCHIVE_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"  # inside the archive
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = {  # MD5 of each file
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST = {"test_batch": "40351d587109b95175f43aff81a1287e"}


def read_batches(contents: Mapping[str, bytes], source: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images uint8 (N, 3, 32, 32) and labels (N,) of each split.

    Args:
        contents: The content of each file, by name.
        source: Where they are from.

    Raises:
        InputError: If a file is missing or differs from the official one.
    """
    for name, md5 in {**TRAIN, **TEST}.items():
        if name not in contents or hashlib.md5(contents[name], usedforsecurity=False).hexdigest() != md5:
            raise InputError(f"{source} must hold the official batches of CIFAR-10; {name} is missing or damaged")
    return {"train": _joined([contents[name] for name in TRAIN]), "test": _joined([contents[name] for name in TEST])}


def _joined(contents: list[bytes]) -> tuple[Tensor, Tensor]:
    batches = [pickle.loads(content, encoding="latin1") for content in contents]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.tensor([label for batch in batches for label in batch["labels"]])
