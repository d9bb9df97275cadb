"""Measure how time grows with batch, tokens, depth and image size, and fit an exponent to each curve.

python -m benchmarks.scaling
"""

from benchmarks.options import ScalingOptions
from scripts.system.command_line import parse, run


def main(options: ScalingOptions) -> None:
    """Measure all curves; the results are written after each."""
    from benchmarks.profiling import scaling  # imports torch, so only once the flags are read

    scaling.main(options)


if __name__ == "__main__":
    run(lambda: main(parse(ScalingOptions, "scaling")), "scaling")
