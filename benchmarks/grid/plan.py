"""Which cells of the grid a machine measures, and why not the others.

Nothing here knows what runs it: the machine is described, and its peaks are numbers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.grid.cells import DTYPES, Cell
from scripts.system.machine import Machine

ALL_SECONDS, ALL_SECONDS_ON_GPU = 660, 2700  # for all cells; the data path and an epoch take a minute or two more
LATEST = 1.15  # times as long, and no further cell is begun: a machine that others share may be slower than it was
LEAST_SECONDS = 0.8  # of a cell: half a second of timing, the rest for building it
CALLS = 20  # as long as a call at the machine's peaks: some 15 are made, and they do not reach the peaks
COMPILING, COMPILING_ON_GPU = 25.0, 10.0  # seconds
COMPILED_ON_CPU = {"STNClassifier-32px", "VisionTransformer-b16-32px", "VisionTransformer-lite-32px", "Block-b16-32px"}
SHARE = 0.9  # of the memory; the rest is the system's, and lost between tensors


class Plan(NamedTuple):
    """What is measured, how long that may take, and what is left out for which reason."""

    cells: list[Cell]
    seconds: float
    left_out: dict[Cell, str]

    def overdue(self, spent: float, machine: Machine) -> str:
        """Why no cell is begun any more once so many seconds are spent; nothing while there is time."""
        if spent <= LATEST * time_for_all(machine):
            return ""
        return f"out of time: the machine was slower than its peaks had said, and {spent:.0f} s were spent"

    def summary(self) -> str:
        """How many are left out, by reason."""
        reasons = Counter(reason.split(":")[0] for reason in self.left_out.values())
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def plan(cells: Sequence[Cell], machine: Machine, peaks: Mapping[str, float], *, copies: int = 1) -> Plan:
    """Of these cells those that make sense, fit in memory, and take no longer than there is time for all.

    Args:
        cells: Of the grid.
        machine: What they run on.
        peaks: Of the machine, measured.
        copies: How many processes hold a cell at once.
    """
    left_out = {cell: reason for cell in cells if (reason := obstacle(cell, machine, copies))}
    calling = {cell: seconds_of_calls(cell, peaks) for cell in cells if cell not in left_out}
    compiling = COMPILING_ON_GPU if machine.accelerated else COMPILING
    seconds = {cell: spent + compiling * cell.compiled for cell, spent in calling.items()}
    for cell in sorted(calling, key=calling.__getitem__, reverse=True):
        if sum(seconds.values()) <= time_for_all(machine):
            break
        left_out[cell] = f"too slow on this machine: an estimated {seconds.pop(cell):.0f} s"
    return Plan([*seconds], sum(seconds.values()), {cell: left_out[cell] for cell in cells if cell in left_out})


def time_for_all(machine: Machine) -> float:
    """Seconds."""
    return ALL_SECONDS_ON_GPU if machine.accelerated else ALL_SECONDS


def obstacle(cell: Cell, machine: Machine, copies: int = 1) -> str:
    """Why a cell makes no sense on a machine, however fast it is; nothing if it does."""
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
    """About the seconds that a cell takes beside compiling: small work never reaches the peaks, and costs the least."""
    itemsize = DTYPES[cell.dtype].itemsize
    call = cell.work.least_seconds(cell.mode, itemsize, peaks[f"matmul_{cell.dtype}"], peaks["copy"])
    return max(LEAST_SECONDS, CALLS * call)


def as_records(left_out: Mapping[Cell, str]) -> list[dict[str, str]]:
    """For a result file."""
    return [{"cell": str(cell), "reason": reason} for cell, reason in left_out.items()]
