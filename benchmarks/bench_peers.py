"""Time the kit and other libraries on the same work, alternating in every round, and write a table of ratios.

python -m benchmarks.bench_peers --only "b/16 training"
"""

from benchmarks.options import PeerOptions
from scripts.system.command_line import parse, run


def main(options: PeerOptions) -> None:
    """Measure all groups of cells; the results are written after each."""
    from benchmarks.peers import comparison  # imports torch, so only once the flags are read

    comparison.main(options)


if __name__ == "__main__":
    run(lambda: main(parse(PeerOptions, "bench_peers")), "bench_peers")
