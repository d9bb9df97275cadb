"""Whether this tree is slower than another: both are measured now, in turn.

make bench-compare BASE=benchmarks/results/machine.json   # the tree of that file's commit
make bench-compare BASE=main~3                            # any commit
"""

import sys

from benchmarks.options import CompareOptions
from scripts.system.command_line import parse, run


def main(options: CompareOptions) -> None:
    """Exit with 1 if this tree is slower, else with 0."""
    from benchmarks.trees import comparison  # imports torch, so only once the flags are read

    sys.exit(comparison.main(options))


if __name__ == "__main__":
    run(lambda: main(parse(CompareOptions, "bench-compare")), "bench-compare")
