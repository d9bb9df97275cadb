"""Write files atomically, and read untrusted ones without running code."""

import json
import os
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch

from scripts.system.errors import InputError

MOST_UNPACKED = 20  # times the size of an archive: floating-point numbers hardly compress
ALWAYS_ALLOWED = 1 << 26  # bytes: a small archive of zeros is harmless
PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")  # the name of a file that ``write_whole`` is filling


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it, then rename it to ``path``.

    At any instant ``path`` has its old or its new content.

    Raises:
        OSError: If the disk is full or not writable; the message names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")  # of this call alone: others may write that path too
    try:
        with suppress(FileExistsError):  # a file that bears the name of a folder: opening says so
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch hides the first error behind one of its own when it closes its archive
        first = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(first, OSError):
            raise
        raise OSError(f"cannot write {path}: {first.strerror or first}") from first
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as ``write_whole`` does."""
    write_whole(path, lambda file: file.write(content))


def is_part(name: str) -> bool:
    """Whether a file of this name is what ``write_whole`` leaves half-written if the process is killed."""
    return PART.fullmatch(name) is not None


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        InputError: If the file holds anything else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a JSON object; it is damaged or another file")
    return content


def refuse_unreadable(path: Path) -> None:
    """Raise OSError if the file cannot be opened: the readers of archives would call it damaged."""
    with path.open("rb"):
        pass


def read_torch(path: Path) -> Any:
    """Read a torch file of tensors and plain values, on the CPU.

    Raises:
        InputError: If the file is damaged, is a zip bomb, or needs code to be loaded.
        OSError: If it cannot be opened.
    """
    refuse_unreadable(path)
    try:
        if zipfile.is_zipfile(path):
            refuse_bomb(path)
            read_through(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that the caller refuses anyway
            with torch.serialization.safe_globals([Namespace]):  # flags, which many checkpoints hold: plain values too
                return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # on a damaged file torch raises almost any error
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(f"{path} must hold only tensors and plain values; loading it would run code") from error
        raise InputError(f"{path} must be a complete torch file; it cannot be read") from error


def refuse_bomb(archive: Path) -> None:
    """Raise InputError if a zip file declares an unpacked size far above its own; unpacking stops at that size."""
    allowed = max(ALWAYS_ALLOWED, MOST_UNPACKED * archive.stat().st_size)
    with zipfile.ZipFile(archive) as members:
        unpacked = sum(member.file_size for member in members.infolist())
    if unpacked > allowed:
        raise InputError(f"{archive} must unpack to at most {allowed:,} bytes; it declares {unpacked:,}")


def read_through(archive: Path) -> None:
    """Read all of a zip file against its checksums, which torch writes but does not compare.

    Raises:
        zipfile.BadZipFile: If a part differs from its checksum.
    """
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            if member.CRC:  # zero if torch was told to compute none
                with members.open(member) as file:
                    while file.read(1 << 20):
                        pass
