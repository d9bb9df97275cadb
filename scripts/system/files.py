"""Files that are either whole or not there, and files that are not trusted: reading them runs nothing."""

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from scripts.system.errors import InputError

MOST_UNPACKED = 20  # times the size of an archive: numbers hardly shrink
ALWAYS_ALLOWED = 1 << 26  # bytes: a small archive of zeros is no bomb


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it, then put it in the place of ``path``.

    Whatever happens on the way, ``path`` holds its old content or the new one.

    Raises:
        OSError: If the disk is full or not writable; the message names ``path``.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        InputError: If the file holds anything else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} must be one whole JSON object; it is damaged or another file")
    return content


def read_torch(path: Path) -> Any:
    """Tensors and plain values, on the CPU.

    Raises:
        InputError: If the file is not whole, is a bomb, or holds anything that only code could make.
    """
    try:
        if zipfile.is_zipfile(path):
            refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that a reader may refuse
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes torch raise almost anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(f"{path} must hold tensors alone; to open it, torch would have to run code") from error
        raise InputError(f"{path} must be a whole torch file; it cannot be read") from error


def refuse_bomb(archive: Path) -> None:
    """Raise InputError if a zip file says that it unpacks to far more than its size; unpacking trusts what it says."""
    allowed = max(ALWAYS_ALLOWED, MOST_UNPACKED * archive.stat().st_size)
    with zipfile.ZipFile(archive) as members:
        unpacked = sum(member.file_size for member in members.infolist())
    if unpacked > allowed:
        raise InputError(f"{archive} must unpack to at most {allowed:,} bytes; it would fill {unpacked:,}")
