"""A terminal that lacks characters, or is gone, ends no run."""

import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.system.command_line import command, run
from scripts.system.errors import Stopped
from tests.support.sources import ROOT
from tests.support.trees import write_tree

TRAIN = (sys.executable, "-m", "scripts.train_stn", "--device", "cpu", "--precision", "float32")


def test_a_character_that_a_terminal_lacks_is_shown_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit) as end:
        run(lambda: print("run folder \u732b", flush=True), "train_stn")
    assert end.value.code == 0
    assert raw.getvalue() == rb"run folder \u732b" + b"\n"


@pytest.mark.parametrize("folder", ["runs/first", "my runs/it's $HOME", "a;b & c", "-d"])
def test_the_command_that_resumes_a_run_names_its_folder_to_a_shell(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def stop() -> None:
        raise Stopped(signal.SIGTERM, "stopped", folder)

    with pytest.raises(SystemExit):
        run(stop, "train_stn")
    command = capsys.readouterr().err.partition("; to resume: ")[2]
    assert shlex.split(command) == [sys.executable, "-m", "scripts.train_stn", f"--resume={folder}"]


def test_a_command_names_the_python_of_an_environment_here_as_people_type_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert command("-m", "scripts.report", "my run") == ".venv/bin/python -m scripts.report 'my run'"


@pytest.mark.parametrize("closed", ("1", "2", "1 2"))
def test_what_is_closed_at_the_start_is_no_file_of_the_run_and_no_error(closed: str, tmp_path: Path) -> None:
    """As daemons start programs: the next file that is opened would take its place, and the bar has no stream."""
    program = """
import os, sys
from scripts.system.command_line import run
def main():
    print("said", flush=True)
    print("warned", file=sys.stderr, flush=True)
    with open("file", "w") as file:
        assert file.fileno() > 2
run(main, "train_stn")
"""
    shell = shlex.join([sys.executable, "-c", program]) + "".join(f" {each}>&-" for each in closed.split())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stdout == ("" if "1" in closed else "said\n")
    assert ended.stderr == ("" if "2" in closed else "warned\n")
    assert (tmp_path / "file").read_text() == ""


def test_a_library_that_is_missing_is_one_line_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def main() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    with pytest.raises(SystemExit) as end:
        run(main, "report")
    assert end.value.code == 2
    wanted = f"torch must be installed: {shlex.quote(sys.executable)} -m pip install -e '.[test]'"
    assert capsys.readouterr().err == f"report: error: {wanted}; make setup does so in .venv\n"


def test_a_module_of_the_kit_that_is_missing_is_a_fault_of_the_kit() -> None:
    def main() -> None:
        raise ModuleNotFoundError("No module named 'scripts.nowhere'", name="scripts.nowhere")

    with pytest.raises(ModuleNotFoundError):
        run(main, "report")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        ("Stopped(signal.SIGINT, 'stopped', 'run')", 130),
        ("InputError('--data (x) must be y')", 2),
        ("Diverged('why')", 1),
    ],
)
def test_exit_codes_are_kept_where_nobody_reads_the_errors(raised: str, code: int) -> None:
    """As when Ctrl-C ends ``tee`` too, or the terminal is closed: what starts a run again goes by its code."""
    program = f"""
import signal
from scripts.system.command_line import run
from scripts.system.errors import Diverged, InputError, Stopped
def end():
    raise {raised}
run(end, "train_stn")
"""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=writing, stderr=writing)
    os.close(writing)
    assert ended.returncode == code


def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    """As behind ``| head -3``: after the first line the pipe is closed."""
    write_tree(tmp_path / "\u732b photos")
    flags = ("--data", "\u732b photos", "--epochs", "3", "--out", "run")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(
        [*TRAIN, *flags], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "\\u732b photos" in process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert (tmp_path / "run" / "summary.json").exists()
    log = (tmp_path / "run" / "train.log").read_text("utf-8")
    assert "\u732b photos" in log
    assert log.count("Epoch ") == 3
