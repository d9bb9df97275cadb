"""Which device a run uses, what time it is there, and what it does with memory."""

import ctypes
import sys
import time

import torch

from scripts.errors import InputError
from scripts.processes import ALONE, Processes

if sys.platform != "win32":
    import resource

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # numbers that glibc's malloc.h gives to two settings of its allocator


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device of that name, tried with one number; ``auto`` is the accelerator, where there is one, else the CPU.

    Of several processes each takes a GPU of its own.

    Raises:
        InputError: If it is not there, or not to be shared among processes.
    """
    try:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = accelerator or torch.device("cpu") if name == "auto" else torch.device(name)
        if processes.count > 1:
            if device.type not in ("cpu", "cuda") or device.index is not None:
                raise InputError(f"--device ({name}) must be cpu or cuda for {processes.count} processes")
            device = torch.device(device.type, processes.place if device.type == "cuda" else None)
        torch.zeros(1, device=device).item()  # the device "meta" has no number to give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device ({name}) must be auto or a device that is there, such as cpu") from error
    return device


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
