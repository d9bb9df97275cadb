"""`make gpu-check`: each step ends in time, and results survive however the check ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.expression import Expression

from benchmarks import gpu_check
from benchmarks.gpu_check import (
    CUT_OFF,
    FAILED,
    LEFT_OUT,
    PASSED,
    ROOT,
    RUNNING,
    Result,
    Step,
    install,
    require_gpu,
    run_steps,
    steps,
)
from benchmarks.grid.cells import grid
from benchmarks.grid.selection import obstacle
from benchmarks.options import GpuCheckOptions
from benchmarks.peers.comparison import PROCESSES, groups
from benchmarks.peers.tasks import tasks
from scripts.system.errors import InputError
from scripts.system.machine import Machine
from tests.support.machines import H100, MI300, T4

SLEEPS = "import time; time.sleep(60)"
LEAVES_A_CHILD = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{SLEEPS}']).pid, flush=True); {SLEEPS}"
)


def step(name: str, program: str, seconds: float = 30.0, packages: tuple[str, ...] = ()) -> Step:
    return Step(name, f"what does {name} do?", seconds, ("-c", program), ("-c", "print('small')"), packages)


def outcomes(out: Path, *planned: Step, seconds: float = 60.0, rehearse: bool = False) -> dict[str, Result]:
    found = run_steps(planned, out, seconds, dict(os.environ), rehearse=rehearse)
    assert summary(out)["steps"] == [vars(result) for result in found]
    return {result.name: result for result in found}


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def gone(pid: int) -> bool:
    """Whether that process has ended, even if it is still a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/status")  # of Linux
    return status.exists() and "State:\tZ" in status.read_text()


def test_a_process_that_runs_is_not_gone() -> None:
    assert not gone(os.getpid())


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_step_that_fails_or_cannot_run_does_not_stop_the_others(tmp_path: Path) -> None:
    found = outcomes(
        tmp_path, step("good", "print('found')"), step("bad", "raise SystemExit(3)"),
        step("poor", "print('never')", packages=("json", "no_such_package")), step("last", "print('too')"),
    )  # fmt: skip
    assert [result.state for result in found.values()] == [PASSED, FAILED, LEFT_OUT, PASSED]
    assert found["bad"].remark == "exit code 3, see bad.log"
    assert found["poor"].remark == "no_such_package not installed"
    assert (tmp_path / "good.log").read_text() == "found\n"
    assert not (tmp_path / "poor.log").exists()


def test_a_step_that_is_cut_off_loses_its_children_and_keeps_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, log = subprocess.Popen.wait, tmp_path / "slow.log"

    def wait_once_it_runs(process: subprocess.Popen[bytes], seconds: float | None = None) -> int:
        assert eventually(lambda: log.read_text() != ""), "on a busy machine Python takes seconds to start"
        return wait(process, seconds)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_once_it_runs)
    found = outcomes(tmp_path, step("slow", LEAVES_A_CHILD, seconds=0.5), step("next", "print(1)"))
    assert (found["slow"].state, found["next"].state) == (CUT_OFF, PASSED)
    assert found["slow"].seconds >= 0.5
    assert eventually(lambda: gone(int((tmp_path / "slow.log").read_text())))


def test_no_step_starts_without_time(tmp_path: Path) -> None:
    found = outcomes(tmp_path, step("one", "print(1)"), seconds=gpu_check.LEAST - 1)
    assert (found["one"].state, found["one"].remark) == (LEFT_OUT, "no time left")


def test_a_rehearsal_runs_the_small_command(tmp_path: Path) -> None:
    outcomes(tmp_path, step("one", "print('large')"), rehearse=True)
    assert (tmp_path / "one.log").read_text() == "small\n"
    assert summary(tmp_path)["rehearsal"] is True


