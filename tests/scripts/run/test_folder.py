"""A run folder is new, complete at any instant, and records the code and the machine of the run."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.run import folder as run_folder
from scripts.run.folder import RunFolder, environment, read_metrics
from scripts.system import locks
from scripts.system.errors import InputError


def test_metrics_are_read_as_numbers_by_name(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.metrics([{"epoch": epoch, "loss": 1 / 3} for epoch in (1, 2)])
    assert read_metrics(tmp_path / "run") == [{"epoch": 1.0, "loss": 0.333333}, {"epoch": 2.0, "loss": 0.333333}]


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


def test_the_environment_names_commit_versions_and_device() -> None:
    found = environment(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert re.fullmatch("[0-9a-f]{40}", found["commit"] or "0" * 40)
    assert found["torch"] == torch.__version__
    assert found["accelerator"] is None


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code outside of any repository."""
    code = tmp_path / "anywhere" / "scripts" / "run_folder.py"
    code.parent.mkdir(parents=True)
    code.write_text("code")
    monkeypatch.setattr(run_folder, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return code


def revision() -> tuple[str | None, bool | None]:
    found = environment(torch.device("cpu"))
    return found["commit"], found["uncommitted_changes"]


def commit(folder: Path, *paths: str) -> None:
    nobody = ("-c", "user.name=n", "-c", "user.email=e")
    for command in (["init"], ["add", *paths], [*nobody, "commit", "--message", "first"]):
        subprocess.run(["git", "-C", folder, *command], capture_output=True, check=True)


def test_in_a_checkout_commit_and_changes_are_known(copied: Path) -> None:
    commit(copied.parent.parent, ".")
    first, changed = revision()
    assert re.fullmatch("[0-9a-f]{40}", first or "")
    assert changed is False
    copied.write_text("other code")
    assert revision() == (first, True)


def test_outside_of_its_own_repository_commit_and_changes_are_unknown(copied: Path) -> None:
    """Also if it is installed into an environment inside the checkout of another project."""
    assert revision() == (None, None)
    (copied.parent.parent / "theirs.py").write_text("code")
    commit(copied.parent.parent, "theirs.py")
    assert revision() == (None, None)


def test_without_git_commit_and_changes_are_unknown(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(copied.parent.parent, ".")
    monkeypatch.setenv("PATH", str(copied.parent))
    assert revision() == (None, None)


def test_with_a_damaged_index_changes_are_unknown(copied: Path) -> None:
    commit(copied.parent.parent, ".")
    (copied.parent.parent / ".git" / "index").write_text("damaged")
    assert revision()[1] is None


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
