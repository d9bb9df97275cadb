"""Which cells of the grid are measured on a machine, and why the others are left out.

It depends on the description of the machine and on its measured peaks alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.grid.cells import DTYPES, Cell
from scripts.system.machine import Machine

ALL_SECONDS, ALL_SECONDS_ON_GPU = 660, 2700  # for all cells; data path and epoch take a minute or two more
LATEST = 1.15  # no cell starts after this many times as long: a shared machine may have become slower
LEAST_SECONDS = 0.8  # for a cell: half a second of timing, the rest for building it
CALLS_OF_A_CELL = 20  # estimated at the machine's peaks: about 15 are made, and they do not reach the peaks
COMPILING, COMPILING_ON_GPU = 25.0, 10.0  # seconds for a cell
COMPILED_ON_CPU = {"STNClassifier-32px", "VisionTransformer-b16-32px", "VisionTransformer-lite-32px", "Block-b16-32px"}
SHARE = 0.9  # of the memory; the rest is for the system and fragmentation


class Selection(NamedTuple):
    """The cells to measure, an estimate of their time in seconds, and a reason for each cell left out."""

    cells: list[Cell]
    seconds: float
    left_out: dict[Cell, str]

    def overdue(self, spent: float, machine: Machine) -> str:
        """The reason to start no further cell after ``spent`` seconds; empty while there is time."""
        if spent <= LATEST * time_for_all(machine):
            return ""
        return f"out of time: the machine was slower than its peaks, after {spent:.0f} s"

    def summary(self) -> str:
        """The number of cells left out, by reason."""
        reasons = Counter(reason.split(":")[0] for reason in self.left_out.values())
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def select(cells: Sequence[Cell], machine: Machine, peaks: Mapping[str, float], *, copies: int = 1) -> Selection:
    """Choose the cells that suit the machine, fit in memory and fit into the time for all, the fastest first.

    Args:
        cells: Cells of the grid.
        machine: The machine that they run on.
        peaks: Its measured peaks.
        copies: Number of processes that hold a cell at the same time.
    """
    left_out = {cell: reason for cell in cells if (reason := obstacle(cell, machine, copies))}
    calling = {cell: seconds_of_calls(cell, peaks) for cell in cells if cell not in left_out}
    compiling = COMPILING_ON_GPU if machine.accelerated else COMPILING
    seconds = {cell: spent + compiling * cell.compiled for cell, spent in calling.items()}
    for cell in sorted(calling, key=calling.__getitem__, reverse=True):
        if sum(seconds.values()) <= time_for_all(machine):
            break
        left_out[cell] = f"too slow on this machine: an estimated {seconds.pop(cell):.0f} s"
    return Selection([*seconds], sum(seconds.values()), {cell: left_out[cell] for cell in cells if cell in left_out})


def time_for_all(machine: Machine) -> float:
    """Seconds for all cells."""
    return ALL_SECONDS_ON_GPU if machine.accelerated else ALL_SECONDS


def obstacle(cell: Cell, machine: Machine, copies: int = 1) -> str:
    """The reason to leave out a cell on a machine, however fast it is; empty if there is none."""
    if cell.dtype not in machine.types:
        return f"in an emulated type: {cell.dtype}"
    if cell.compiled and not machine.compiles:
        return "compiled, without a compiler"
    if machine.accelerated:
        if cell.compiled and cell.dtype != "float32" and cell.dtype != machine.types[1]:
            return "compiled in a second type of 16 bits"
    elif cell.batch > 64:
        return "in batches for a GPU"
    elif cell.compiled and (
        cell.row not in COMPILED_ON_CPU or cell.mode == "backward" or cell.dtype != machine.precision("auto")
    ):
        return "compiled on a CPU, where that takes longest"
    held = copies * cell.work.held(cell.mode, DTYPES[cell.dtype].itemsize)
    if 0 < SHARE * machine.memory < held:
        return f"too large for the memory: {held / 2**30:.1f} GiB of {machine.memory / 2**30:.1f}"
    return ""


def seconds_of_calls(cell: Cell, peaks: Mapping[str, float]) -> float:
    """Estimated seconds of a cell without compiling; small work never reaches the peaks, hence a minimum."""
    itemsize = DTYPES[cell.dtype].itemsize
    call = cell.work.least_seconds(cell.mode, itemsize, peaks[f"matmul_{cell.dtype}"], peaks["copy"])
    return max(LEAST_SECONDS, CALLS_OF_A_CELL * call)
