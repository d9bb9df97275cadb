"""Time the kit beside other libraries at the same work, in turn in every round, and write the table of ratios.

python -m benchmarks.bench_peers --only "b/16 training"
"""

from benchmarks.options import PeerOptions
from scripts.system.command_line import parse, run


def main(options: PeerOptions) -> None:
    """Measure group by group, and write everything after each."""
    from benchmarks.peers import comparison  # imports torch, so only once the flags are read

    comparison.main(options)


if __name__ == "__main__":
    run(lambda: main(parse(PeerOptions, "bench_peers")), "bench_peers")
