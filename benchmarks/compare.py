"""Check whether this tree is slower than another one: both are timed now, alternating in every round.

make bench-compare BASE=benchmarks/results/machine.json   # the commit that this file was measured at
make bench-compare BASE=main~3                            # any commit
"""

import sys

from benchmarks.options import CompareOptions
from scripts.system.command_line import parse, run


def main(options: CompareOptions) -> None:
    """Exit with code 1 if this tree is slower, otherwise with 0."""
    from benchmarks.trees import comparison  # imports torch, so only once the flags are read

    sys.exit(comparison.main(options))


if __name__ == "__main__":
    run(lambda: main(parse(CompareOptions, "bench-compare")), "bench-compare")
