"""`make bench-compare`: a slow-down of 20 % is caught, unchanged code passes, and a bad base is refused."""

import itertools
import json
import subprocess
import tarfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch

from benchmarks.grid.cells import Cell
from benchmarks.measure.calls import CALLS
from benchmarks.measure.timing import Interval
from benchmarks.trees import comparison as compare
from scripts.system.errors import InputError
from scripts.system.machine import this_machine
from tests.support.sources import imports

CPU = torch.device("cpu")
NOBODY = ("-c", "user.name=n", "-c", "user.email=e")
MLP = Cell("MLP-lite-32px", 1, "forward", "float32", compiled=False)
ATTENTION = Cell("Attention-lite-32px", 1, "forward", "float32", compiled=False)
SLOWED = """

import time

_forward = MLP.forward


def _slowed(self, x):
    start = time.perf_counter()
    y = _forward(self, x)
    end = start + 1.2 * (time.perf_counter() - start)
    while time.perf_counter() < end:
        pass
    return y


MLP.forward = _slowed
"""
CACHED = """

_forward, _kept = MLP.forward, []


def _cached(self, x):
    if len(_kept) < 20:
        _kept.append(_forward(self, x))
    return _kept[-1]


MLP.forward = _cached
"""


def tree(folder: Path, change: str = "") -> Path:
    """A copy of this tree, with something appended to the MLP."""
    for name in ("components", "scripts", "benchmarks"):
        copytree(compare.ROOT / name, folder / name, ignore=ignore_patterns("results", "pictures", "__pycache__"))
    with (folder / "components" / "mlp.py").open("a") as file:
        file.write(change)
    return folder


@pytest.mark.long
def test_a_slow_down_of_20_percent_is_caught_and_unchanged_code_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In real processes: the MLP takes a fifth longer. A busy machine may hide it, so there are three tries."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trees = {"now": tree(tmp_path / "now", SLOWED), "base": tree(tmp_path / "base")}
    for _ in range(3):
        capsys.readouterr()
        if (slower := compare.compare(trees, [MLP, ATTENTION], seconds=1.4)) == [MLP]:
            break
    assert slower == [MLP]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(MLP))]
    assert [line.endswith("] slower") for line in lines] == [True, True], "the second time in new processes"


@pytest.mark.parametrize(
    ("interval", "remark"),
    [((1.0, 0.9, 1.1), ""), ((1.04, 1.03, 1.06), ""), ((1.2, 1.06, 1.4), "slower"),
     ((1.1, 0.9, 1.3), "may be slower by up to 30%: try more --seconds")],
)  # fmt: skip
def test_a_slow_down_that_noise_may_hide_has_a_remark(interval: tuple[float, float, float], remark: str) -> None:
    assert compare.verdict(Interval(*interval)) == remark


def test_a_cell_that_fails_in_one_tree_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "benchmarks/trees").mkdir(parents=True)
    (tmp_path / "benchmarks/trees/worker.py").write_text("raise ImportError('no MLP')")
    with compare.Worker(tmp_path) as worker:
        worker.process.wait()  # also if it has ended before it is asked
        with pytest.raises(InputError, match=r"MLP-lite-32px-batch1-forward-float32-eager must run in .*; it failed"):
            worker.time(MLP)
    assert "no MLP" in capfd.readouterr().err, "the reason"


@pytest.mark.long
def test_a_tree_that_begins_to_cache_while_it_is_timed_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with compare.Worker(tree(tmp_path / "now", CACHED)) as worker:
        for _ in range(30):
            assert worker.time(MLP) > 0
        with pytest.raises(InputError, match=r"MLP-lite-32px-batch1-forward-float32-eager must run in .*; it failed"):
            worker.time(MLP, 0)
    assert "AssertionError" in capfd.readouterr().err, "the reason"


