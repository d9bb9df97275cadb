"""Data sources: images are read as they were written, and what is missing or damaged is named in an error."""

import errno
import hashlib
import io
import os
import pickle
import re
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from scripts.data import cifar10 as cifar10_batches
from scripts.data import datasets as data
from scripts.system.errors import InputError
from tests.support.servers import go_offline
from tests.support.trees import CLASSES, write_tree


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own working directory with its own data/ folder, and is offline."""
    monkeypatch.chdir(tmp_path)
    go_offline(monkeypatch)


# --- image trees


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_tree_is_read_pixel_for_pixel_with_classes_in_order(tmp_path: Path, suffix: str) -> None:
    root = write_tree(tmp_path / "photos", side=20, suffix=suffix)
    dataset = data.load(str(root))
    assert dataset.classes == list(CLASSES)
    assert dataset.name == "tree:photos"
    assert dataset.train.images.shape == (24, 3, 20, 20)
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    third_dog = np.asarray(Image.open(root / "train" / "dog" / f"2.{suffix}"))
    assert np.array_equal(dataset.train.images[8 + 2].permute(1, 2, 0).numpy(), third_dog)


def test_a_tree_is_decoded_once_and_again_when_it_has_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.load(str(tree))
    opened: list[object] = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **how: (opened.append(path), original(path, **how))[1])
    again = data.load(str(tree))
    assert opened == []
    assert torch.equal(first.train.images, again.train.images)
    changed = tree / "train" / "cat" / "0.png"
    original(changed).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    os.utime(changed, ns=(1, 1))
    later = data.load(str(tree))
    assert opened
    assert torch.equal(later.train.images[0], first.train.images[0].flip(-1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_every_mode_become_rgb(tree: Path, mode: str) -> None:
    path = tree / "train" / "cat" / "0.png"
    image = Image.open(path).convert("RGB").convert(mode)
    image.save(path, "JPEG" if mode == "CMYK" else "PNG")
    read = data.load(str(tree)).train.images[0].permute(1, 2, 0).numpy()
    distance = np.abs(read.astype(int) - np.asarray(image.convert("RGB"))).mean()
    assert distance <= (10 if mode == "CMYK" else 0), "JPEG is lossy"


def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 300)
    said = "30 of 32x32 pixels take 92,160 bytes, and 90,000 are available"
    with pytest.raises(InputError, match=re.escape(f"({tree}) must hold images that fit into memory; {said}")):
        data.load(str(tree))
    monkeypatch.delattr(os, "sysconf")  # Windows has none
    assert len(data.load(str(tree)).train.images) == 24


@pytest.mark.parametrize("images", [None, "text", torch.zeros(30, 3, 32, 32), torch.zeros(7, 3, 4, 4).byte()],
                         ids=("truncated", "text", "floats", "others"))  # fmt: skip
def test_a_damaged_cache_is_ignored(tree: Path, images: object) -> None:
    first = data.load(str(tree))
    (cache,) = Path("data/cache").iterdir()
    if images is None:
        cache.write_bytes(cache.read_bytes()[:100])
    else:
        torch.save(torch.load(cache, weights_only=True) | {"images": images}, cache)
    assert torch.equal(data.load(str(tree)).train.images, first.train.images)


# --- CIFAR-10, with a small archive of the same layout in place of the official one


def small_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write an archive with the layout of CIFAR-10 and ten images a batch, and patch the expected hashes."""
    draw = np.random.default_rng(0)
    members, batches = {}, {}
    for name in (*cifar10_batches.TRAIN, *cifar10_batches.TEST):
        pixels = draw.integers(0, 256, (10, 3072), dtype=np.uint8)
        members[name] = pickle.dumps({"data": pixels, "labels": list(range(10))}, protocol=2)
        batches[name] = hashlib.md5(members[name]).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / cifar10_batches.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{cifar10_batches.FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for split in ("TRAIN", "TEST"):
        monkeypatch.setattr(cifar10_batches, split, {name: batches[name] for name in getattr(cifar10_batches, split)})
    monkeypatch.setattr(cifar10_batches, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


@pytest.mark.parametrize("source", ["cifar10", "auto"])
@pytest.mark.parametrize("place", ["data", "elsewhere"])
def test_an_archive_in_data_or_in_the_named_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, source: str
) -> None:
    archive = small_archive(tmp_path / place, monkeypatch)
    if place == "elsewhere":
        monkeypatch.setenv("CIFAR10_DIR", str(archive.parent))
    dataset = data.load(source)
    assert dataset.name == "cifar10"
    assert dataset.notice == ""
    assert dataset.train.images.shape == (50, 3, 32, 32)
    assert dataset.test.labels.tolist() == list(range(10))
    first = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)[0]
    assert np.array_equal(dataset.train.images[0].flatten().numpy(), first), "channel planes, row by row"


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new file can be written: permissions would not stop root."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "data/new")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("place", ["data", "elsewhere"])
def test_an_archive_is_read_where_data_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    archive = small_archive(tmp_path / place, monkeypatch)
    monkeypatch.setenv("CIFAR10_DIR", str(archive.parent))
    dataset = data.load("cifar10")
    first = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)[0]
    assert np.array_equal(dataset.train.images[0].flatten().numpy(), first)
    assert (len(dataset.train), dataset.test.labels.tolist()) == (50, [*range(10)])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]
    reason = "[Errno 30] Read-only file system: 'data/new'"
    assert capsys.readouterr().err == f"WARNING: {archive} is read without unpacking it: {reason}\n"


