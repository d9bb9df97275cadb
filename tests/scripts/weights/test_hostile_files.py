"""For any content of a file, its reader returns valid data or raises a one-line error, and never runs code."""

import ast
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scripts.data.archives import unpack
from scripts.data.image_tree import read_image_tree
from scripts.run.folder import RunFolder, digest, read_config, read_metrics
from scripts.system.errors import InputError
from scripts.weights.families import to_family
from scripts.weights.files import write_arrays
from scripts.weights.pretrained import read_weights
from scripts.weights.search import find
from tests.support.archives import LIMIT, member, write
from tests.support.networks import network
from tests.support.sources import modules
from tests.support.strategies import generator

# calls that could run code


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call by a dotted name in components and scripts, with its file."""
    for path in [*modules("components"), *modules("scripts")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield f"{path.name}: {ast.unparse(node.func)}", node


def test_no_reader_can_run_code() -> None:
    """The one exception are CIFAR-10's batches, pickles whose hash must be the official one."""
    wanted = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False),
              "np.lib.format.read_array": ("allow_pickle", False)}  # fmt: skip
    seen = []
    for place, call in calls():
        name = place.split(": ")[1]
        if place != "cifar10.py: pickle.loads":
            assert name.split(".")[0] not in ("pickle", "joblib", "shelve", "marshal"), place
        assert not name.endswith(".extractall"), place
        if name in wanted:
            keyword, value = wanted[name]
            given_values = {keyword.arg: keyword.value for keyword in call.keywords}
            assert ast.unparse(given_values[keyword]) == str(value), place
            seen.append(name)
    assert set(seen) >= {"torch.load", "np.lib.format.read_array"}


# random changes

places = st.integers(0, 9999)  # in units of 1/10,000 of a file
changes = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), places, st.integers(1, 255)),
        st.tuples(st.just("cut"), places, st.just(0)),
        st.tuples(st.just("remove"), places, places),
        st.tuples(st.just("repeat"), places, places),
        st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=16)),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, what: list[tuple[str, int, int | bytes]]) -> bytes:
    """Change a byte, truncate, remove a part or repeat it, or insert bytes."""
    for kind, place, how in what:
        at = len(content) * place // 10_000
        before, after = content[:at], content[at:]
        if kind == "flip" and after and isinstance(how, int):
            content = before + bytes([after[0] ^ how]) + after[1:]
        elif kind == "cut":
            content = before
        elif isinstance(how, int):
            part = after[: len(content) * how // 10_000]
            content = before + (after[len(part) :] if kind == "remove" else part + after)
        else:
            content = before + how + after
    return content


def weights(path: Path) -> None:
    write_arrays(path, to_family(network(dim=3, mlp_dim=2, patch_size=16).state_dict(), "google", 3))


def picture(path: Path) -> None:
    pixels = torch.randint(0, 256, (16, 16, 3), generator=generator(0), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save(path)


def archive(path: Path) -> None:
    write(path, member("batches/1"), member("batches/2"), content=bytes(range(256)) * 8)


def checkpoint(path: Path) -> None:
    torch.save({"model": {"weight": torch.ones(3)}, "rows": [{"epoch": 1.0}], "step": 2}, path)


def read_numbers(path: Path) -> None:
    assert all(array.isfinite().all() for array in read_weights(path).state.values())


def read_picture(path: Path) -> None:
    """Read a tree of two classes with one image each, where the spoiled file is one of the training images."""
    root = path.parent / "photos"
    for split, label in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        (root / split / label).mkdir(parents=True)
        (root / split / label / path.name).write_bytes(valid(picture, path.suffix))
    (root / "train" / "b" / path.name).write_bytes(path.read_bytes())
    images, labels = read_image_tree(root, path.parent / "cache").splits["train"]
    assert (images.shape, images.dtype, labels.tolist()) == ((2, 3, 16, 16), torch.uint8, [0, 1])


def read_archive(path: Path) -> None:
    target = path.parent / "new" / "batches"
    try:
        unpack(path, target, LIMIT)
    finally:
        assert {entry.name for entry in path.parent.iterdir()} <= {path.name, "new"}
        assert list((path.parent / "new").iterdir()) in ([], [target])
    assert sum(file.stat().st_size for file in target.iterdir()) <= LIMIT


def read_sealed(path: Path) -> None:
    """Read it as a checkpoint whose hash is right."""
    path.rename(path.with_name("last.pt"))
    (path.parent / "checkpoints.json").write_text(json.dumps({"sha256": [digest(path.with_name("last.pt"))]}))
    RunFolder(path.parent).last_checkpoint()


def read_hashes(path: Path) -> None:
    checkpoint(path.with_name("last.pt"))
    path.rename(path.with_name("checkpoints.json"))
    assert RunFolder(path.parent).last_checkpoint() is not None


def read_flags(path: Path) -> None:
    path.rename(path.with_name("config.json"))
    assert {"asked", "resolved"} <= read_config(path.parent).keys()


def read_rows(path: Path) -> None:
    path.rename(path.with_name("metrics.csv"))
    assert all(isinstance(value, float) for row in read_metrics(path.parent) for value in row.values())


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


KINDS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], None]]] = {
    "weights of NumPy": (".npz", weights, read_numbers),
    "weights of safetensors": (".safetensors", weights, read_numbers),
    "weights of torch": (".pt", weights, read_numbers),
    "png": (".png", picture, read_picture),
    "jpeg": (".jpg", picture, read_picture),
    "archive": (".tar.gz", archive, read_archive),
    "checkpoint": (".pt", checkpoint, read_sealed),
    "hashes": (".json", text(json.dumps({"sha256": ["0" * 64, "1" * 64]})), read_hashes),
    "flags": (".json", text(json.dumps({"asked": {"epochs": 3, "lr": None}, "resolved": {"lr": 0.1}})), read_flags),
    "metrics": (".csv", text("epoch,loss\n1,0.5\n2,0.25\n"), read_rows),
}


