"""The run folder: configuration, environment, metrics, log, checkpoints, and the results.

During the run: config.json, environment.json, metrics.csv, train.log, last.pt, previous.pt, checkpoints.json, best.pt.
At the end: summary.json, findings.pt, the figures and report.html.
"""

import csv
import hashlib
import json
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.run.tensorboard import Events
from scripts.system.command_line import command
from scripts.system.errors import InputError
from scripts.system.files import is_part, read_json, read_torch, write_bytes, write_whole
from scripts.system.folders import make_folder
from scripts.system.locks import IN_USE, lock_within
from scripts.system.terminal import say, warn

BEFORE_CONFIG = (".lock", "environment.json")  # what a run writes before config.json, with which it can be resumed


class RunFolder:
    """Writes the files of one run. At any instant every file is complete, the log up to its last whole line.

    A lock keeps other processes out; it is released when the process ends, in any way.

    Args:
        path: The folder, which exists.
        patience: How long to wait for the lock, in seconds: the lock of a machine that died is released by the server
            of the files, which notices after one or two minutes.

    Attributes:
        events: Gets the rows of metrics.csv too, where the run asked for it.
    """

    events: Events | None = None

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        self.path = path
        handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT)
        self._unlock = weakref.finalize(self, os.close, handle)
        try:
            lock_within(handle, patience)
        except OSError as error:
            if error.errno in IN_USE:
                wanted = "must not be in use; another process is writing to it"
                raise InputError(f"run folder ({path}) {wanted}") from error
            why = f"{path} cannot be locked on this file system ({error.strerror})"
            warn(f"WARNING: {why}: let no other run write there")

    def release(self) -> None:
        """Let other processes in, before the last reference to this is gone."""
        self._unlock()

    @classmethod
    def create(cls, path: Path, patience: float = 0.0) -> "RunFolder":
        """Create the folder of a new run.

        Raises:
            InputError: If the path exists and is not an empty folder; it is left alone.
        """
        cls.refuse_taken(path)
        make_folder(path, f"--out ({path})")
        return cls._locked(path, patience, cls.refuse_taken)  # by a run that began and ended meanwhile

    @classmethod
    def reopen(cls, path: Path, patience: float = 0.0) -> "RunFolder":
        """Open the folder of an unfinished run.

        Raises:
            InputError: If the run is finished or still running.
        """
        cls.refuse_finished(path)
        return cls._locked(path, patience, cls.refuse_finished)  # by a process that ended meanwhile

    @classmethod
    def _locked(cls, path: Path, patience: float, check: Callable[[Path], None]) -> "RunFolder":
        """Open the folder, and check it once more now that nobody else writes there."""
        folder = cls(path, patience)
        try:
            check(path)
        except InputError:
            folder.release()
            raise
        return folder

    @staticmethod
    def refuse_finished(path: Path) -> None:
        """Raise InputError if the run has nothing left to do."""
        if (path / "summary.json").exists():
            report = f"{command('-m', 'scripts.report', str(path))} draws its report"
            raise InputError(f"--resume ({path}) must be an unfinished run; this one is finished: {report}")

    @staticmethod
    def refuse_taken(path: Path) -> None:
        """Raise InputError if the path exists and is not an empty folder; a run that died as it began left nothing."""
        if path.exists() and (not path.is_dir() or any(not _is_beginning(file.name) for file in path.iterdir())):
            raise InputError(f"--out ({path}) must be a new or empty folder; it exists already")

    @property
    def log_size(self) -> int:
        """Size of train.log in bytes."""
        log = self.path / "train.log"
        return log.stat().st_size if log.exists() else 0

    def log(self, line: str) -> None:
        """Print a line and append it to train.log."""
        say(line)
        path = self.path / "train.log"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error

    def announce(self, notice: str) -> None:
        """Log a notice between lines of asterisks, unless it is empty."""
        if notice:
            self.log("\n".join(("*" * 100, f"NOTICE: {notice}", "*" * 100)))

    def seen(self) -> str:
        """Return what tells one state of a run from another: hashes of its configuration and of its checkpoints."""
        names = ("config.json", "checkpoints.json")
        return " ".join(digest(path) if (path := self.path / name).exists() else "nothing" for name in names)

    def sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for file in half_written(self.path):
            file.unlink(missing_ok=True)

    def rewind(self, log_size: int, rows: Sequence[dict[str, float]]) -> None:
        """Drop the log and metrics written after a checkpoint, since that part is repeated, and half-written files."""
        self.sweep()
        if self.log_size > log_size:  # truncate would extend a log whose end was lost in a power cut
            os.truncate(self.path / "train.log", log_size)
        if rows:
            self.metrics(rows)
        else:
            (self.path / "metrics.csv").unlink(missing_ok=True)

    def metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Write metrics.csv, and its events where there are any; all rows have the columns of the first one."""
        names = list(rows[0])
        lines = [names, *([format(row[name], ".6g") for name in names] for row in rows)]
        text = "".join(",".join(line) + "\n" for line in lines)
        write_bytes(self.path / "metrics.csv", text.encode())
        if self.events is not None:
            self.events.rows(rows)

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Write one JSON file."""
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        write_bytes(self.path / name, text.encode())

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write tensors and plain values, readable with ``torch.load(..., weights_only=True)``."""
        write_whole(self.path / name, lambda file: torch.save(state, file))

    def keep(self, state: dict[str, Any]) -> None:
        """Write last.pt, keep the one before as previous.pt, and write the hashes of both to checkpoints.json.

        A damaged last.pt is overwritten instead, and previous.pt stays.
        """
        following, last, previous = (self.path / name for name in (".following.pt", "last.pt", "previous.pt"))
        self.checkpoint(following.name, state)
        try:
            known = self._hashes()
        except InputError:  # no reason to end a run: it has the checkpoint that is written now
            known = []
        good = {path: found for path in (last, previous) if path.exists() and (found := digest(path)) in known}
        hashes = [digest(following), *good.values()]
        self.json("checkpoints.json", {"sha256": hashes})  # before renaming: every good checkpoint has its hash
        if last in good:
            last.replace(previous)
        following.replace(last)

    def last_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest undamaged checkpoint, or None before the first one.

        Raises:
            InputError: If all checkpoints are damaged, or the newest holds something else.
        """
        saved = checkpoints(self.path)
        if not saved:
            return None
        known = self._hashes()
        newest = next((path for path in saved if digest(path) in known), None)
        if newest is None:
            raise InputError(f"--resume ({self.path}) must hold an undamaged checkpoint; all are damaged")
        if newest != saved[0]:
            warn(f"WARNING: {saved[0]} is damaged: its hash is not in checkpoints.json")
        state = read_torch(newest)
        if not isinstance(state, dict):
            raise InputError(f"{newest} must be a checkpoint; it is another torch file")
        return state

    def _hashes(self) -> list[Any]:
        """Return the hashes of the checkpoints.

        Raises:
            InputError: If their file is damaged.
        """
        index = self.path / "checkpoints.json"
        known = read_json(index).get("sha256") if index.exists() else None
        return known if isinstance(known, list) else []


