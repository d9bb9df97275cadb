"""Describe a machine and measure its peaks, which every figure measured on it is compared with."""

import platform
import subprocess
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure.timing import Call, affordable, sample, warm_up
from scripts.run.environment import environment
from scripts.system.machine import processor, this_machine

ROUND, ALL_ROUNDS = 0.5, 1.5  # seconds that one large product may take, and that all its rounds may take
FIRST_SIDE, LARGEST_SIDE, LARGEST_SIDE_ON_GPU = 192, 1536, 12288  # of a matrix product, doubled step by step
SMI = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")  # of nvidia-smi


def best_rate(call: Call, amount: float, device: torch.device) -> float:
    """The amount per second in the fastest of several rounds, since a peak is no median; of few if one is long."""
    warm_up(call, device, calls=1)
    first = sample(call, device)
    rounds = affordable(ALL_ROUNDS, first, fewest=1, most=15)
    return amount / min(first, *(sample(call, device) for _ in range(rounds)))


def large_products(device: torch.device, dtype: torch.dtype) -> tuple[list[Call], float]:
    """A square matrix product in each of two ways, and its FLOPs; it is as large as time allows, to come near the peak.

    On a CPU, a matrix product and a convolution with a 1x1 kernel are computed by different libraries in float32, and
    which is faster depends on the machine.
    """
    side, most = FIRST_SIDE, LARGEST_SIDE if device.type == "cpu" else LARGEST_SIDE_ON_GPU
    while 2 * side <= most:
        seconds = min(shortest(way, device) for way in products(device, dtype, side))
        if 8 * seconds > ROUND:  # of a product of twice the side
            break
        side *= 2
    return products(device, dtype, side), 2.0 * side**3


def products(device: torch.device, dtype: torch.dtype, side: int) -> list[Call]:
    """A square matrix product of that side in each way: as a product, and on a CPU as a convolution."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    image, kernel = a.T.reshape(1, side, side, 1), b.reshape(side, side, 1, 1)
    ways: list[Call] = [lambda: a @ b]
    if device.type == "cpu":
        ways.append(lambda: F.conv2d(image, kernel))
    return ways


def shortest(call: Call, device: torch.device) -> float:
    """Seconds of the shortest of three calls, after one for warm-up."""
    warm_up(call, device, calls=1)
    return min(sample(call, device) for _ in range(3))


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, by the faster way."""
    with torch.inference_mode():
        ways, work = large_products(device, dtype)
        return max(best_rate(way, work, device) for way in ways)


def copy_peak(device: torch.device) -> float:
    """Bytes per second read and written by a copy larger than any cache."""
    size = 2**27 if device.type == "cpu" else 2**30
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return best_rate(lambda: target.copy_(source), 2 * size, device)


def graphics(device: torch.device) -> dict[str, str]:
    """Name, driver, clocks and power limit of that GPU; empty if nvidia-smi is missing.

    The GPU is selected by its UUID, since torch counts only those that CUDA_VISIBLE_DEVICES shows.
    """
    identifier = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={identifier}", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(SMI, (field.strip() for field in output.split(",")), strict=True))


def backend(device: torch.device) -> str:
    """The backend by which torch uses the device, and its version."""
    if device.type == "cuda":
        return f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"MPS, macOS {platform.mac_ver()[0]}" if device.type == "mps" else device.type.upper()


def description(device: torch.device) -> dict[str, Any]:
    """All that is known of the machine without measuring."""
    return {
        "identity": this_machine(device).identity,
        "processor": processor(),
        "backend": backend(device),
        "graphics": graphics(device) if device.type == "cuda" else {},
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "float32_products": torch.get_float32_matmul_precision(),
        "tf32": {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32},
        **environment(device),
    }


def peaks(device: torch.device) -> dict[str, float]:
    """FLOP/s of products in each type the machine is fast at, and bytes per second of a copy; takes some seconds."""
    dtypes = {name: getattr(torch, name) for name in this_machine(device).types}
    found = {f"matmul_{name}": matmul_peak(device, dtype) for name, dtype in dtypes.items()}
    return {**found, "copy": copy_peak(device)}
