"""Folders as people have them: photographs of every format and orientation, and what systems leave beside them."""

import os
import random
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from scripts.data import datasets
from scripts.data.image_tree import BACKGROUND
from scripts.system.errors import InputError
from tests.support.runs import full_disk
from tests.support.trees import write_tree

ORIENTATION = 0x0112  # of Exif


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photograph(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Four flat quarters of different colours: JPEG keeps them, and each turn shows."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def first(root: Path) -> np.ndarray:
    """The first training image as it is read: (H, W, 3)."""
    return datasets.load(str(root)).train.images[0].permute(1, 2, 0).numpy()


def test_a_full_disk_leaves_the_images_in_memory_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "photos")
    with full_disk(1000):
        read = datasets.load(str(tree))
    assert capsys.readouterr().err.startswith("WARNING: the decoded images are not cached: cannot write ")
    assert torch.equal(read.train.images, datasets.load(str(tree)).train.images)


def replaced(tmp_path: Path, name: str = "0.jpg") -> Path:
    """A tree, and the place of an image of it that a test writes."""
    (write_tree(tmp_path / "photos") / "train" / "cat" / "0.png").unlink()
    return tmp_path / "photos" / "train" / "cat" / name


SUFFIX = {"JPEG": "0.jpg", "PNG": "0.png", "WEBP": "0.webp", "TIFF": "0.tif"}


@pytest.mark.parametrize("form", SUFFIX)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright_whichever_way_the_camera_was_held(tmp_path: Path, orientation: int, form: str) -> None:
    upright, exif = photograph(), Image.Exif()
    exif[ORIENTATION] = orientation
    stored = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transpose that undoes it
    image = upright if stored is None else upright.transpose(Image.Transpose(stored))
    image.save(path := replaced(tmp_path, SUFFIX[form]), form, quality=95, exif=exif.tobytes())
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(path))), first(tmp_path / "photos"))
    assert np.abs(first(tmp_path / "photos").astype(int) - np.asarray(upright)).mean() < 4


@pytest.mark.parametrize("form", SUFFIX)
@pytest.mark.parametrize("orientation", [1, 6])
def test_sizes_are_compared_once_images_are_upright(tmp_path: Path, orientation: int, form: str) -> None:
    root, exif = tmp_path / "photos", Image.Exif()
    exif[ORIENTATION] = orientation
    for number, split in enumerate(("train", "test")):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            photograph(number, (24, 16)).save(root / split / label / "a.png")
            stored = photograph(number, (24, 16) if orientation == 1 else (16, 24))
            stored.save(root / split / label / f"b{SUFFIX[form][1:]}", form, exif=exif.tobytes())
    assert datasets.load(str(root)).train.images.shape == (4, 3, 16, 24)


@pytest.mark.parametrize(
    "broken", [b"Exif\0\0" + bytes(range(200)), b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 60, b"Exif\0\0"]
)
def test_a_sound_photograph_with_broken_metadata_is_read(tmp_path: Path, broken: bytes) -> None:
    image = photograph()
    image.save(path := replaced(tmp_path), quality=95)
    plain = first(tmp_path / "photos")
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(broken) + 2).to_bytes(2, "big") + broken + data[2:])
    assert np.array_equal(first(tmp_path / "photos"), plain)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_shows_the_background_and_not_the_colour_beneath(tmp_path: Path, mode: str) -> None:
    """Half of the image is transparent, over colours that differ from image to image."""
    path = replaced(tmp_path, "0.png")
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, 16:] = 255
    if mode in ("RGBA", "LA"):
        image = photograph().convert(mode)
        image.putalpha(Image.fromarray(alpha))
        image.save(path)
    elif mode == "P":
        index = np.where(alpha == 0, 1, 2).astype(np.uint8)
        image = Image.frombytes("P", (32, 32), index.tobytes())
        image.putpalette([0, 0, 0, 200, 30, 40, 10, 120, 30])
        image.save(path, transparency=1)
    else:
        pixels = np.asarray(photograph().convert(mode)).copy()
        key = 77 if mode == "L" else (7, 77, 177)
        pixels[alpha == 0] = key
        Image.fromarray(pixels).save(path, transparency=key)
    read = first(tmp_path / "photos")
    assert (read[:, :16] == BACKGROUND).all()
    assert not (read[:, 16:] == BACKGROUND).all()


@pytest.mark.parametrize(
    "name", ["a.webp", "a.jfif", "a.bmp", "a.gif", "a.tif", "a.TIFF", "a.ppm", "a.JPG", "a.jpe", "a.tga"]
)
def test_what_pillow_reads_is_read(tmp_path: Path, name: str) -> None:
    form = {"webp": "WEBP", "jfif": "JPEG", "bmp": "BMP", "gif": "GIF", "tif": "TIFF", "tiff": "TIFF", "ppm": "PPM",
            "jpg": "JPEG", "jpe": "JPEG", "tga": "TGA"}[name.partition(".")[2].lower()]  # fmt: skip
    photograph().save(replaced(tmp_path, name), form)
    dataset = datasets.load(str(tmp_path / "photos"))
    assert len(dataset.train.images) == 24
    assert dataset.left_out == ""


def test_the_name_may_be_that_of_another_format(tmp_path: Path) -> None:
    photograph().save(replaced(tmp_path, "0.png"), "JPEG")
    assert first(tmp_path / "photos").shape == (32, 32, 3)


