"""One side of the comparison of two trees: times cells with the components of the folder that it is started in.

It reads lines of JSON, ``{"cell": {...}, "repeats": 3}``, and answers each with the seconds of one call. With 0 repeats
it checks the output again instead.
"""

import json
import sys

from benchmarks.grid.cells import DTYPES, Cell, prepared
from benchmarks.measure.devices import ready
from benchmarks.measure.timing import sample, warm_up


def main() -> None:
    """Answer until the input ends."""
    device, timed, work = ready("auto"), None, None
    for line in sys.stdin:
        request = json.loads(line)
        cell = Cell(**request["cell"])
        if work is None or cell != timed:
            work, timed = prepared(cell, device), cell
            warm_up(work.call, device)
        if request["repeats"]:
            print(sample(work.call, device, request["repeats"]), flush=True)
        else:
            work.oracle.check(work.call, DTYPES[cell.dtype])
            print(0, flush=True)


if __name__ == "__main__":
    main()
