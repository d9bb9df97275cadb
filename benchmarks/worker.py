"""One side of a comparison: times what it is asked for with the components of the folder that it was started in.

A line of JSON in, ``{"cell": {...}, "repeats": 3}``, and a line out: the seconds of one call.
"""

import json
import sys

from benchmarks.cells import Cell, prepared
from benchmarks.timing import Call, sample, warm_up
from scripts.devices import choose_device, keep_freed_memory


def main() -> None:
    """Answer until nobody asks any more."""
    keep_freed_memory()
    device, ready = choose_device("auto"), None
    call: Call
    for line in sys.stdin:
        asked = json.loads(line)
        cell = Cell(**asked["cell"])
        if cell != ready:
            call, ready = prepared(cell, device), cell
            warm_up(call)
        print(sample(call, asked["repeats"]), flush=True)


if __name__ == "__main__":
    main()
