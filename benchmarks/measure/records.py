"""Where measurements are kept: one file a machine, day and subject."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from scripts.system.errors import InputError, one_line
from scripts.system.files import write_whole
from scripts.system.machine import this_machine

RESULTS = Path(__file__).parents[1] / "results"


def target(out: str | None, part: bool, device: torch.device, subject: str) -> Path | None:
    """The file that was asked for, or else one named after machine and day; none for a part, which is no result.

    Raises:
        InputError: If it is not JSON.
    """
    if out is None:
        machine = re.sub(r"[\W_]+", "-", this_machine(device).identity).strip("-").lower()
        return None if part else RESULTS / f"{machine}--{datetime.now(timezone.utc).date()}--{subject}.json"
    if not out.endswith(".json"):
        raise InputError(f"--out ({out}) must end in .json")
    return Path(out)


@contextmanager
def noted(content: dict[str, Any], name: str) -> Iterator[None]:
    """An error ends what is measured inside, not what follows: it is printed, and kept under ``errors``."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = one_line(f"{type(error).__name__}: {error}")
        content["errors"].append({"name": name, "error": said})
        print(f"{name}: {said}", file=sys.stderr, flush=True)


def finish(content: Mapping[str, Any]) -> None:
    """Exit with code 1 if something could not be measured."""
    if content["errors"]:
        sys.exit(1)


def write(path: Path | None, content: Mapping[str, Any]) -> None:
    """Keep it, if there is where."""
    if path is not None:
        write_whole(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))
