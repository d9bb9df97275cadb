"""Files of named arrays: NumPy's .npz, .safetensors, and torch's .pt, .pth and .bin. Reading never runs code."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from scripts.errors import InputError
from scripts.files import write_whole

SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".bin")


def check_suffix(path: Path) -> None:
    """Raise InputError if the name does not say what kind of file it is."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} must end in one of {', '.join(SUFFIXES)}")


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Every array of a file by its name, on the CPU.

    Raises:
        InputError: If the file is not there, not whole, or holds anything else than floating-point arrays.
    """
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path} must be a file of weights; it is not there")
    reader = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(path.suffix, _read_torch)
    arrays = reader(path)
    for name, array in arrays.items():
        if not array.is_floating_point() or not array.numel():
            raise InputError(f"{path}: {name} {tuple(array.shape)} must be floating-point numbers, not {array.dtype}")
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write a file that is either whole or not there; the suffix says which kind."""
    check_suffix(path)
    # memory of its own for each: of a third of a fused array torch would write the whole, and safetensors nothing
    own = {
        name: array.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, array in arrays.items()
    }
    if path.suffix == ".npz":
        numbers: dict[str, Any] = {name: _to_numpy(array) for name, array in own.items()}
        write_whole(path, lambda file: np.savez(file, **numbers))
    elif path.suffix == ".safetensors":
        # transformers opens no file without this remark
        write_whole(path, lambda file: file.write(safetensors.torch.save(own, metadata={"format": "pt"})))
    else:
        write_whole(path, lambda file: torch.save(own, file))


# A damaged file makes the readers below raise almost anything, hence the wide excepts.


def _read_npz(path: Path) -> dict[str, Tensor]:
    arrays, name = {}, ""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():  # names are names: no path is made of them
                name = member.removesuffix(".npy")
                with archive.open(member) as file:
                    arrays[name] = _from_numpy(np.lib.format.read_array(file, allow_pickle=False))
    except Exception as error:
        if "Object arrays" in str(error):
            raise InputError(f"{path}: {name} must be numbers; it is a pickle, which could run code") from error
        if isinstance(error, TypeError):
            raise InputError(f"{path}: {name} must be floating-point numbers; {error}") from error
        if name:
            raise InputError(f"{path}: {name} must be a whole array; it cannot be read") from error
        raise InputError(f"{path} must be a whole .npz archive; it is not a zip file, or was cut off") from error
    return arrays


def _from_numpy(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # NumPy has no bfloat16, and keeps the two bytes as they are
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
        raise InputError(f"{path} must be a whole .safetensors file; it cannot be read") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(f"{path} must hold tensors alone; to open it, torch would have to run code") from error
        raise InputError(f"{path} must be a whole torch file; it cannot be read") from error
    for key in ("model", "state_dict"):  # what is saved while training has more than the weights, as best.pt of a run
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} must hold tensors by their names, or have them under 'model' or 'state_dict'")
    return {str(name): array.detach() for name, array in content.items()}
