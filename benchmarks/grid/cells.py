"""The grid: one cell for each workload, batch, mode and type, eager or compiled.

A cell's name says it all: ``Block-b16-224px-batch64-step-bfloat16-eager``.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.grid.workloads import WORKLOADS, nowhere_zero
from benchmarks.measure.calls import CALLS
from benchmarks.measure.flops import Work
from benchmarks.measure.oracle import Oracle, in_float64
from benchmarks.measure.timing import Call

BATCHES = (1, 64, 256)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILED = 64  # the one batch that is compiled: compiling takes longer than timing


@dataclass(frozen=True)
class Cell:
    """One benchmark cell; ``row`` is the name of a workload."""

    row: str
    batch: int
    mode: str
    dtype: str
    compiled: bool

    def __str__(self) -> str:
        return f"{self.row}-batch{self.batch}-{self.mode}-{self.dtype}-{'compiled' if self.compiled else 'eager'}"

    @property
    def work(self) -> Work:
        """FLOPs and memory traffic of one call."""
        return WORKLOADS[self.row].work(self.batch)


def grid() -> list[Cell]:
    """All cells, for any machine; the warp has cells in float32 alone, because it always computes in it."""
    return [
        cell
        for choice in itertools.product(WORKLOADS, BATCHES, CALLS, DTYPES, (False, True))
        if ((cell := Cell(*choice)).dtype == "float32" or not cell.row.startswith("SpatialTransformer"))
        and (cell.batch == COMPILED or not cell.compiled)
    ]


class Prepared(NamedTuple):
    """A cell that is ready to be timed."""

    module: nn.Module
    x: Tensor
    oracle: Oracle
    call: Call


@lru_cache(maxsize=1)  # cells of one workload follow one another
def built(name: str, batch: int, device: torch.device) -> tuple[nn.Module, Tensor, Oracle]:
    """A workload's module, its input, and the oracle that knows its output in float64."""
    torch.manual_seed(0)
    module = nowhere_zero(WORKLOADS[name].build(batch))
    x = torch.randn(batch, *WORKLOADS[name].shape)
    images = x.ndim == 4  # laid out as in a run, without a gradient; tokens come from a layer that needs their gradient
    x = x.to(device, memory_format=torch.channels_last) if images else x.to(device).requires_grad_()
    oracle = Oracle(x, in_float64(module))
    return module.to(device), x, oracle


def prepared(cell: Cell, device: torch.device, backend: str = "inductor") -> Prepared:
    """Build a cell and check its output.

    Raises:
        AssertionError: If the output is wrong.
    """
    module, x, oracle = built(cell.row, cell.batch, device)
    network = module
    if cell.compiled:
        torch.compiler.reset()
        network = torch.compile(module, backend=backend)
    call = CALLS[cell.mode](network, x, DTYPES[cell.dtype])
    oracle.check(call, DTYPES[cell.dtype])
    return Prepared(module, x, oracle, call)