class ReadOnlyFolder(RunFolder):
    """The run folder in all processes but the first: nothing is written or logged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _ignore(self, *_: Any, **__: Any) -> None:
        pass

    log = sweep = rewind = metrics = json = checkpoint = keep = release = _ignore


def _is_beginning(name: str) -> bool:
    """Whether a run leaves a file of this name if it dies as it begins."""
    return name in BEFORE_CONFIG or is_part(name)


def half_written(folder: Path) -> list[Path]:
    """What a process that was killed, or is at work, has half-written there."""
    return [path for path in folder.iterdir() if is_part(path.name)]


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints to resume from that are there, the newest first."""
    return [path for path in (folder / "last.pt", folder / "previous.pt") if path.exists()]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def read_config(folder: Path) -> dict[str, dict[str, Any]]:
    """Read config.json: the flags under ``asked``, and the plan that they gave under ``resolved``.

    Raises:
        InputError: If the file is damaged.
    """
    path = folder / "config.json"
    config = read_json(path)
    if not all(isinstance(config.get(part), dict) for part in ("asked", "resolved")):
        raise InputError(f"{path} must hold the objects asked and resolved; it is damaged")
    return config


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the rows of metrics.csv.

    Raises:
        InputError: If there is no row, or one is incomplete or holds anything but numbers.
    """
    path = folder / "metrics.csv"
    wanted = f"{path} must hold rows of numbers below the names of the columns; it is damaged"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file, strict=True)]
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(wanted) from error
    if not rows:
        raise InputError(wanted)
    return rows
