"""What measures, as commands: python -m benchmarks peers, scaling, breakdown, compare; `make` has targets for them."""

import sys
from importlib import import_module

from benchmarks.options import BreakdownOptions, Command, CompareOptions, PeerOptions, ScalingOptions
from scripts.system.command_line import parse, run
from scripts.system.errors import InputError

COMMANDS = {  # its flags, and the module that measures
    "peers": (PeerOptions, "benchmarks.peers.comparison"),
    "scaling": (ScalingOptions, "benchmarks.profiling.scaling"),
    "breakdown": (BreakdownOptions, "benchmarks.profiling.breakdown"),
    "compare": (CompareOptions, "benchmarks.trees.comparison"),
}


def main() -> None:
    """Run a command; its exit code is 1 where something was slower or could not be measured.

    Raises:
        InputError: If there is no such command, or a flag is wrong.
    """
    command = parse(Command, "benchmarks", sys.argv[1:2]).command
    if command not in COMMANDS:
        raise InputError(f"COMMAND ({command}) must be one of {', '.join(COMMANDS)}")
    flags, module = COMMANDS[command]
    options = parse(flags, f"bench-{command}", sys.argv[2:])
    sys.exit(import_module(module).main(options))  # it imports torch, so only once the flags are read


if __name__ == "__main__":
    run(main, "-".join(["bench", *sys.argv[1:2]]))
