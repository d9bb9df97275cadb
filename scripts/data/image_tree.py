"""Read a folder {train,test}/<class>/ of images into memory, and cache the decoded images."""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor
from tqdm import tqdm

from scripts.system.command_line import printable
from scripts.system.errors import InputError, one_line
from scripts.system.files import read_torch, write_whole
from scripts.system.machine import memory_limit
from scripts.system.terminal import warn

SPLITS = ("train", "test")
# no others: by content, not suffix, Pillow picks readers that start external programs
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "PCX", "SGI")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # at most 8 bits a channel
BACKGROUND = (255, 255, 255)  # behind transparent pixels
DECODING = 2  # its version: images that were decoded in another way are decoded again
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}  # fmt: skip
LEFT_BY_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information",
                   "lost+found", "icon\r", "__pycache__"}  # fmt: skip


@dataclass(frozen=True)
class ImageTree:
    """Classes in alphabetical order, images uint8 (N, 3, H, W) and labels (N,) of each split, and what was left out."""

    classes: list[str]
    formats: str
    splits: dict[str, tuple[Tensor, Tensor]]
    left_out: str


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

    Images are turned upright by their Exif orientation, and transparent ones are composed on ``BACKGROUND``. Files that
    are not images are left out and counted; what operating systems leave in folders (``.DS_Store``, ``._0.jpg``,
    ``Thumbs.db``) is ignored.

    Args:
        root: The folder that holds ``train`` and ``test``.
        cache_folder: Folder for the decoded images, one file a tree.

    Raises:
        InputError: If a split is missing, the splits have different classes, a class is empty, an image cannot be
            decoded, images differ in size, or they do not fit into memory. The message names the file.
    """
    others: Counter[str] = Counter()  # by suffix: files that are not images
    files = list(_scan(root, others))
    classes = _classes(root, files)
    fingerprint = hashlib.sha256(repr((DECODING, files)).encode("utf-8", "surrogateescape")).hexdigest()
    cache = cache_folder / f"{root.name}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]}.pt"
    images = _cached(cache, fingerprint, len(files))
    if images is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of metadata; broken pixels are errors
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # a header of a billion pixels
            images = _decode(root, files)
        try:
            write_whole(cache, lambda file: torch.save({"fingerprint": fingerprint, "images": images}, file))
        except OSError as error:
            warn(f"WARNING: the decoded images are not cached: {error}")
    numbers = {label: number for number, label in enumerate(classes)}
    labels = torch.tensor([numbers[file.label] for file in files])
    count = sum(file.split == "train" for file in files)  # they come first; slices share memory
    splits = {"train": (images[:count], labels[:count]), "test": (images[count:], labels[count:])}
    suffixes = _suffixes()
    formats = "/".join(sorted({suffixes[Path(file.name).suffix.lower()] for file in files}))
    return ImageTree(classes, formats, splits, _counted(others))


def _suffixes() -> dict[str, str]:
    """Map the suffixes of image files to their formats."""
    Image.init()
    return {suffix: form for suffix, form in Image.registered_extensions().items() if form in FORMATS}


def _counted(others: Counter[str]) -> str:
    """Describe the files that are left out; empty if there are none."""
    if not (total := others.total()):
        return ""
    most = sorted(others.items(), key=lambda found: (-found[1], found[0] == "", found[0]))
    each = ", ".join(f"{count} {one_line(suffix) or 'without a suffix'}" for suffix, count in most)
    return f"{total} files that are not images: {each}" if total > 1 else f"1 file that is not an image: {each}"


def _of_a_system(name: str) -> bool:
    """Return whether an operating system leaves files or folders of that name."""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def _scan(root: Path, others: "Counter[str]") -> Iterator[_File]:
    """Yield every image file of the tree in a fixed order, and count the other files by suffix."""
    suffixes = _suffixes()
    for split in SPLITS:
        if not (root / split).is_dir():
            raise InputError(f"--data ({root}) must hold a folder {split}/ with one folder a class; it is missing")
        folders = (entry for entry in os.scandir(root / split) if entry.is_dir() and not _of_a_system(entry.name))
        for label in sorted(entry.name for entry in folders):
            if not printable(label):
                raise InputError(f"{root / split / label} must have a name without control characters")
            entries = [entry for entry in os.scandir(root / split / label) if not _of_a_system(entry.name)]
            images: list[os.DirEntry[str]] = []
            rest: list[os.DirEntry[str]] = []
            for entry in entries:
                (images if Path(entry.name).suffix.lower() in suffixes else rest).append(entry)
            if inner := sorted(entry.path for entry in rest if entry.is_dir()):
                raise InputError(f"{inner[0]} must be an image; a class has no folders in its own")
            others.update(Path(entry.name).suffix.lower() for entry in rest if entry.is_file())
            if not images:
                raise InputError(f"{root / split / label} must hold images, such as .png or .jpg; there is none")
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
        width, height = _upright_size(image)
    needed, memory = 3 * width * height * len(files), memory_limit()
    if 0 < memory < needed:
        sizes = f"{len(files)} of {width}x{height} pixels take {needed:,} bytes, and {memory:,} are available"
        raise InputError(f"--data ({root}) must hold images that fit into memory; {sizes}")

    def read(file: _File) -> np.ndarray:
        with _opened(root / file.path) as image:
            size = _upright_size(image)
            if size != (width, height):  # checked before decoding
                raise InputError(
                    f"{root / file.path} ({size[0]}x{size[1]} pixels) must be {width}x{height} like "
                    f"{files[0].path}; all images must have the same size"
                )
            if image.mode not in MODES:
                wanted = "grey, RGB, CMYK or palette, with at most 8 bits a channel"
                raise InputError(f"{root / file.path} (mode {image.mode}) must be {wanted}")
            opaque = _opaque(image)
            turn = TURNS.get(_orientation(image))  # 1 of a TIFF now: Pillow turns it itself when it decodes
            return np.asarray(opaque if turn is None else opaque.transpose(turn))

    images = np.empty((len(files), height, width, 3), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(read, files)
        for i, pixels in enumerate(tqdm(decoded, "decoding", len(files), unit="image", leave=False, disable=None)):
            images[i] = pixels
    return torch.from_numpy(images).permute(0, 3, 1, 2)  # channels last, as batches are made: no copy


def _orientation(image: Image.Image) -> int:
    """Return the Exif orientation, from 1 to 8; 1 if the metadata lack it or are broken."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata leave the pixels sound
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of the upright image without decoding it."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # whose size is that of the upright image in some versions
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return (height, width) if 5 <= _orientation(image) <= 8 else (width, height)


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image in RGB, composed on ``BACKGROUND``."""
    image.load()
    if "a" in image.mode.lower() or "transparency" in image.info:
        behind = Image.new("RGBA", image.size, BACKGROUND)
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image, reading only its header; every failure, also of decoding, becomes an InputError."""
    try:
        with Image.open(path, formats=[form for form in FORMATS if form in Image.OPEN]) as image:
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