@cache
def valid(make: Callable[[Path], object], suffix: str) -> bytes:
    """The bytes of a valid file."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, f"valid{suffix}"))
        return Path(folder, f"valid{suffix}").read_bytes()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hashes"])
def test_every_valid_file_is_read(kind: str, tmp_path: Path) -> None:
    suffix, make, read = KINDS[kind]
    (tmp_path / f"file{suffix}").write_bytes(valid(make, suffix))
    read(tmp_path / f"file{suffix}")


@pytest.mark.parametrize("kind", KINDS)
@given(what=changes)
def test_a_changed_file_is_read_or_gives_a_one_line_error(kind: str, what: list[tuple[str, int, int | bytes]]) -> None:
    suffix, make, read = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        path.write_bytes(changed(valid(make, suffix), what))
        started, refusal = time.process_time(), "none, or what it must be"
        try:
            read(path)
        except InputError as error:
            refusal = str(error)
        assert "must" in refusal
        assert "\n" not in refusal
        assert time.process_time() - started < 5


def test_the_family_of_many_names_is_found_in_the_time_of_reading_them() -> None:
    """Each of these is the class token of a network of its own, to be looked for among all names."""
    started = time.process_time()
    with pytest.raises(InputError, match=r"^it must hold a Vision Transformer of a known family; it holds p0\."):
        find([f"p{number}.cls_token" for number in range(20_000)], "it")
    assert time.process_time() - started < 10


@pytest.mark.parametrize("suffix", (".pt", ".npz", ".safetensors"))
def test_a_file_that_may_not_be_read_is_not_called_damaged(suffix: str, tmp_path: Path, monkeypatch) -> None:
    path, opened = tmp_path / f"vit{suffix}", Path.open
    write_arrays(path, {"name": torch.ones(2)})

    def refusing(file: Path, *given: object, **more: object) -> object:
        """The root of a system may read everything."""
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *given, **more)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(PermissionError, match=f"Permission denied: '{re.escape(str(path))}'"):
        read_weights(path)
