"""One side of a comparison: times what it is asked for with the components of the folder that it was started in.

A line of JSON in, ``{"cell": {...}, "repeats": 3}``, and a line out: the seconds of one call. Without repeats its
output is judged once more.
"""

import json
import sys

from benchmarks.grid.cells import DTYPES, Cell, prepared
from benchmarks.measure.devices import ready
from benchmarks.measure.timing import sample, warm_up


def main() -> None:
    """Answer until nobody asks any more."""
    device, timed, work = ready("auto"), None, None
    for line in sys.stdin:
        asked = json.loads(line)
        cell = Cell(**asked["cell"])
        if work is None or cell != timed:
            work, timed = prepared(cell, device), cell
            warm_up(work.call, device)
        if asked["repeats"]:
            print(sample(work.call, device, asked["repeats"]), flush=True)
        else:
            work.oracle.check(work.call, DTYPES[cell.dtype])
            print(0, flush=True)


if __name__ == "__main__":
    main()
