"""Every component and both models: time, throughput, share of the machine's peaks, memory."""

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.grid.cells import DTYPES, Cell, grid, prepared
from benchmarks.grid.workloads import WORKLOADS
from benchmarks.measure.memory import peak_bytes
from benchmarks.measure.oracle import FEW
from benchmarks.measure.timing import affordable, repeats, sample, warm_up

SECONDS = 0.5  # of timing, for each cell


@pytest.mark.parametrize("cell", grid(), ids=str)
def test_grid(benchmark: BenchmarkFixture, device: torch.device, peaks: Mapping[str, float], cell: Cell) -> None:
    if benchmark.disabled:
        small = dataclasses.replace(cell, batch=min(cell.batch, FEW))
        benchmark(prepared(small, device, backend="aot_eager").call)
        return
    benchmark.group = f"{cell.row}, {cell.mode}, batch {cell.batch}"
    module, x, oracle, call = prepared(cell, device)
    warm_up(call, device, calls=1, seconds=0.2 if device.type == "cuda" else 0)
    seconds = min(sample(call, device) for _ in range(2))
    count = repeats(seconds)
    benchmark.pedantic(call, rounds=affordable(SECONDS, count * seconds, fewest=5), iterations=count)
    oracle.check(call, DTYPES[cell.dtype])
    benchmark.extra_info |= figures(cell, peaks, benchmark.stats["median"]) | {
        "peak_bytes": peak_bytes(call, module, x)
    }


def figures(cell: Cell, peaks: Mapping[str, float], seconds: float) -> dict[str, object]:
    """The figures that follow from the median time."""
    itemsize = DTYPES[cell.dtype].itemsize
    flops, moved = cell.work.flops(cell.mode) / seconds, cell.work.bytes(cell.mode, itemsize) / seconds
    return {
        "cell": vars(cell),
        "shape": str((cell.batch, *WORKLOADS[cell.row].shape)),
        "parameters": cell.work.parameters,
        "images_per_second": cell.batch / seconds,
        "tflops": flops / 1e12,
        "share_of_matmul_peak": flops / peaks[f"matmul_{cell.dtype}"],
        "share_of_copy_peak": moved / peaks["copy"],
    }
