"""Read and write files of named arrays: .npz, .safetensors, .pt, .pth and .bin. Reading never runs code."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from scripts.system.errors import InputError
from scripts.system.files import read_torch, refuse_bomb, write_whole

SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".bin")
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # supported by every kind of file


def check_suffix(path: Path) -> None:
    """Raise InputError if the suffix is unknown."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} must end in one of {', '.join(SUFFIXES)}")


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return every array of a file by its name, on the CPU.

    Raises:
        InputError: If the file is missing or damaged, or holds anything but arrays of finite numbers.
    """
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path} must be a file of weights; it does not exist")
    reader = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(path.suffix, _read_torch)
    arrays = reader(path)
    for name, array in arrays.items():
        described = f"{path}: {name} {tuple(array.shape)}"
        if array.dtype not in PRECISIONS or not array.numel():
            raise InputError(f"{described} must be floating-point numbers of 16 to 64 bits, not {array.dtype}")
        if not _is_whole(array):
            raise InputError(f"{described} must be stored completely in the file")
        if not array.isfinite().all():
            raise InputError(f"{described} must be finite; it contains nan or infinity")
    return arrays


def _is_whole(array: Tensor) -> bool:
    """Return whether every number is stored: a file of 1 kB can hold one number as a view of a billion."""
    plain = array.layout == torch.strided and array.device.type == "cpu"
    return plain and array.untyped_storage().nbytes() >= array.numel() * array.element_size()


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write a file atomically, of the kind that the suffix says."""
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
        # transformers refuses files without this metadata
        write_whole(path, lambda file: file.write(safetensors.torch.save(own, metadata={"format": "pt"})))
    else:
        write_whole(path, lambda file: torch.save(own, file))


# On a damaged file the readers below raise almost any error, hence the broad excepts.


def _read_npz(path: Path) -> dict[str, Tensor]:
    arrays, name = {}, ""
    try:
        refuse_bomb(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():  # names never become paths
                name = member.removesuffix(".npy")
                if name in arrays:
                    raise InputError(f"{path} must hold {name} once; it holds it twice")
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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise InputError(f"{path} must be a complete .safetensors file; it cannot be read") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    content = read_torch(path)
    for key in ("model", "state_dict"):  # training checkpoints, such as best.pt, hold more than the weights
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} must hold tensors by name, at the top or under 'model' or 'state_dict'")
    return {str(name): array.detach() for name, array in content.items()}
