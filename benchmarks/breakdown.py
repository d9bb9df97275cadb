"""Where the time of ViT-B/16 goes, and how near it comes to what the machine's matrix products can do.

python -m benchmarks.breakdown
"""

from benchmarks.options import BreakdownOptions
from scripts.system.command_line import parse, run


def main(options: BreakdownOptions) -> None:
    """Measure, print and write."""
    from benchmarks.profiling import breakdown  # imports torch, so only once the flags are read

    breakdown.main(options)


if __name__ == "__main__":
    run(lambda: main(parse(BreakdownOptions, "breakdown")), "breakdown")
