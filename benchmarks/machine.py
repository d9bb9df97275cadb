"""What a machine is, and the most that it can do: the yardsticks of every figure that is measured on it."""

import subprocess
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.timing import Call, sample, warm_up
from scripts.machine import processor, this_machine
from scripts.run_folder import environment

ROUNDS = 15
SMI = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")  # of nvidia-smi


def best_rate(call: Call, amount: float) -> float:
    """So much of something a second in the fastest of some rounds: a peak is not a median."""
    warm_up(call)
    return amount / min(sample(call) for _ in range(ROUNDS))


def large_products(device: torch.device, dtype: torch.dtype) -> tuple[list[Call], float]:
    """A large square matrix product in each of two ways, and its FLOPs.

    CPUs compute a float32 product in another library as a convolution with a 1x1 kernel than as a matrix product, and
    which of the two is faster depends on the machine.
    """
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    image, kernel = a.T.reshape(1, side, side, 1), b.reshape(side, side, 1, 1)
    ways: list[Call] = [lambda: a @ b]
    if device.type == "cpu":
        ways.append(lambda: F.conv2d(image, kernel))
    return ways, 2.0 * side**3


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the faster way of two."""
    ways, work = large_products(device, dtype)
    with torch.inference_mode():
        return max(best_rate(way, work) for way in ways)


def copy_peak(device: torch.device) -> float:
    """Bytes a second read and written by a copy that is larger than any cache."""
    size = 2**30 if device.type == "cuda" else 2**27
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return best_rate(lambda: target.copy_(source), 2 * size)


def graphics() -> dict[str, str]:
    """Name, driver, clocks and power limit of the first GPU; nothing where nobody knows."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(SMI, (field.strip() for field in said.split(",")), strict=True))


def description(device: torch.device) -> dict[str, Any]:
    """All that is known beforehand."""
    return {
        "identity": this_machine(device).identity,
        "processor": processor(),
        "graphics": graphics() if device.type == "cuda" else {},
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "float32_products": torch.get_float32_matmul_precision(),
        **environment(device),
    }


@cache
def peaks(device: torch.device) -> dict[str, float]:
    """Measured when first asked for: FLOP/s of products in each type, and bytes a second of a copy."""
    dtypes = [torch.float32, torch.bfloat16, *([torch.float16] if device.type == "cuda" else [])]
    found = {f"matmul_{str(dtype).removeprefix('torch.')}": matmul_peak(device, dtype) for dtype in dtypes}
    return {**found, "copy": copy_peak(device)}
