"""Say what this machine is, and measure the most that it can do: one JSON object.

python -m benchmarks.describe
"""

import json
from dataclasses import dataclass

from scripts.system.command_line import option, parse, run


@dataclass(frozen=True)
class Options:
    """Say what this machine is, and measure the most that it can do."""

    device: str = option("auto", "what to describe, auto or a name such as cuda:1")
    out: str | None = option(None, "the file to write, .json, beside printing it (default: none)")


def main(options: Options) -> None:
    """Print it.

    Raises:
        InputError: If a name is not there.
    """
    # here, since these import torch, and the flags were to be read before
    from benchmarks.measure.devices import ready
    from benchmarks.measure.machine import description, peaks
    from benchmarks.measure.records import target, write

    device = ready(options.device)
    content = description(device) | {"peaks": peaks(device)}
    write(target(options.out, True, device, "machine"), content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    run(lambda: main(parse(Options, "describe")), "describe")
