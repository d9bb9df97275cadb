"""The folder of one run: what was asked, on what machine, what happened, and what came out.

config.json, environment.json, metrics.csv, train.log, last.pt and best.pt while it runs; then summary.json,
findings.pt, the figures and report.html.
"""

import csv
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from scripts.errors import InputError
from scripts.files import write_whole


class RunFolder:
    """Writes the files of one run. Every file is whole at any instant, or ends with the last whole line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] | None = None

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Make a folder for a new run.

        Raises:
            InputError: If something is there already; it is left alone.
        """
        cls.refuse_taken(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @staticmethod
    def refuse_taken(path: Path) -> None:
        """Raise InputError if something is at that place already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"--out ({path}) must be a new or an empty folder; something is there already")

    def log(self, line: str) -> None:
        """Print a line and keep it in train.log."""
        print(line, flush=True)
        self._append("train.log", line + "\n")

    def announce(self, notice: str) -> None:
        """Log what nobody must overlook; nothing when there is nothing."""
        if notice:
            self.log("\n".join(("*" * 100, f"NOTICE: {notice}", "*" * 100)))

    def metrics(self, row: dict[str, float]) -> None:
        """Add a row to metrics.csv; the first one names the columns, and all have the same."""
        if self._columns is None:
            self._columns = list(row)
            self._append("metrics.csv", ",".join(self._columns) + "\n")
        self._append("metrics.csv", ",".join(format(row[name], ".6g") for name in self._columns) + "\n")

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Write one JSON file."""
        text = json.dumps(content, indent=2) + "\n"
        write_whole(self.path / name, lambda file: file.write(text.encode()))

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write tensors and plain values, readable with ``torch.load(..., weights_only=True)``."""
        write_whole(self.path / name, lambda file: torch.save(state, file))

    def _append(self, name: str, text: str) -> None:
        path = self.path / name
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def environment(device: torch.device) -> dict[str, Any]:
    """What the run depends on beside its configuration: code, versions, machine."""
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "accelerator": accelerator,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str | None:
    """The output of a git command, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