def test_a_worker_imports_little_of_the_scripts_of_another_tree() -> None:
    """The benchmarks are this tree's, but the scripts are those of any commit."""
    known, todo = set(), ["benchmarks.trees.worker"]
    while todo:
        known.add(name := todo.pop())
        if name.startswith("benchmarks."):
            found = imports(compare.ROOT / f"{name.replace('.', '/')}.py")
            modules = {each for each in found if (compare.ROOT / f"{each.replace('.', '/')}.py").exists()}
            todo += modules - known
    needed = {name for name in known if name.startswith("scripts.")}
    assert needed == {"scripts.system.devices", "scripts.models.stn", "scripts.models.vit"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits: the second changes a component."""
    root = tmp_path / "repository"
    for name in ("components/mlp.py", "scripts/models/vit.py", "benchmarks/grid/cells.py"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("first")
    monkeypatch.setattr(compare, "ROOT", root)
    git(root, "init", "--quiet")
    for text in ("first", "second"):
        (root / "components/mlp.py").write_text(text)
        git(root, "add", "--all")
        git(root, *NOBODY, "commit", "--quiet", "--message", text)
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def result_file(path: Path, **info: object) -> Path:
    about = {"identity": this_machine(CPU).identity, "uncommitted_changes": False, "commit": None}
    path.write_text(json.dumps({"machine_info": about | info}))
    return path


def test_a_base_is_a_commit_or_a_file_that_names_one(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    assert compare.commit_of("HEAD~1", CPU) == compare.commit_of(first[:9], CPU) == first
    path = tmp_path / "a.json"
    for uncommitted, remark in ((False, ""), (True, "was measured"), (None, "may have been measured")):
        assert compare.commit_of(str(result_file(path, commit=first, uncommitted_changes=uncommitted)), CPU) == first
        printed = capsys.readouterr().out
        assert remark in printed
        assert bool(remark) == bool(printed)


def test_the_base_has_its_own_components_and_scripts_and_these_benchmarks(repository: Path, tmp_path: Path) -> None:
    (repository / "benchmarks/grid/cells.py").write_text("not committed")
    compare.extract("HEAD~1", tmp_path / "base")
    texts = {path.name: path.read_text() for path in (tmp_path / "base").rglob("*.py")}
    assert texts == {"mlp.py": "first", "vit.py": "first", "cells.py": "not committed"}


def test_a_python_without_filters_for_archives_is_enough(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 3.11.2, which Debian 12 has."""
    extractall = tarfile.TarFile.extractall
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda tar, path: extractall(tar, path))
    compare.extract("HEAD", tmp_path / "base")
    assert (tmp_path / "base/components/mlp.py").read_text() == "second"


def test_only_components_are_compared_with_a_commit_of_another_arrangement(repository: Path, tmp_path: Path) -> None:
    git(repository, "mv", "scripts/models", "scripts/networks")
    git(repository, *NOBODY, "commit", "--quiet", "--message", "moved")
    git(repository, "mv", "scripts/networks", "scripts/models")
    compare.extract("HEAD", tmp_path / "base")
    assert (tmp_path / "base/scripts/models/vit.py").read_text() == "first"


def test_only_components_are_compared_with_a_commit_that_has_nothing_else(repository: Path, tmp_path: Path) -> None:
    git(repository, "rm", "-r", "--quiet", "scripts")
    git(repository, *NOBODY, "commit", "--quiet", "--message", "components alone")
    git(repository, "checkout", "--quiet", "HEAD~1", "scripts")
    compare.extract("HEAD", tmp_path / "base")
    assert (tmp_path / "base/components/mlp.py").read_text() == "second"
    assert (tmp_path / "base/scripts/models/vit.py").read_text() == "first"
    git(repository, "rm", "-r", "--quiet", "components")
    git(repository, *NOBODY, "commit", "--quiet", "--message", "nothing")
    with pytest.raises(InputError, match=r"^base \(HEAD\) must have components/, which is what is compared$"):
        compare.extract("HEAD", tmp_path / "none")


@pytest.mark.usefixtures("repository")
def test_a_bad_base_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for base, message in (
        ("nowhere", r"base \(nowhere\) must be a result file or a commit; git does not know nowhere"),
        (result_file(file, identity="a toaster"), r"must come from this machine \(.*\), not from a toaster"),
        (result_file(file.with_name("b.json"), commit="1234"), "git does not know 1234"),
        (result_file(file.with_name("c.json"), commit=None), "must name its commit"),
    ):
        with pytest.raises(InputError, match=message):
            compare.commit_of(str(base), CPU)
    for text in ("{", "[]", "{}", '{"machine_info": {}}'):
        file.write_text(text)
        with pytest.raises(InputError, match="must be a JSON file of `make bench`"):
            compare.commit_of(str(file), CPU)


def test_worthwhile_cells_are_eager_and_cover_every_workload_and_type() -> None:
    axes = itertools.product((1, 64, 256), CALLS, ("float32", "bfloat16"), (False, True))
    found = compare.worthwhile([*(Cell("A", *axis) for axis in axes), Cell("B", 1, "step", "float32", False)])
    of_a = itertools.product((64,), ("forward", "step"), ("float32", "bfloat16"), (False,))
    assert {*found} == {*(Cell("A", *axis) for axis in of_a), Cell("B", 1, "step", "float32", False)}
