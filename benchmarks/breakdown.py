"""Measure where the time of ViT-B/16 goes, and how close it comes to the machine's peak for matrix products.

python -m benchmarks.breakdown
"""

from benchmarks.options import BreakdownOptions
from scripts.system.command_line import parse, run


def main(options: BreakdownOptions) -> None:
    """Measure, print the page and write it."""
    from benchmarks.profiling import breakdown  # imports torch, so only once the flags are read

    breakdown.main(options)


if __name__ == "__main__":
    run(lambda: main(parse(BreakdownOptions, "breakdown")), "breakdown")
