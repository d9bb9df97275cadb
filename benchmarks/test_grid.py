"""Every component and both models: time, images a second, share of what the machine can do, memory."""

import dataclasses

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cells import DTYPES, FEW, Cell, cells, prepared
from benchmarks.machine import peaks
from benchmarks.memory import peak_bytes
from benchmarks.timing import affordable, repeats, sample, warm_up
from benchmarks.workloads import ROWS
from scripts.devices import choose_device
from scripts.machine import this_machine

SECONDS = 0.5  # of timing, for each cell


@pytest.mark.parametrize("cell", cells(this_machine(choose_device("auto"))), ids=str)
def test_grid(benchmark: BenchmarkFixture, device: torch.device, cell: Cell) -> None:
    if benchmark.disabled:
        small = dataclasses.replace(cell, batch=min(cell.batch, FEW))
        benchmark(prepared(small, device, backend="aot_eager"))
        return
    benchmark.group = f"{cell.row}, {cell.mode}, batch {cell.batch}"
    call = prepared(cell, device)
    warm_up(call, calls=1, seconds=0.2 if device.type == "cuda" else 0)
    seconds = min(sample(call) for _ in range(2))
    count = repeats(seconds)
    benchmark.pedantic(call, rounds=affordable(SECONDS, count * seconds, fewest=5), iterations=count)
    benchmark.extra_info |= figures(cell, device, benchmark.stats["median"]) | {"peak_bytes": peak_bytes(call, device)}


def figures(cell: Cell, device: torch.device, seconds: float) -> dict[str, float | str]:
    """All that follows from the median time."""
    best, itemsize = peaks(device), DTYPES[cell.dtype].itemsize
    flops, moved = cell.work.flops(cell.mode) / seconds, cell.work.bytes(cell.mode, itemsize) / seconds
    return {
        "cell": vars(cell),
        "shape": str((cell.batch, *ROWS[cell.row].shape)),
        "parameters": cell.work.parameters,
        "images_per_second": cell.batch / seconds,
        "tflops": flops / 1e12,
        "share_of_matmul_peak": flops / best[f"matmul_{cell.dtype}"],
        "share_of_copy_peak": moved / best["copy"],
    }