def test_a_check_that_is_terminated_leaves_its_results_and_no_process(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from benchmarks import gpu_check
from benchmarks.gpu_check import Step
gpu_check.steps = lambda out, data: [
    Step("quick", "?", 30, ("-c", "print('done')"), ("-c", "print('done')")),
    Step("slow", "?", 30, ("-c", {LEAVES_A_CHILD!r}), ("-c", {LEAVES_A_CHILD!r})),
]
gpu_check.main(gpu_check.GpuCheckOptions(out={str(tmp_path / "out")!r}, rehearse=True))
"""
    check = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    log = tmp_path / "out" / "slow.log"
    assert eventually(lambda: log.exists() and log.read_text().endswith("\n"))
    check.send_signal(signal.SIGTERM)
    assert check.wait(20) == 128 + signal.SIGTERM
    assert [(one["name"], one["state"]) for one in summary(tmp_path / "out")["steps"]] == [
        ("quick", PASSED), ("slow", RUNNING),
    ]  # fmt: skip
    assert eventually(lambda: gone(int(log.read_text())))


def test_wheels_are_found_by_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "carried-1-py3-none-any.whl"
    wheel.touch()
    commands: list[str] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.extend(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_check.subprocess, "run", pip)
    monkeypatch.setattr(sys, "path", [*sys.path])
    packages = str(tmp_path / "out" / "packages")
    environment = install(str(tmp_path), tmp_path / "out")
    assert commands[-2:] == [packages, str(wheel)]
    assert "--no-index" in commands
    assert environment["PYTHONPATH"].split(os.pathsep)[:2] == [str(ROOT), packages]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--out {taken}", "--out ({taken}) must be a new or an empty folder; something is there already"),
        ("--out {new}", "gpu-check must run where torch finds a GPU; it finds none (--rehearse tries it on the CPU)"),
        ("--out {new} --wheels {new} --rehearse",
         "--wheels ({new}) must be a folder of wheels that pip can install here"),
    ],
    ids=("folder taken", "no gpu", "no wheels"),
)  # fmt: skip
def test_bad_flags_and_a_missing_gpu_are_errors_in_one_line(flags: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").touch()
    names = {"taken": str(tmp_path / "taken"), "new": str(tmp_path / "new")}
    command = [sys.executable, "-m", "benchmarks.gpu_check", *flags.format(**names).split()]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (2, f"gpu-check: error: {message.format(**names)}\n")


def test_a_python_without_torch_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    with pytest.raises(InputError, match=r"finds a GPU; ModuleNotFoundError: No module named 'torch' \(--rehearse"):
        require_gpu({**os.environ, "PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize("rehearse", [False, True])
def test_what_is_left_out_is_no_failure_on_a_gpu_but_one_in_a_rehearsal(
    rehearse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal shows that every step can run."""
    planned = [step("one", "print(1)"), step("poor", "print(2)", packages=("no_such_package",))]
    monkeypatch.setattr(gpu_check, "steps", lambda out, data: planned)
    monkeypatch.setattr(gpu_check, "require_gpu", lambda environment: None)
    monkeypatch.setattr(gpu_check.signal, "signal", lambda number, handler: None)
    given = GpuCheckOptions(out=str(tmp_path / "out"), rehearse=rehearse)
    assert gpu_check.main(given) == (not rehearse)
    planned.pop()
    assert gpu_check.main(replace(given, out=str(tmp_path / "all")))


@pytest.mark.parametrize("machine", [T4, H100, MI300], ids=lambda machine: machine.name)
def test_every_type_that_a_gpu_is_fast_at_is_measured(machine: Machine, tmp_path: Path) -> None:
    (arguments,) = (each.arguments for each in steps(tmp_path, "digits") if each.name == "bench")
    wanted = Expression.compile(arguments[arguments.index("-k") + 1])
    names = {cell: f"test_grid[{cell}]" for cell in grid() if not obstacle(cell, machine)}
    measured = [cell for cell in names if wanted.evaluate(lambda word, cell=cell: word in names[cell])]
    assert {cell.dtype for cell in measured} == {*machine.types}
    assert {cell.mode for cell in measured} == {"forward", "step"}
    assert 0.8 * len(measured) < 150, "a cell takes at least as long"


def test_peers_can_be_measured_in_their_time(tmp_path: Path) -> None:
    """Every process imports five libraries, which takes eight seconds of a CPU."""
    (peers,) = (each for each in steps(tmp_path, "digits") if each.name == "peers")
    minutes, only = (peers.arguments[peers.arguments.index(flag) + 1] for flag in ("--minutes", "--only"))
    found = list(groups(tasks(), H100, only))
    assert found
    assert len(found) * PROCESSES * 10 + 60 * float(minutes) <= peers.seconds


def test_the_files_of_every_step_exist(tmp_path: Path) -> None:
    planned = steps(tmp_path, "digits")
    assert len({each.name for each in planned}) == len(planned)
    for _, module, *arguments in (command for each in planned for command in (each.arguments, each.rehearsal)):
        files = [name for name in arguments if name.endswith(".py")]
        assert bool(files) == (module == "pytest")
        assert all((ROOT / name).is_file() for name in files or [f"{module.replace('.', '/')}.py"])
