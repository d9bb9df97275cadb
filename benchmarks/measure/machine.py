"""What a machine is, and the most that it can do: the yardsticks of every figure that is measured on it."""

import platform
import subprocess
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure.timing import Call, affordable, sample, warm_up
from scripts.run.folder import environment
from scripts.system.machine import processor, this_machine

ROUND, ALL_ROUNDS = 0.5, 1.5  # seconds that a large product may take, and that all rounds of it take
SMALLEST, LARGEST, LARGEST_ON_GPU = 192, 1536, 12288  # side of a product: doubled from the first on
SMI = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")  # of nvidia-smi


def best_rate(call: Call, amount: float, device: torch.device) -> float:
    """So much of something a second in the fastest of some rounds: a peak is not a median. Few where one is long."""
    warm_up(call, device, calls=1)
    first = sample(call, device)
    rounds = affordable(ALL_ROUNDS, first, fewest=1, most=15)
    return amount / min(first, *(sample(call, device) for _ in range(rounds)))


def large_products(device: torch.device, dtype: torch.dtype) -> tuple[list[Call], float]:
    """A large square matrix product in each of two ways, and its FLOPs: the larger, the nearer to the peak.

    CPUs compute a float32 product in another library as a convolution with a 1x1 kernel than as a matrix product, and
    which of the two is faster depends on the machine.
    """
    side, most = SMALLEST, LARGEST if device.type == "cpu" else LARGEST_ON_GPU
    while 2 * side <= most:
        seconds = min(trial(way, device) for way in products(device, dtype, side))
        if 8 * seconds > ROUND:  # of a product of twice the side
            break
        side *= 2
    return products(device, dtype, side), 2.0 * side**3


def products(device: torch.device, dtype: torch.dtype, side: int) -> list[Call]:
    """A square matrix product of that side in each way."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    image, kernel = a.T.reshape(1, side, side, 1), b.reshape(side, side, 1, 1)
    ways: list[Call] = [lambda: a @ b]
    if device.type == "cpu":
        ways.append(lambda: F.conv2d(image, kernel))
    return ways


def trial(call: Call, device: torch.device) -> float:
    """Seconds of the shortest of three calls, after one that chooses kernels."""
    warm_up(call, device, calls=1)
    return min(sample(call, device) for _ in range(3))


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the faster way of two."""
    with torch.inference_mode():
        ways, work = large_products(device, dtype)
        return max(best_rate(way, work, device) for way in ways)


def copy_peak(device: torch.device) -> float:
    """Bytes a second read and written by a copy that is larger than any cache."""
    size = 2**27 if device.type == "cpu" else 2**30
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return best_rate(lambda: target.copy_(source), 2 * size, device)


def graphics(device: torch.device) -> dict[str, str]:
    """Name, driver, clocks and power limit of that GPU; nothing where nobody knows.

    It is asked for by what is written on it: its number counts from zero among those that CUDA_VISIBLE_DEVICES shows.
    """
    chip = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={chip}", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(SMI, (field.strip() for field in said.split(",")), strict=True))


def backend(device: torch.device) -> str:
    """By what torch reaches the device, and the version of that."""
    if device.type == "cuda":
        return f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"MPS, macOS {platform.mac_ver()[0]}" if device.type == "mps" else device.type.upper()


def description(device: torch.device) -> dict[str, Any]:
    """All that is known beforehand."""
    return {
        "identity": this_machine(device).identity,
        "processor": processor(),
        "backend": backend(device),
        "graphics": graphics(device) if device.type == "cuda" else {},
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "float32_products": torch.get_float32_matmul_precision(),
        "tf32": {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32},
        **environment(device),
    }


def peaks(device: torch.device) -> dict[str, float]:
    """FLOP/s of products in each type that the machine is fast at, and bytes a second of a copy: some seconds."""
    dtypes = {name: getattr(torch, name) for name in this_machine(device).types}
    found = {f"matmul_{name}": matmul_peak(device, dtype) for name, dtype in dtypes.items()}
    return {**found, "copy": copy_peak(device)}
