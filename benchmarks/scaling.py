"""How the cost grows with batch, tokens, depth and image size: measured curves, and the exponents fitted to them.

python -m benchmarks.scaling
"""

from benchmarks.options import ScalingOptions
from scripts.system.command_line import parse, run


def main(options: ScalingOptions) -> None:
    """Measure curve by curve, and write everything."""
    from benchmarks.profiling import scaling  # imports torch, so only once the flags are read

    scaling.main(options)


if __name__ == "__main__":
    run(lambda: main(parse(ScalingOptions, "scaling")), "scaling")
