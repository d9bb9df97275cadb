"""The device of a run: its choice, a warning about an unused GPU, its clock and its memory."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional as F

from scripts.system.errors import InputError
from scripts.system.processes import ALONE, Processes

if sys.platform != "win32":
    import resource

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # two settings of glibc's allocator, as malloc.h numbers them


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """Return the device of that name after a trial computation; each of several processes takes a GPU of its own.

    ``auto`` is the accelerator if torch can use it, else the CPU; ``unused_gpu`` explains the latter.

    Raises:
        InputError: If the device is not available, or the processes cannot share it.
    """
    wanted = f"--device ({name}) must be auto or an available device, such as cpu"
    if name == "auto":
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    else:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise InputError(wanted) from error
    if processes.count > 1:
        device = _own(device, name, processes)
    if why := refusal(device):
        if name != "auto":
            raise InputError(f"{wanted}; {why}")
        if processes.count > 1:  # other processes may be able to use their GPUs
            raise InputError(f"--device (auto) must be cpu, or torch must be able to use {device}; {why}")
        return torch.device("cpu")
    return device


def _own(device: torch.device, name: str, processes: Processes) -> torch.device:
    """Return the device of this process among several."""
    if device.type not in ("cpu", "cuda") or device.index is not None:
        found = f"; auto is {device} here" if name == "auto" else ""
        raise InputError(f"--device ({name}) must be cpu or cuda for {processes.count} processes{found}")
    if device.type == "cpu":
        return device
    if 0 < (gpus := torch.cuda.device_count()) < processes.here:
        needed = f"{processes.here} processes need {processes.here} GPUs; there {'is' if gpus == 1 else 'are'} {gpus}"
        raise InputError(f"--device ({name}) must be cpu, or there must be a GPU for each process: {needed}")
    return torch.device("cuda", processes.place)


def refusal(device: torch.device) -> str:
    """Return the first sentence of torch's error if it cannot compute on the device, else an empty string."""
    try:
        torch.zeros(1, device=device).item()  # fails on the device "meta", too
        if device.type == "mps":  # older versions lack it there, or its gradient: pytorch#125098
            image, grid = (torch.zeros(1, 1, 1, 2, device=device, requires_grad=True) for _ in range(2))
            F.grid_sample(image, grid, padding_mode="border", align_corners=False).sum().backward()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return ""


@contextmanager
def memory_suffices(wanted: str) -> Iterator[None]:
    """Turn the error where memory ends into an InputError that says what is wanted."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # of torch, in which each device has words of its own, and of NumPy
        words = ("out of memory", "can't allocate memory", "not enough memory")
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(each in str(error) for each in words):
            raise
        said = str(error).rpartition("Allocator: ")[2].partition("\n")[0].partition(". ")[0]
        raise InputError(f"{wanted}; {said or type(error).__name__}") from error


@contextmanager
def compiler_works() -> Iterator[None]:
    """Turn the error of a compiler that is there but does not work into an InputError."""
    try:
        yield
    except RuntimeError as error:
        # not imported where nothing is compiled: that takes as long as the import of torch
        failed = getattr(sys.modules.get("torch._dynamo.exc"), "BackendCompilerFailed", ())
        if not isinstance(error, failed):
            raise
        inner: BaseException = getattr(error, "inner_exception", error)
        said = f"{type(inner).__name__}: {inner}".partition("\n")[0]
        raise InputError(f"--compile must be no, or torch.compile must work here; {said}") from error


def unused_gpu(name: str, device: torch.device) -> list[str]:
    """Return a one-line warning if ``auto`` chose the CPU although the machine has a GPU, else nothing."""
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
    return [f"WARNING: torch cannot use {f'the {maker} GPU' if maker else found} of this machine: {why}"]


def gpu_maker(system: Path = Path("/")) -> str:
    """Return NVIDIA or AMD if Linux lists such a GPU, whether torch can use it or not, else an empty string.

    Args:
        system: The root of the file system.
    """
    displays = [path.parent for path in system.glob("sys/bus/pci/devices/*/class") if _read(path).startswith("0x03")]
    driver = [*system.glob("proc/driver/nvidia/gpus/*"), *system.glob("usr/lib/wsl/lib/nvidia-smi")]
    if driver or any(_read(path / "vendor") == "0x10de" for path in displays):
        return "NVIDIA"
    # AMD's compute driver gives every processor a number, which is 0 unless it is a GPU
    numbers = [_read(path) for path in system.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")]
    return "AMD" if any(number not in ("", "0") for number in numbers) else ""


def _read(path: Path) -> str:
    """Return the content of a kernel file, or nothing if it is not readable."""
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def clock(device: torch.device) -> float:
    """Return the time in seconds once the device has finished all work: GPU calls return before that."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> float:
    """Return the peak memory so far in MiB: of torch's tensors on a GPU, else of the whole process.

    0 on Windows, where Python cannot measure it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform != "win32":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere
    return 0.0


def keep_freed_memory() -> None:
    """Make glibc's allocator reuse the memory of freed tensors.

    By default it returns large blocks to the system, which then faults them in again page by page: 100,000 page faults
    and a sixth of the time in a training step of ViT-B/16.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)