def test_what_is_left_out_is_counted_in_one_line(tree: Path) -> None:
    for name in ("train/cat/notes.txt", "train/cat/a.mp4", "test/dog/b.mp4", "train/dog/checksum"):
        (tree / name).write_text("x")
    assert datasets.load(str(tree)).left_out == "4 files that are not images: 2 .mp4, 1 .txt, 1 without a suffix"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows have no such names")
def test_suffixes_in_no_encoding_are_escaped(tree: Path) -> None:
    """Old archives leave such names, which can neither be printed nor be written to a log."""
    for name in (b"notes.t\xe4xt", b"a.b\nc"):
        Path(os.fsdecode(os.fsencode(tree / "train/cat") + b"/" + name)).write_text("x")
    assert datasets.load(str(tree)).left_out == r"2 files that are not images: 1 .b\nc, 1 .t\udce4xt"


def test_what_is_left_out_does_not_depend_on_the_order_of_the_file_system(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("notes.txt", "a.mp4", "checksum"):
        (tree / "train/cat" / name).write_text("x")
    scandir = os.scandir
    for backwards in (False, True):
        order = {"key": lambda entry: entry.name, "reverse": backwards}
        monkeypatch.setattr(os, "scandir", lambda path, order=order: sorted(scandir(path), **order))
        found = datasets.load(str(tree)).left_out
        assert found == "3 files that are not images: 1 .mp4, 1 .txt, 1 without a suffix"


@pytest.mark.parametrize("name", [
    "train/cat/._0.png", "train/cat/.DS_Store", "train/cat/Thumbs.db", "train/cat/desktop.ini", "train/.DS_Store",
    "train/.ipynb_checkpoints/0.png", "train/__MACOSX/._0.png", "__MACOSX/train/cat/._0.png", "train/@eaDir/0.png",
    "train/cat/.ipynb_checkpoints/0-checkpoint.png", "train/cat/@eaDir/0.png@SynoEAStream", "test/$RECYCLE.BIN/0.png",
])  # fmt: skip
def test_what_systems_leave_in_folders_is_no_image_and_no_class(tree: Path, name: str) -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_bytes(b"\0\5\x16\7 of the system")
    dataset = datasets.load(str(tree))
    assert dataset.classes == ["cat", "dog", "newt"]
    assert len(dataset.train.images) == 24
    assert dataset.left_out == ""


@pytest.mark.parametrize(
    "name",
    [
        "\u06af\u0631\u0628\u0647\u200c\u0647\u0627",
        "\u5168\u3000\u89d2",
        "no\u00a0break",
        "\U0001f469\u200d\U0001f467",
        "e\u0301",
        "soft\u00adhyphen",
        "a b",
    ],
)
def test_names_of_every_script_are_classes(tree: Path, name: str) -> None:
    for split in ("train", "test"):
        (tree / split / "dog").rename(tree / split / name)
    assert name in datasets.load(str(tree)).classes


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "tab\t", "\x7f", "\x85", "line\u2028break"])
def test_control_characters_are_not(tree: Path, name: str) -> None:
    (tree / "train" / "dog").rename(tree / "train" / name)
    with pytest.raises(InputError, match="must have a name without control characters"):
        datasets.load(str(tree))


def test_a_folder_of_fifty_photographs_of_every_kind_is_read(tmp_path: Path) -> None:
    """Formats, orientations, metadata and what stands between them, drawn at random."""
    draw, root = random.Random(0), tmp_path / "photos"
    for number in range(50):
        folder = root / ("test" if number % 5 == 4 else "train") / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[ORIENTATION] = draw.randint(1, 8)
        suffix, mode = draw.choice([("jpg", "RGB"), ("jpeg", "L"), ("webp", "RGBA"), ("png", "P"), ("png", "RGBA"),
                                    ("bmp", "RGB"), ("gif", "P"), ("tif", "CMYK"), ("jfif", "CMYK")])  # fmt: skip
        given = {"exif": exif.tobytes()} if suffix in ("jpg", "jpeg", "webp", "png", "jfif") else {}
        photograph(number).convert(mode).save(folder / f"{number}.{suffix}", **given)
    (root / "train" / "cat" / "._0.jpg").write_bytes(b"x")
    (root / "train" / "cat" / "list.csv").write_text("x")
    dataset = datasets.load(str(root))
    assert (len(dataset.train), len(dataset.test)) == (40, 10)
    assert dataset.left_out == "1 file that is not an image: 1 .csv"
    assert torch.equal(dataset.train.images, datasets.load(str(root)).train.images), "from the cache"


def test_twenty_runs_that_start_at_once_on_one_folder_leave_one_cache(tree: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: datasets.load(str(tree)).train.images, range(20)))
    assert all(torch.equal(images, found[0]) for images in found)
    assert len(list(Path("data/cache").iterdir())) == 1


def test_where_nothing_can_be_kept_a_run_goes_on_without(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").write_text("no folder can be made here")
    assert len(datasets.load(str(tree)).train) == 24
    said = capsys.readouterr().err
    assert said.startswith("WARNING: the decoded images are not cached: cannot write data/cache/")
    assert said.count("\n") == 1


@pytest.mark.parametrize("again", [False, True])
def test_reading_takes_hardly_more_memory_than_the_images(tmp_path: Path, again: bool) -> None:
    root = write_tree(tmp_path / "photos", per_class=40, side=128)
    if again:
        datasets.load(str(root))
    tracemalloc.start()
    dataset = datasets.load(str(root))
    dataset = dataset.to(torch.device("cpu"))  # channels last
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    images = 3 * 128 * 128 * (len(dataset.train) + len(dataset.test))
    assert peak < 1.3 * images
    assert dataset.train.images.untyped_storage().nbytes() == images, "both splits lie in one block"
