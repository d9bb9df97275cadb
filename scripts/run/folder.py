"""The folder of one run: what was asked, on what machine, what happened, and what came out.

config.json, environment.json, metrics.csv, train.log, last.pt, previous.pt, checkpoints.json and best.pt while it runs;
then summary.json, findings.pt, the figures and report.html.
"""

import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
import weakref
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from scripts.system.errors import InputError
from scripts.system.files import read_json, read_torch, write_whole

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class RunFolder:
    """Writes the files of one run. Every file is whole at any instant, or ends with the last whole line.

    One process at a time: a lock on the folder ends with the process, however that ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT)
        weakref.finalize(self, os.close, handle)
        try:
            lock(handle)
        except OSError as error:
            raise InputError(f"run folder ({path}) must belong to no other process; one is writing there") from error

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Make a folder for a new run.

        Raises:
            InputError: If something is there already; it is left alone.
        """
        cls.refuse_taken(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out ({path}) must be a folder that can be made; {error.strerror}") from error
        return cls(path)

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Go on writing where a run was ended early.

        Raises:
            InputError: If it was not, or its process is still at work.
        """
        if (path / "summary.json").exists():
            report = f"python -m scripts.report {path} draws its report"
            raise InputError(f"--resume ({path}) must be a run that was ended early; this one is finished: {report}")
        return cls(path)

    @staticmethod
    def refuse_taken(path: Path) -> None:
        """Raise InputError if something is at that place already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"--out ({path}) must be a new or an empty folder; something is there already")

    @property
    def log_size(self) -> int:
        """Bytes in train.log."""
        log = self.path / "train.log"
        return log.stat().st_size if log.exists() else 0

    def log(self, line: str) -> None:
        """Print a line and keep it in train.log."""
        print(line, flush=True)
        path = self.path / "train.log"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error

    def announce(self, notice: str) -> None:
        """Log what nobody must overlook; nothing when there is nothing."""
        if notice:
            self.log("\n".join(("*" * 100, f"NOTICE: {notice}", "*" * 100)))

    def rewind(self, log_size: int, rows: Sequence[dict[str, float]]) -> None:
        """Forget what was logged and measured after a checkpoint: it will happen once more."""
        if self.log_size > log_size:  # never made longer: a power cut may have taken its end
            os.truncate(self.path / "train.log", log_size)
        if rows:
            self.metrics(rows)
        else:
            (self.path / "metrics.csv").unlink(missing_ok=True)

    def metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Write metrics.csv; the first row names the columns, and all have the same."""
        names = list(rows[0])
        lines = [names, *([format(row[name], ".6g") for name in names] for row in rows)]
        text = "".join(",".join(line) + "\n" for line in lines)
        write_whole(self.path / "metrics.csv", lambda file: file.write(text.encode()))

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Write one JSON file."""
        text = json.dumps(content, indent=2) + "\n"
        write_whole(self.path / name, lambda file: file.write(text.encode()))

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write tensors and plain values, readable with ``torch.load(..., weights_only=True)``."""

        def save(file: IO[bytes]) -> None:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch closes its archive, which fails too, and hides why
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

        write_whole(self.path / name, save)

    def keep(self, state: dict[str, Any]) -> None:
        """Write last.pt, and keep the one before as previous.pt; their hashes stand in checkpoints.json."""
        following, last = self.path / ".following.pt", self.path / "last.pt"
        self.checkpoint(following.name, state)
        hashes = [digest(path) for path in (following, last) if path.exists()]
        self.json("checkpoints.json", {"sha256": hashes})  # first: at every instant a file that is there is known
        if last.exists():
            last.replace(self.path / "previous.pt")
        following.replace(last)

    def last_sound(self) -> dict[str, Any] | None:
        """The last checkpoint that is as it was written, or None before the first one.

        Raises:
            InputError: If all that are there are damaged, or the one to go on from is no checkpoint.
        """
        index = self.path / "checkpoints.json"
        known = read_json(index).get("sha256") if index.exists() else []
        there = [path for path in (self.path / "last.pt", self.path / "previous.pt") if path.exists()]
        if not there:
            return None
        sound = next((path for path in there if isinstance(known, list) and digest(path) in known), None)
        if sound is None:
            raise InputError(f"--resume ({self.path}) must hold a sound checkpoint; all are damaged")
        if sound != there[0]:
            print(f"WARNING: {there[0]} is damaged: its hash is not in {index.name}", file=sys.stderr)
        state = read_torch(sound)
        if not isinstance(state, dict):
            raise InputError(f"{sound} must be a checkpoint; it is another torch file")
        return state


class WatchedFolder(RunFolder):
    """The folder that another process writes: this one reads, and what it has to say is said by the other."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, line: str) -> None:
        """Say nothing."""

    def rewind(self, log_size: int, rows: Sequence[dict[str, float]]) -> None:
        """Leave it as it is."""

    def metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Leave it as it is."""

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Leave it as it is."""

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Leave it as it is."""

    def keep(self, state: dict[str, Any]) -> None:
        """Leave it as it is."""


def lock(handle: int) -> None:
    """Let no other process lock this file until it is closed.

    Raises:
        OSError: If one has locked it.
    """
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def read_config(folder: Path) -> dict[str, dict[str, Any]]:
    """What was asked, and what it was resolved to.

    Raises:
        InputError: If config.json holds anything else.
    """
    path = folder / "config.json"
    config = read_json(path)
    if not all(isinstance(config.get(part), dict) for part in ("asked", "resolved")):
        raise InputError(f"{path} must hold what was asked and what that was resolved to; it is damaged")
    return config


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv.

    Raises:
        InputError: If one is not whole, or holds anything else than numbers.
    """
    path = folder / "metrics.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file, strict=True)]
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} must hold rows of numbers below their names; it is damaged") from error


def environment(device: torch.device) -> dict[str, Any]:
    """What the run depends on beside its configuration: code, versions, machine."""
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    commit, changed = revision()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "uncommitted_changes": changed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "accelerator": accelerator,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def revision() -> tuple[str | None, bool | None]:
    """The commit that this code is of, and whether it was changed since; None where nobody knows.

    Code that was installed into somebody's checkout is not of their commit: git must know this file.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD"), None if changes is None else changes != ""


def _git(*arguments: str) -> str | None:
    """The output of a git command in the folder of this file, or None where it fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
