"""`make bench` keeps what it measures as it comes: killed or met by errors, it leaves the rest whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import conftest
from benchmarks.grid.cells import Cell
from benchmarks.grid.plan import Plan
from benchmarks.test_epoch import within
from benchmarks.trees.comparison import read_machine
from scripts.system.machine import this_machine
from tests.support.machines import CPU, EVERY, EVERY_CPU
from tests.support.sources import ROOT

CELLS = "lite-32px-batch1-forward-float32 or Block-lite-32px-batch1-step-float16"
# what a run is told beside its flags: peaks that need no measurement, and what goes wrong in which cell
GOES_WRONG = """
import os, signal
from benchmarks.measure import machine
from components import MLP, Block, Encoder
from pytest_benchmark.fixture import BenchmarkFixture

machine.peaks = lambda device: {"matmul_float32": 50e9, "matmul_bfloat16": 50e9, "matmul_float16": 50e9, "copy": 1e10}
right, timed, was_timed = Block.forward, BenchmarkFixture.pedantic, []


def mlp(self, x):
    raise RuntimeError("out of memory\\nand more")


def block(self, x, *rest, **options):
    return right(self, x, *rest, **options) + 7 * ("Block" in "".join(was_timed))


def encoder(self, x, *rest, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def pedantic(self, *arguments, **options):
    timed(self, *arguments, **options)
    was_timed.append(self.name)


BenchmarkFixture.pedantic = pedantic
MLP_forward, MLP.forward = MLP.forward, lambda self, x: mlp(self, x) if not INSIDE else MLP_forward(self, x)
INSIDE = []


def with_its_mlp(self, *arguments, **options):
    INSIDE.append(0)
    try:
        return block(self, *arguments, **options)
    finally:
        INSIDE.pop()


Block.forward = with_its_mlp
Encoder.forward = encoder
"""


def test_a_run_that_is_killed_leaves_what_was_measured_and_what_was_not_and_why(tmp_path: Path) -> None:
    """Five cells: one is right, one raises, one computes something else once it was timed, one ends the run."""
    (tmp_path / "goes_wrong.py").write_text(GOES_WRONG)
    out = tmp_path / "out" / "bench.json"
    command = [sys.executable, "-m", "pytest", "benchmarks/test_grid.py", "-q", "-p", "goes_wrong", "-k", CELLS]
    command += ["-p", "no:cacheprovider", f"--benchmark-json={out}"]
    here = {name: value for name, value in os.environ.items() if "XDIST" not in name}  # there nothing would be timed
    environment = here | {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stdout + run.stderr
    content = json.loads(out.read_text("utf-8"))
    assert [each["extra_info"]["cell"]["row"].split("-")[0] for each in content["benchmarks"]] == [
        "PatchEmbeddings", "Attention",
    ]  # fmt: skip
    for measured in content["benchmarks"]:
        assert measured["stats"]["median"] > 0
        assert "data" not in measured["stats"], "each round"
    assert content["errors"] == [
        {"name": f"test_grid[{row}-lite-32px-batch1-forward-float32-eager]", "error": error}
        for row, error in (
            ("MLP", "RuntimeError: out of memory"), ("Block", "AssertionError: Tensor-likes are not close!"),
        )
    ]  # fmt: skip
    assert content["left_out"] == [
        {"cell": "Block-lite-32px-batch1-step-float16-eager", "reason": "in an emulated type: float16"}
    ]
    assert read_machine(out)["identity"].startswith(this_machine(CPU).name)
    assert content["machine_info"]["peaks"]["copy"] == 1e10


def results(path: Path | None) -> conftest.Results:
    """Of a run on a CPU without pytest around it."""
    config = SimpleNamespace(hook=SimpleNamespace(pytest_benchmark_generate_json=lambda **what: {**what, "config": 0}))
    return conftest.Results(config, CPU, path)


def test_peaks_are_measured_once_more_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest.machine, "peaks", lambda device: {"copy": 1.0})
    found = results(tmp_path / "bench.json")
    found.pytest_sessionfinish()
    assert not found.path.exists(), "nothing was measured"
    found.benchmarks = ["a benchmark"]
    found.pytest_sessionfinish()
    assert json.loads(found.path.read_text("utf-8"))["machine_info"] == {"peaks_at_the_end": {"copy": 1.0}}


def test_the_terminal_says_how_many_cells_are_left_out_and_where_the_results_are() -> None:
    lines: list[str] = []
    found = results(Path("bench.json"))
    cells = [Cell("MLP-lite-32px", batch, "forward", "float32", False) for batch in (1, 64, 256)]
    reasons = ("too slow on this machine: an estimated 7 s", "too slow on this machine: an estimated 9 s", "too large")
    found.plan = Plan([], 0.0, dict(zip(cells, reasons, strict=True)))
    found.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    assert lines == ["cells left out: 2 too slow on this machine, 1 too large", "results: bench.json"]


def test_a_cell_that_is_too_late_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((5.0, 6.0, 5000.0))
    monkeypatch.setattr(conftest, "clock", lambda device: next(seconds))
    found, config = results(None), SimpleNamespace(option=SimpleNamespace(benchmark_disable=False))
    cell = Cell("MLP-lite-32px", 1, "forward", "float32", False)
    item = SimpleNamespace(config=config, callspec=SimpleNamespace(params={"cell": cell}))
    found.pytest_runtest_setup(item)
    found.pytest_runtest_setup(item)
    assert not found.plan.left_out
    with pytest.raises(pytest.skip.Exception, match="out of time"):
        found.pytest_runtest_setup(item)
    assert found.plan.left_out[cell].endswith("4995 s were spent")


def test_limits_are_a_cpus_and_on_a_gpu_figures_are_told() -> None:
    for machine in EVERY:
        assert within(1.05, 1.1, machine)
        assert within(1.27, 1.1, machine) == (machine not in EVERY_CPU)
