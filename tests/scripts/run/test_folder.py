"""A run folder is new, and complete at any instant."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run.folder import RunFolder, read_metrics
from scripts.system import locks
from scripts.system.errors import InputError


def test_metrics_are_read_as_numbers_by_name(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.metrics([{"epoch": epoch, "loss": 1 / 3} for epoch in (1, 2)])
    assert read_metrics(tmp_path / "run") == [{"epoch": 1.0, "loss": 0.333333}, {"epoch": 2.0, "loss": 0.333333}]


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "epoch,loss\n1\n", "epoch,loss\n1,much\n", "epoch\n1,2\n"])
def test_metrics_that_cannot_be_read_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.csv must hold rows of numbers"):
        read_metrics(tmp_path)


def test_a_notice_is_logged_unless_it_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.announce("")
    assert capsys.readouterr().out == ""
    folder.announce("digits instead")
    assert "NOTICE: digits instead" in capsys.readouterr().out
    assert "NOTICE: digits instead" in (tmp_path / "run" / "train.log").read_text()


def test_what_a_killed_writer_left_half_written_neither_blocks_the_folder_nor_stays(tmp_path: Path) -> None:
    """After a kill while the first file is written, the command that began the run begins it again."""
    (tmp_path / "run").mkdir()
    left, theirs = f".environment.json.{'0' * 32}.part", "notes.part"
    (tmp_path / "run" / left).touch()
    folder = RunFolder.create(tmp_path / "run")
    (tmp_path / "run" / theirs).touch()
    folder.rewind(0, [])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", theirs}
    with pytest.raises(InputError, match="must be a new or empty folder"):
        RunFolder.create(tmp_path / "run")


WINDOWS = """
import ctypes, subprocess, sys, types
import torch
import scripts.system.files, scripts.system.processes
from pathlib import Path

held = []

def locking(handle, mode, size):
    if held:
        raise PermissionError(13, "Permission denied")
    held.append((mode, size))

sys.modules |= {"fcntl": None, "resource": None, "msvcrt": types.SimpleNamespace(locking=locking, LK_NBLCK=2)}
sys.platform, ctypes.CDLL = "win32", None
from scripts.system.devices import keep_freed_memory, peak_memory
from scripts.system.errors import InputError
from scripts.run.folder import RunFolder

keep_freed_memory()
print(peak_memory(torch.device("cpu")))
first = RunFolder.create(Path(sys.argv[1]))
print(held)
try:
    RunFolder.reopen(first.path)
except InputError as error:
    print(error)
"""


def test_windows_needs_neither_fcntl_nor_resource(tmp_path: Path) -> None:
    """It locks with msvcrt, and peak memory is not measured."""
    run = subprocess.run([sys.executable, "-c", WINDOWS, str(tmp_path / "run")], capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        "0.0",
        "[(2, 1)]",
        f"run folder ({tmp_path / 'run'}) must not be in use; another process is writing to it",
    ]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def lock(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "lock", lock)
    RunFolder.create(tmp_path / "run").log("written")
    why = f"cannot be locked on this file system ({os.strerror(number)})"
    assert capsys.readouterr().err == f"WARNING: {tmp_path / 'run'} {why}: let no other run write there\n"
