"""A terminal that lacks characters, or is gone, ends no run."""

import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.system.command_line import run
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


@pytest.mark.parametrize("folder", ["runs/first", "my runs/it's $HOME", "a;b & c"])
def test_the_command_that_resumes_a_run_names_its_folder_to_a_shell(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise Stopped(signal.SIGTERM, "stopped", folder)

    with pytest.raises(SystemExit):
        run(stop, "train_stn")
    command = capsys.readouterr().err.partition("; to resume: ")[2]
    assert shlex.split(command) == ["python", "-m", "scripts.train_stn", "--resume", folder]


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
