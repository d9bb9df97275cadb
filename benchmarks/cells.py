"""The grid: a component or model of a size, batch, mode, type, eager or compiled.

A cell's name says all of it: ``Block-b16-224px-batch64-step-bfloat16-eager``.
"""

import copy
import itertools
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from benchmarks.flops import Work
from benchmarks.modes import MODES
from benchmarks.timing import Call, check
from benchmarks.workloads import ROWS
from scripts.machine import Machine

BATCHES = (1, 64, 256)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FEW = 2  # images whose output is checked
CPU_LIMIT = 170e9  # FLOPs of a call: about a second on two cores
COMPILED_ON_CPU = {"STNClassifier-32px", "VisionTransformer-b16-32px", "VisionTransformer-lite-32px", "Block-b16-32px"}


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

    def affordable(self, machine: Machine) -> bool:
        """Whether it has its place in half an hour of a GPU, or twelve minutes of a CPU.

        Compiling takes longer than timing, so that it is done for batches of 64, and on a CPU for the models and a
        block in one type. float16 and batches of 256 are a GPU's affair, and the warp is float32 in any case.
        """
        if self.dtype != "float32" and self.row.startswith("SpatialTransformer"):
            return False
        if self.compiled and self.batch != 64:
            return False
        if machine.device.type == "cuda":
            return self.dtype != "float16" or not self.compiled
        if self.compiled and (
            self.row not in COMPILED_ON_CPU
            or self.mode == "backward"
            or self.dtype != ("bfloat16" if machine.fast_at_bfloat16 else "float32")
        ):
            return False
        return self.batch <= 64 and self.dtype != "float16" and self.work.flops(self.mode) <= CPU_LIMIT


def cells(machine: Machine) -> list[Cell]:
    """Those that the machine can afford."""
    grid = (Cell(*choice) for choice in itertools.product(ROWS, BATCHES, MODES, DTYPES, (False, True)))
    return [cell for cell in grid if cell.affordable(machine)]


@lru_cache(maxsize=1)  # cells of one row follow one another
def built(row: str, batch: int, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """The module, its input, and what it must make of the first images, computed in float64."""
    torch.manual_seed(0)
    module = ROWS[row].build(batch)
    for parameter in module.parameters():
        if not parameter.any():  # a head that starts at zero hides what comes before it
            nn.init.normal_(parameter, std=0.02)
    x = torch.randn(batch, *ROWS[row].shape)
    with torch.inference_mode():
        expected = copy.deepcopy(module).double().eval()(x[:FEW].double())
    images = x.ndim == 4  # they come as a run makes them; tokens come from a layer that wants their gradient
    x = x.to(device, memory_format=torch.channels_last) if images else x.to(device).requires_grad_()
    return module.to(device), x, expected


def prepared(cell: Cell, device: torch.device, backend: str = "inductor") -> Call:
    """The call to time, once its output has been checked.

    Raises:
        AssertionError: If the output is wrong.
    """
    module, x, expected = built(cell.row, cell.batch, device)
    if cell.compiled:
        torch.compiler.reset()
        module = torch.compile(module, backend=backend)
    dtype = DTYPES[cell.dtype]
    call = MODES[cell.mode](module, x, dtype)
    check(call()[:FEW].cpu(), expected, dtype)
    return call
