"""Read and write files of named arrays, of NumPy, safetensors and torch. Reading never runs code."""

import zipfile
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from scripts.system.errors import InputError
from scripts.system.files import read_torch, refuse_bomb, refuse_unreadable, write_bytes, write_whole
from scripts.weights.search import OPTIMIZER

SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")  # .tar is that of .pth.tar
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # supported by every kind of file
CHECKSUM = "crc32"  # its name in the metadata of a .safetensors file of the kit
LONGEST = 1000  # characters of the keys before a name: a small file could join a long key to a million names


class Content(NamedTuple):
    """What a file holds, by its names; those of nested parts are joined by slashes."""

    arrays: dict[str, Tensor]
    facts: dict[str, Any]  # plain values


def check_suffix(path: Path) -> None:
    """Raise InputError if the suffix is unknown."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} must end in one of {', '.join(SUFFIXES)}")


def read_file(path: Path) -> Content:
    """Return the content of a file, with its arrays on the CPU.

    Raises:
        InputError: If the file is missing or damaged, or holds no array.
    """
    check_suffix(path)
    if not path.is_file():
        found = "does not exist" if not path.exists() else "is a folder" if path.is_dir() else "is a pipe or a device"
        raise InputError(f"{path} must be a file of weights; it {found}")
    reader = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(path.suffix, read_torch)
    content = flat(reader(path))
    arrays = {name: value.detach() for name, value in content.items() if name and isinstance(value, Tensor)}
    if not arrays:
        raise InputError(f"{path} must hold arrays by name; it holds none")
    return Content(arrays, {name: value for name, value in content.items() if name not in arrays})


def flat(content: Any) -> dict[str, Any]:
    """Return the values of nested dictionaries by their keys, joined by slashes; each dictionary is read once."""
    values: dict[str, Any] = {}
    parts, seen = [("", content)], set()
    for prefix, part in parts:  # it grows
        part = vars(part) if isinstance(part, Namespace) else part
        if not isinstance(part, Mapping):
            values[prefix[:-1]] = part
        elif id(part) not in seen and len(prefix) <= LONGEST:
            seen.add(id(part))
            parts += [(f"{prefix}{key}/", value) for key, value in part.items()]
    return values


def check_arrays(arrays: Mapping[str, Tensor], source: str) -> None:
    """Raise InputError, which names ``source``, for anything but finite numbers that the file holds completely."""
    for name, array in arrays.items():
        if array.is_nested:  # it has no shape
            raise InputError(f"{source}: {name} must be stored completely in the file")
        described = f"{source}: {name} {tuple(array.shape)}"
        if array.dtype not in PRECISIONS or not array.numel():
            raise InputError(f"{described} must be floating-point numbers of 16 to 64 bits, not {array.dtype}")
        if not _is_whole(array):
            raise InputError(f"{described} must be stored completely in the file")
        if not array.isfinite().all():
            raise InputError(f"{described} must be finite; it contains nan or infinity")


def _is_whole(array: Tensor) -> bool:
    """Return whether every number is stored: a file of 1 kB can hold one number as a view of a billion."""
    plain = array.layout == torch.strided and array.device.type == "cpu"
    return plain and array.untyped_storage().nbytes() >= array.numel() * array.element_size()


def write_arrays(path: Path, arrays: Mapping[str, Tensor], **facts: object) -> None:
    """Write a file atomically, of the kind that the suffix says; of these only .safetensors has a place for facts."""
    check_suffix(path)
    # copies, since torch would write all of a fused array for each third of it, and safetensors would refuse
    own = {
        name: array.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, array in arrays.items()
    }
    if path.suffix == ".npz":
        numbers: dict[str, Any] = {name: _to_numpy(array) for name, array in own.items()}
        write_whole(path, lambda file: np.savez(file, **numbers))
    elif path.suffix == ".safetensors":
        # transformers refuses files without this format
        metadata = {"format": "pt"} | {name: str(value) for name, value in facts.items()}
        metadata[CHECKSUM] = _checksum(own, metadata)
        write_bytes(path, safetensors.torch.save(own, metadata=metadata))
    else:
        write_whole(path, lambda file: torch.save(own, file))


def _checksum(arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return a CRC-32, which the other kinds of files have by themselves, of names, shapes, numbers and metadata."""
    found = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found = zlib.crc32(f"{name} {array.dtype} {tuple(array.shape)}".encode(), found)
        found = zlib.crc32(array.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


# On a damaged file the readers below raise almost any error, hence the broad excepts.


def _read_npz(path: Path) -> dict[str, Tensor]:
    refuse_unreadable(path)
    arrays, name = {}, ""
    try:
        refuse_bomb(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():  # names never become paths
                name = member.removesuffix(".npy")
                if name in arrays:
                    raise InputError(f"{path} must hold {name} once; it holds it twice")
                if OPTIMIZER.match(name):  # not read: it is often twice as large as the network
                    arrays[name] = torch.empty(0)
                    continue
                with archive.open(member) as file:
                    arrays[name] = _from_numpy(np.lib.format.read_array(file, allow_pickle=False))
    except InputError:
        raise
    except Exception as error:
        if "Object arrays" in str(error):
            raise InputError(f"{path}: {name} must be numbers; it is a pickle, which could run code") from error
        if isinstance(error, TypeError):
            raise InputError(f"{path}: {name} must be floating-point numbers; {error}") from error
        if name:
            raise InputError(f"{path}: {name} must be a complete array; it cannot be read") from error
        raise InputError(f"{path} must be a complete .npz archive; it is truncated or not a zip file") from error
    return arrays


def _from_numpy(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # bfloat16, which NumPy stores as two raw bytes
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=False))


def _to_numpy(array: Tensor) -> np.ndarray:
    if array.dtype == torch.bfloat16:
        return array.view(torch.int16).numpy().view("V2")
    return array.numpy()


def _read_safetensors(path: Path) -> dict[str, Any]:
    refuse_unreadable(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        arrays = safetensors.torch.load_file(path)
        written = metadata.pop(CHECKSUM, None)
        if written not in (None, _checksum(arrays, metadata)):
            raise InputError(f"{path} must hold the numbers that were written; its checksum says that some differ")
        return {"metadata": metadata, **arrays}
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} must be a complete .safetensors file; it cannot be read") from error
