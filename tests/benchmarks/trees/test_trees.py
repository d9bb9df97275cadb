"""`make bench-compare`: a slow-down of 20 % is caught, what is unchanged passes, what cannot be compared is refused."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch

from benchmarks.grid.cells import Cell
from benchmarks.measure.modes import MODES
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

def _slowed(forward):
    import time

    def call(self, x):
        start = time.perf_counter()
        y = forward(self, x)
        end = start + 1.2 * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return y

    return call


MLP.forward = _slowed(MLP.forward)
"""


def tree(folder: Path) -> Path:
    for name in ("components", "scripts", "benchmarks"):
        copytree(compare.ROOT / name, folder / name, ignore=ignore_patterns("results", "pictures", "__pycache__"))
    return folder


@pytest.mark.long
def test_a_slow_down_of_20_percent_is_caught_and_what_is_unchanged_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both at once in real processes: MLP does a fifth more than its work, whatever the machine does beside it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trees = {"now": tree(tmp_path / "now"), "base": tree(tmp_path / "base")}
    with (trees["now"] / "components" / "mlp.py").open("a") as file:
        file.write(SLOWED)
    assert compare.compare(trees, [MLP, ATTENTION], seconds=1.4) == [MLP]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(MLP))]
    assert [line.endswith("] slower") for line in said] == [True, True], "the second time in new processes"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_as_in_the_runs() -> None:
    # without it, which of two equal processes faults its pages in again is chance, and worth a factor of 1.6
    images = Cell("SpatialTransformer-224px", 64, "forward", "float32", compiled=False)  # 39 MB, and twice that a call
    with compare.Worker(compare.ROOT) as worker:

        def faults() -> int:
            worker.time(images, repeats=2)
            return int(Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[7])

        faults()
        before = faults()
        assert faults() - before < 1000


@pytest.mark.parametrize(
    ("interval", "said"),
    [((1.0, 0.9, 1.1), ""), ((1.04, 1.03, 1.06), ""), ((1.2, 1.06, 1.4), "slower"), ((1.1, 0.9, 1.3), "by 30%")],
)
def test_a_slow_down_that_noise_may_hide_is_said(interval: tuple[float, float, float], said: str) -> None:
    verdict = compare.verdict(Interval(*interval))
    assert said in verdict
    assert bool(said) == bool(verdict)


def test_a_cell_that_one_tree_cannot_do_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "benchmarks/trees").mkdir(parents=True)
    (tmp_path / "benchmarks/trees/worker.py").write_text("raise ImportError('no MLP')")
    with pytest.raises(InputError, match=r"MLP-lite-32px-batch1-forward-float32-eager must run in .*; it does not"):
        compare.compare({"now": tmp_path, "base": tmp_path}, [MLP], seconds=0.1)
    assert "Error" in capfd.readouterr().err, "the reason"


CACHED = """

def _cached(forward):
    kept = []

    def call(self, x):
        if len(kept) < 20:
            kept.append(forward(self, x))
            return kept[-1]
        return kept[-1]

    return call


MLP.forward = _cached(MLP.forward)
"""


@pytest.mark.long
def test_a_tree_that_returns_what_it_computed_before_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It begins to do so while it is timed."""
    changed = tree(tmp_path / "now")
    with (changed / "components" / "mlp.py").open("a") as file:
        file.write(CACHED)
    with compare.Worker(changed) as worker:
        for _ in range(30):
            assert worker.time(MLP) > 0
        with pytest.raises(InputError, match=r"MLP-lite-32px-batch1-forward-float32-eager must run in .*; it does not"):
            worker.time(MLP, 0)
    assert "AssertionError" in capfd.readouterr().err, "the reason"


def test_a_worker_needs_little_of_the_scripts_of_another_tree() -> None:
    """The benchmarks are this tree's, the scripts those of any commit: who compares knows more than who is timed."""
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
    path = result_file(tmp_path / "a.json", commit=first)
    assert compare.commit_of(str(path), CPU) == first
    assert capsys.readouterr().out == ""
    assert compare.commit_of(str(result_file(path, commit=first, uncommitted_changes=True)), CPU) == first
    assert "was measured with changes that no commit has" in capsys.readouterr().out
    assert compare.commit_of(str(result_file(path, commit=first, uncommitted_changes=None)), CPU) == first
    assert "does not know of changes" in capsys.readouterr().out


def test_the_other_tree_has_its_own_components_and_these_benchmarks(repository: Path, tmp_path: Path) -> None:
    (repository / "benchmarks/grid/cells.py").write_text("not committed")
    compare.extract("HEAD~1", tmp_path / "base")
    texts = {path.name: path.read_text() for path in (tmp_path / "base").rglob("*.py")}
    assert texts == {"mlp.py": "first", "vit.py": "first", "cells.py": "not committed"}


def test_of_a_commit_whose_scripts_lay_elsewhere_the_components_alone_are_compared(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "scripts/models").rename(repository / "scripts/networks")
    git(repository, "add", "--all")
    git(repository, *NOBODY, "commit", "--quiet", "--message", "moved")
    (repository / "scripts/networks").rename(repository / "scripts/models")
    compare.extract("HEAD", tmp_path / "base")
    assert (tmp_path / "base/scripts/models/vit.py").read_text() == "first"
    assert "both use the scripts of this tree" in capsys.readouterr().out


@pytest.mark.usefixtures("repository")
def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for base, message in (
        ("nowhere", r"base \(nowhere\) must be a result file or a commit; git knows none"),
        (result_file(file, identity="a toaster"), r"must come from this machine \(.*\), not from a toaster"),
        (result_file(file.with_name("b.json"), commit="1234"), "at commit 1234, git knows none"),
        (result_file(file.with_name("c.json"), commit=None), "must say of which commit it is"),
    ):
        with pytest.raises(InputError, match=message):
            compare.commit_of(str(base), CPU)
    for text in ("{", "[]", "{}", '{"machine_info": {}}'):
        file.write_text(text)
        with pytest.raises(InputError, match="must be a JSON file of `make bench`"):
            compare.commit_of(str(file), CPU)


def test_worthwhile_cells_show_every_row_and_type_and_compile_nothing() -> None:
    axes = itertools.product((1, 64, 256), MODES, ("float32", "bfloat16"), (False, True))
    found = compare.worthwhile([*(Cell("A", *axis) for axis in axes), Cell("B", 1, "step", "float32", False)])
    assert {(cell.row, cell.batch, cell.mode, cell.dtype) for cell in found} == {
        *(("A", 64, mode, dtype) for mode in ("forward", "step") for dtype in ("float32", "bfloat16")),
        ("B", 1, "step", "float32"),
    }
    assert not any(cell.compiled for cell in found)
