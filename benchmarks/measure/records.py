"""Result files: one for each machine, day and subject."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from scripts.system.errors import InputError, one_line
from scripts.system.files import read_json, write_bytes
from scripts.system.machine import this_machine

RESULTS = Path(__file__).parents[1] / "results"


def target(out: str | None, part: bool, device: torch.device, subject: str) -> Path | None:
    """The result file: ``out`` if given, else one named after machine, day and subject; None for a part of the cells.

    Raises:
        InputError: If ``out`` does not end in .json, or a file is there, or beside it, that is none of these results.
    """
    if out is None:
        machine = re.sub(r"[\W_]+", "-", this_machine(device).identity).strip("-").lower()
        return None if part else RESULTS / f"{machine}--{datetime.now(timezone.utc).date()}--{subject}.json"
    if not out.endswith(".json"):
        raise InputError(f"--out ({out}) must end in .json")
    path = Path(out)
    there = [each for suffix in (".json", ".md", ".png") if (each := path.with_suffix(suffix)).exists()]
    if there and not (path.is_file() and {"machine", "identity"} & read_json(path).keys()):
        raise InputError(f"--out ({out}) must be a new file or a result of before; {there[0]} is another file")
    return path


def heading(title: str, machine: Mapping[str, Any]) -> list[str]:
    """The first paragraphs of a page of results: its title, and the machine that was measured."""
    commit = machine["commit"] or "unknown"
    return [f"# {title}", f"{machine['identity']}, torch {machine['torch']}, {machine['started']}, commit {commit}."]


def page(paragraphs: Iterable[str]) -> str:
    """Markdown, with an empty line between paragraphs."""
    return "\n\n".join(each.strip() for each in paragraphs) + "\n"


@contextmanager
def recorded(path: Path | None, content: dict[str, Any], name: str) -> Iterator[None]:
    """Write the result file after one measurement; its error is printed and recorded, and stops no other."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        message = one_line(f"{type(error).__name__}: {error}")
        content["errors"].append({"name": name, "error": message})
        print(f"{name}: {message}", file=sys.stderr, flush=True)
    write(path, content)


def finish(content: Mapping[str, Any]) -> None:
    """Exit with code 1 if there were errors."""
    if content["errors"]:
        sys.exit(1)


def write(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write a result file; nothing if there is no path."""
    if path is not None:
        write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
