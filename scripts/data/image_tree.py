"""Read a folder {train,test}/<class>/*.{png,jpg} into memory, and cache the decoded images."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scripts.system.errors import InputError
from scripts.system.files import read_torch, write_whole
from scripts.system.machine import host_memory

SPLITS = ("train", "test")
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
FORMATS = ("PNG", "JPEG")  # no other: by content, not suffix, Pillow picks readers that start external programs
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")  # at most 8 bits a channel; transparency is dropped


@dataclass(frozen=True)
class ImageTree:
    """Classes in alphabetical order, images uint8 (N, 3, H, W) and labels (N,) of each split."""

    classes: list[str]
    formats: str
    splits: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _File:
    split: str
    label: str
    name: str
    size: int
    modified: int

    @property
    def path(self) -> str:
        return f"{self.split}/{self.label}/{self.name}"


def read_image_tree(root: Path, cache_folder: Path) -> ImageTree:
    """Decode every image of the tree, or read all from the cache if no file has changed.

    Args:
        root: The folder that holds ``train`` and ``test``.
        cache_folder: Folder for the decoded images, one file a tree.

    Raises:
        InputError: If a split is missing, the splits have different classes, a class is empty, a file is not an image,
            images differ in size, or they do not fit into memory. The message names the file.
    """
    files = list(_scan(root))
    classes = _classes(root, files)
    fingerprint = hashlib.sha256(repr(files).encode()).hexdigest()
    cache = cache_folder / f"{root.name}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}.pt"
    images = _cached(cache, fingerprint, len(files))
    if images is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a header with a billion pixels
            images = _decode(root, files)
        write_whole(cache, lambda file: torch.save({"fingerprint": fingerprint, "images": images}, file))
    labels = torch.tensor([classes.index(file.label) for file in files])
    is_test = torch.tensor([file.split == "test" for file in files])
    splits = {"train": (images[~is_test], labels[~is_test]), "test": (images[is_test], labels[is_test])}
    formats = "/".join(sorted({SUFFIXES[Path(file.name).suffix.lower()] for file in files}))
    return ImageTree(classes, formats, splits)


def _scan(root: Path) -> Iterator[_File]:
    """Yield every image file of the tree in a fixed order."""
    for split in SPLITS:
        if not (root / split).is_dir():
            raise InputError(f"--data ({root}) must hold a folder {split}/ with one folder a class; it is missing")
        for label in sorted(entry.name for entry in os.scandir(root / split) if entry.is_dir()):
            if not label.isprintable():
                raise InputError(f"{root / split / label} must have a printable name")
            images = [e for e in os.scandir(root / split / label) if Path(e.name).suffix.lower() in SUFFIXES]
            if not images:
                raise InputError(f"{root / split / label} must hold .png or .jpg images; there is none")
            for entry in sorted(images, key=lambda entry: entry.name):
                if not entry.is_file():  # reading a pipe could block, a device might never end
                    raise InputError(f"{entry.path} must be a regular file")
                stat = entry.stat()
                yield _File(split, label, entry.name, stat.st_size, stat.st_mtime_ns)


def _classes(root: Path, files: list[_File]) -> list[str]:
    train, test = ({file.label for file in files if file.split == split} for split in SPLITS)
    for label in sorted(train ^ test):
        present, missing = SPLITS if label in train else SPLITS[::-1]
        raise InputError(f"{root / present / label} must also exist in {missing}/; both splits need the same classes")
    if len(train) < 2:
        raise InputError(f"--data ({root}) must hold at least two classes; there are {len(train)}")
    return sorted(train)


def _decode(root: Path, files: list[_File]) -> Tensor:
    """Decode all images in the order of ``files``: uint8 (N, 3, H, W)."""
    with _opened(root / files[0].path) as image:
        width, height = image.size
    needed, memory = 3 * width * height * len(files), host_memory()
    if 0 < memory < needed:
        sizes = f"{len(files)} of {width}x{height} pixels take {needed:,} bytes, and the machine has {memory:,}"
        raise InputError(f"--data ({root}) must hold images that fit into memory; {sizes}")

    def read(file: _File) -> np.ndarray:
        with _opened(root / file.path) as image:
            if image.size != (width, height):  # checked before decoding
                raise InputError(
                    f"{root / file.path} ({image.width}x{image.height} pixels) must be {width}x{height} like "
                    f"{files[0].path}; all images must have the same size"
                )
            if image.mode not in MODES:
                wanted = "grey, RGB, CMYK or palette, with at most 8 bits a channel"
                raise InputError(f"{root / file.path} (mode {image.mode}) must be {wanted}")
            image.load()
            image.info.pop("transparency", None)
            return np.asarray(image.convert("RGB"))

    images = np.empty((len(files), height, width, 3), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(read, files)
        for i, pixels in enumerate(tqdm(decoded, "decoding", len(files), unit="image", leave=False, disable=None)):
            images[i] = pixels
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image, reading only its header; every failure, also of decoding, becomes an InputError."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # a damaged file makes each decoder fail in its own way
        raise InputError(f"{path} must be an image; it cannot be decoded ({error})") from error


def _cached(cache: Path, fingerprint: str, count: int) -> Tensor | None:
    """Return the decoded images, or None if there are none or the tree has changed since."""
    try:
        kept = read_torch(cache)
        images: Tensor = kept["images"]
        usable = kept["fingerprint"] == fingerprint and images.dtype == torch.uint8 and images.shape[:2] == (count, 3)
        return images if usable and images.ndim == 4 else None
    except Exception:  # a damaged cache is treated as a missing one
        return None