@pytest.mark.usefixtures("read_only")
def test_a_download_into_a_folder_that_cannot_be_written_is_refused_in_one_line() -> None:
    refusal = "download of cifar-10-python.tar.gz failed: data cannot be written (Read-only file system)"
    with pytest.raises(InputError, match=f"^{re.escape(refusal)}$"):
        data.load("cifar10")
    assert refusal in data.load("auto").notice


def test_a_file_in_the_place_of_data_is_refused_in_one_line() -> None:
    Path("data").write_text("")
    with pytest.raises(InputError, match=r"^download of cifar-10-python\.tar\.gz failed: data cannot be written \("):
        data.load("cifar10")


def test_extracted_batches_are_read_without_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = small_archive(tmp_path / "elsewhere", monkeypatch)
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # new in Python 3.10.12 and 3.11.4
        tar.extractall(archive.parent)
    archive.unlink()
    monkeypatch.setenv("CIFAR10_DIR", str(archive.parent))
    assert len(data.load("cifar10").train) == 50


def test_the_official_hashes_are_those_of_torchvision() -> None:
    assert list(cifar10_batches.TRAIN.items()) == [tuple(pair) for pair in CIFAR10.train_list]
    assert list(cifar10_batches.TEST.items()) == [tuple(pair) for pair in CIFAR10.test_list]
    archive = (cifar10_batches.ARCHIVE, cifar10_batches.ARCHIVE_MD5, cifar10_batches.FOLDER)
    assert archive == (CIFAR10.filename, CIFAR10.tgz_md5, CIFAR10.base_folder)


# --- digits, and samples of a split


def test_digits_are_always_the_same_and_stay_on_the_canvas() -> None:
    first, second = data.load("digits"), data.load("digits")
    assert torch.equal(first.train.images, second.train.images)
    assert first.train.images.shape == (1438 * 4, 3, 32, 32)
    assert first.test.images.shape == (359 * 4, 3, 32, 32)
    assert first.train.labels.bincount().min() > 500
    border = torch.ones(32, 32, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    ink_at_the_border = first.train.images[:, 0, border].float().sum() / first.train.images[:, 0].float().sum()
    assert ink_at_the_border < 1e-3


@pytest.mark.parametrize("poses", (1, 4))
def test_no_source_digit_is_in_both_splits_whatever_its_pose(poses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a grey of its own, by which it is known in every pose, and a label of its own, which it must keep."""
    count = 200
    greys = np.arange(1, count + 1) / count
    numbered = SimpleNamespace(images=16 * greys[:, None, None] * np.ones((8, 8)), target=np.arange(count))
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: numbered)
    dataset = data.digits(poses)
    known = []
    for split in (dataset.train, dataset.test):
        source = (split.images.flatten(1).amax(1).float() * count / 255).round().long() - 1
        assert torch.equal(source, split.labels), "the label is that of the digit"
        assert torch.equal(source, split.sources)
        known.append(source.bincount(minlength=count))
    in_train, in_test = known
    assert not (in_train.bool() & in_test.bool()).any()
    assert (in_train + in_test == poses).all()
    assert in_test.sum() == count * poses / 5


@pytest.mark.parametrize("limit", (None, 2000))
def test_no_source_digit_is_in_two_parts_of_the_training_split_whatever_its_pose(limit: int | None) -> None:
    """A validation image whose digit is trained on in other poses tells nothing of digits that were never seen."""
    train = data.digits().limited(limit, None).train
    rest, held_out = train.divided(0.1)
    assert not set(rest.sources.tolist()) & set(held_out.sources.tolist())
    assert len(rest) + len(held_out) == len(train)
    assert len(held_out) == pytest.approx(0.1 * len(train), rel=0.05)
    by_class = held_out.labels.bincount() / train.labels.bincount()
    assert (by_class - 0.1).abs().max() < 0.04, "of each class"


def test_a_limit_keeps_the_same_images_of_every_class() -> None:
    dataset = data.load("digits")
    limited = dataset.limited(500, None)
    assert torch.equal(limited.train.images, dataset.limited(500, 7).train.images)
    assert limited.train.labels.unique().numel() == 10
    assert len(limited.test) == len(dataset.test)
    assert len(dataset.limited(10**9, None).train) == len(dataset.train)


def test_holding_out_keeps_every_image_in_one_part() -> None:
    split = data.load("digits").train
    numbered = data.Split(torch.arange(len(split)), split.labels)
    rest, held_out = numbered.divided(0.1)
    assert torch.cat([rest.images, held_out.images]).sort().values.tolist() == list(range(len(split)))
    counts, held = split.labels.bincount(), held_out.labels.bincount()
    assert held.tolist() == (0.1 * counts).round().long().tolist(), "of each class"
    assert held_out.labels[:20].unique().numel() > 3, "in no order of classes"


def test_a_rare_class_is_on_both_sides_of_a_division() -> None:
    labels = torch.tensor([0] * 60 + [1] * 4 + [2])
    for share, expected in ((0.1, [6, 1]), (0.9, [54, 3]), (1e-5, [1, 1])):
        rest, held_out = data.Split(torch.arange(65), labels).divided(share)
        assert held_out.labels.bincount().tolist() == expected, "one image stays where it is trained on"
        assert len(rest) == 65 - sum(expected)
