"""The grid: a component or model of a size, batch, mode, type, eager or compiled.

A cell's name says all of it: ``Block-b16-224px-batch64-step-bfloat16-eager``.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.grid.workloads import ROWS, nowhere_zero
from benchmarks.measure.flops import Work
from benchmarks.measure.modes import MODES
from benchmarks.measure.oracle import Oracle, in_float64
from benchmarks.measure.timing import Call

BATCHES = (1, 64, 256)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILED = 64  # images: compiling takes longer than timing, and is done for one batch


@dataclass(frozen=True)
class Cell:
    """One thing to time."""

    row: str
    batch: int
    mode: str
    dtype: str
    compiled: bool

    def __str__(self) -> str:
        return f"{self.row}-batch{self.batch}-{self.mode}-{self.dtype}-{'compiled' if self.compiled else 'eager'}"

    @property
    def work(self) -> Work:
        """Of one call."""
        return ROWS[self.row].work(self.batch)


def grid() -> list[Cell]:
    """Every cell, whatever the machine; the warp is float32 in any case, so that it has no other type."""
    return [
        cell
        for choice in itertools.product(ROWS, BATCHES, MODES, DTYPES, (False, True))
        if ((cell := Cell(*choice)).dtype == "float32" or not cell.row.startswith("SpatialTransformer"))
        and (cell.batch == COMPILED or not cell.compiled)
    ]


class Prepared(NamedTuple):
    """What is timed, and who judges it."""

    module: nn.Module
    x: Tensor
    oracle: Oracle
    call: Call


@lru_cache(maxsize=1)  # cells of one row follow one another
def built(row: str, batch: int, device: torch.device) -> tuple[nn.Module, Tensor, Oracle]:
    """The module, its input, and what it must make of the first images, computed in float64."""
    torch.manual_seed(0)
    module = nowhere_zero(ROWS[row].build(batch))
    x = torch.randn(batch, *ROWS[row].shape)
    images = x.ndim == 4  # they come as a run makes them; tokens come from a layer that wants their gradient
    x = x.to(device, memory_format=torch.channels_last) if images else x.to(device).requires_grad_()
    oracle = Oracle(x, in_float64(module))
    return module.to(device), x, oracle


def prepared(cell: Cell, device: torch.device, backend: str = "inductor") -> Prepared:
    """The call to time, once its output has been checked.

    Raises:
        AssertionError: If the output is wrong.
    """
    module, x, oracle = built(cell.row, cell.batch, device)
    network = module
    if cell.compiled:
        torch.compiler.reset()
        network = torch.compile(module, backend=backend)
    call = MODES[cell.mode](network, x, DTYPES[cell.dtype])
    oracle.check(call, DTYPES[cell.dtype])
    return Prepared(module, x, oracle, call)
