"""Which device a run uses, what it says of a GPU that it does not use, what time it is there, and memory."""

import ctypes
import os
import sys
import time
from pathlib import Path

import torch

from scripts.system.errors import InputError
from scripts.system.processes import ALONE, Processes

if sys.platform != "win32":
    import resource

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # numbers that glibc's malloc.h gives to two settings of its allocator


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device of that name, tried with one number; of several processes each takes a GPU of its own.

    ``auto`` is the accelerator, where torch can use one, else the CPU; ``passed_over`` says why.

    Raises:
        InputError: If it is not there, or not to be shared among processes.
    """
    there = f"--device ({name}) must be auto or a device that is there, such as cpu"
    if name == "auto":
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    else:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise InputError(there) from error
    if processes.count > 1:
        device = _own(device, name, processes)
    if why := refusal(device):
        if name != "auto":
            raise InputError(f"{there}; {why}")
        if processes.count > 1:  # the others may be able to use theirs
            raise InputError(f"--device (auto) must be cpu, or torch must be able to use {device}; {why}")
        return torch.device("cpu")
    return device


def _own(device: torch.device, name: str, processes: Processes) -> torch.device:
    """The one of several equal devices that this process takes."""
    if device.type not in ("cpu", "cuda") or device.index is not None:
        found = f"; here it is {device}" if name == "auto" else ""
        raise InputError(f"--device ({name}) must be cpu or cuda for {processes.count} processes{found}")
    if device.type == "cpu":
        return device
    if 0 < (gpus := torch.cuda.device_count()) < processes.here:
        needed = f"{processes.here} processes need {processes.here} GPUs; there {'is' if gpus == 1 else 'are'} {gpus}"
        raise InputError(f"--device ({name}) must be cpu, or there must be a GPU for each process: {needed}")
    return torch.device("cuda", processes.place)


def refusal(device: torch.device) -> str:
    """Why torch cannot compute there, in the first sentence of its own; empty where it can."""
    try:
        torch.zeros(1, device=device).item()  # the device "meta" has no number to give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return ""


def passed_over(name: str, device: torch.device) -> list[str]:
    """What to say where ``auto`` is the CPU though the machine has a GPU: one line, and otherwise none."""
    if name != "auto" or device.type != "cpu":
        return []
    maker, found = gpu_maker(), torch.accelerator.current_accelerator(check_available=True)
    if not maker and found is None:
        return []
    if maker == "AMD" and torch.version.hip is None:
        why = f"torch {torch.__version__} is built without ROCm"
    else:
        why = refusal(found or torch.device("cuda"))
        if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
            why += f"; CUDA_VISIBLE_DEVICES is {visible or 'empty'}"
    return [f"WARNING: there is {f'an {maker} GPU' if maker else found}, and torch cannot use it: {why}"]


def gpu_maker(system: Path = Path("/")) -> str:
    """NVIDIA or AMD where Linux knows of a GPU of theirs, whether torch can use it or not; else empty.

    Args:
        system: The root of the file system.
    """
    screens = [path.parent for path in system.glob("sys/bus/pci/devices/*/class") if _said(path).startswith("0x03")]
    driver = [*system.glob("proc/driver/nvidia/gpus/*"), *system.glob("usr/lib/wsl/lib/nvidia-smi")]
    if driver or any(_said(path / "vendor") == "0x10de" for path in screens):
        return "NVIDIA"
    # AMD's driver for computing numbers every processor, and with 0 those that are no GPUs
    numbers = [_said(path) for path in system.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")]
    return "AMD" if any(number not in ("", "0") for number in numbers) else ""


def _said(path: Path) -> str:
    """What a file of the kernel says; nothing where it must not be read."""
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def clock(device: torch.device) -> float:
    """Seconds, read once that device has done all that it was given: a GPU returns long before it has done the work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> float:
    """The most memory in MiB at any time so far: of torch's tensors on a GPU, else of this whole process.

    0 on Windows, where Python does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform != "win32":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)  # there in bytes, elsewhere in KiB
    return 0.0


def keep_freed_memory() -> None:
    """Let the memory of freed tensors serve the next ones, where the C library is glibc.

    By default it hands large blocks back to the system, which faults them in again page by page: in a training step of
    ViT-B/16 those were 100,000 page faults and a sixth of the time.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)
