"""`make bench` writes each result at once, so that errors and even kill -9 leave the others."""

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
from benchmarks.test_epoch import within
from benchmarks.trees.comparison import read_machine
from scripts.system.machine import this_machine
from tests.support.machines import CPU, EVERY, EVERY_CPU
from tests.support.sources import ROOT

SELECTED = "lite-32px-batch1-forward-float32 or Block-lite-32px-batch1-step-float16"
# a plugin of the run: peaks that need no measuring, and an error of its own in each of three components
GOES_WRONG = """
import os, signal
from benchmarks.measure import machine
from components import MLP, Block, Encoder
from pytest_benchmark.fixture import BenchmarkFixture

machine.peaks = lambda device: {"matmul_float32": 50e9, "matmul_bfloat16": 50e9, "matmul_float16": 50e9, "copy": 1e10}
right, mlp, timed, was_timed, inside_a_block = Block.forward, MLP.forward, BenchmarkFixture.pedantic, [], []


def raises(self, x):
    if not inside_a_block:
        raise RuntimeError("out of memory\\nand more")
    return mlp(self, x)


def is_wrong_once_it_was_timed(self, x, *rest, **options):
    inside_a_block.append(0)
    try:
        return right(self, x, *rest, **options) + 7 * ("Block" in "".join(was_timed))
    finally:
        inside_a_block.pop()


def pedantic(self, *arguments, **options):
    timed(self, *arguments, **options)
    was_timed.append(self.name)


MLP.forward, Block.forward, BenchmarkFixture.pedantic = raises, is_wrong_once_it_was_timed, pedantic
Encoder.forward = lambda self, x, **options: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_results_errors_and_reasons(tmp_path: Path) -> None:
    """Five cells: two are right, one raises, one is wrong after it was timed, one kills the run."""
    (tmp_path / "goes_wrong.py").write_text(GOES_WRONG)
    out = tmp_path / "out" / "bench.json"
    command = [sys.executable, "-m", "pytest", "benchmarks/test_grid.py", "-q", "-p", "goes_wrong", "-k", SELECTED]
    command += ["-p", "no:cacheprovider", f"--benchmark-json={out}"]
    here = {
        name: value for name, value in os.environ.items() if "XDIST" not in name
    }  # with xdist nothing would be timed
    environment = here | {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stdout + run.stderr
    content = json.loads(out.read_text("utf-8"))
    assert [each["extra_info"]["cell"]["row"].split("-")[0] for each in content["benchmarks"]] == [
        "PatchEmbeddings", "Attention",
    ]  # fmt: skip
    for measured in content["benchmarks"]:
        assert measured["stats"]["median"] > 0
        assert "data" not in measured["stats"], "times of single rounds"
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
    """The plugin of a run on a CPU, without pytest."""
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


def test_a_cell_after_the_time_for_all_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((5.0, 6.0, 5000.0))
    monkeypatch.setattr(conftest, "clock", lambda device: next(seconds))
    found, config = results(None), SimpleNamespace(option=SimpleNamespace(benchmark_disable=False))
    cell = Cell("MLP-lite-32px", 1, "forward", "float32", False)
    item = SimpleNamespace(config=config, callspec=SimpleNamespace(params={"cell": cell}))
    found.pytest_runtest_setup(item)
    found.pytest_runtest_setup(item)
    assert not found.selection.left_out
    with pytest.raises(pytest.skip.Exception, match="out of time"):
        found.pytest_runtest_setup(item)
    assert found.selection.left_out[cell].endswith("after 4995 s")


def test_limits_hold_on_a_cpu_alone() -> None:
    for machine in EVERY:
        assert within(1.05, 1.1, machine)
        assert within(1.27, 1.1, machine) == (machine not in EVERY_CPU)
