"""What an H100 should give at most, worked out from FLOPs and bytes: the page computed.md.

python -m benchmarks.roofline
"""

import math
from pathlib import Path
from typing import NamedTuple

from benchmarks.cells import BATCHES
from benchmarks.flops import Bound, Work
from benchmarks.workloads import ROWS
from scripts.files import write_whole

PAGE = Path(__file__).parent / "computed.md"
MODES = {"forward": "inference", "backward": "forward and backward", "step": "training step"}
SHORT = 10e-6  # seconds: what starting a few kernels takes
ITEMSIZE = {"bfloat16": 2, "float32": 4}


class Machine(NamedTuple):
    """What a data sheet says: FLOP/s of dense products in each type, and bytes a second of the memory."""

    name: str
    flops: dict[str, float]
    bandwidth: float


H100 = Machine("H100 SXM", {"bfloat16": 989.4e12, "float32": 66.9e12}, 3.35e12)


def bound(work: Work, mode: str, dtype: str, machine: Machine) -> Bound:
    """The least time on that machine."""
    return work.bound(mode, ITEMSIZE[dtype], machine.flops[dtype], machine.bandwidth)


def told(batch: int, least: Bound) -> str:
    """Images a second to three digits, and what bounds them."""
    if least.seconds < SHORT:
        return f"under {SHORT * 1e6:.0f} µs"
    rate = batch / least.seconds
    digits = -math.floor(math.log10(rate)) + 2
    return f"{round(rate, digits):,.{max(0, digits)}f} ({least.by})"


def table(dtype: str, machine: Machine) -> str:
    """Images a second in every mode; a warp is float32 in any case."""
    lines = [f"| work | batch | {' | '.join(MODES.values())} |", "| --- | --- | --- | --- | --- |"]
    for name, row in ROWS.items():
        if dtype != "float32" and name.startswith("SpatialTransformer"):
            continue
        for batch in BATCHES:
            work = row.work(batch)
            cells = [told(batch, bound(work, mode, dtype, machine)) for mode in MODES]
            lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(machine: Machine = H100) -> str:
    """The whole of it."""
    return f"""\
# Computed, not measured: what an {machine.name} should give at most

No GPU was at hand, so **nothing on this page was measured**. `python -m benchmarks.roofline` works it out: a cell takes
the longer of its FLOPs at the machine's peak and its bytes at the machine's bandwidth, both in closed form in
[flops.py](flops.py). The [data sheet](https://www.nvidia.com/en-us/data-center/h100/) promises for dense products
{machine.flops["bfloat16"] / 1e12:.1f} TFLOP/s in bfloat16 and float16 (half of what it says for sparse ones),
{machine.flops["float32"] / 1e12:.1f} TFLOP/s in float32 without TF32, which is how torch multiplies unless told
otherwise, and {machine.bandwidth / 1e12:.2f} TB/s of memory.

The figures are images a second, and in brackets what the machine would wait for. They are upper bounds: norms,
activations, softmax and the cast of weights are left out, and no kernel reaches the peak. A kernel also takes some
microseconds to start, so that a cell whose bound is under {SHORT * 1e6:.0f} µs has no figure. `make bench` on such a
machine measures the same cells under the same names.

## bfloat16

{table("bfloat16", machine)}

## float32

{table("float32", machine)}
"""


if __name__ == "__main__":
    write_whole(PAGE, lambda file: file.write(page().encode()))
