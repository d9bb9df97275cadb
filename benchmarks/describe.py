"""Describe this machine and measure its peaks, as one JSON object.

python -m benchmarks.describe
"""

import json

from benchmarks.options import DescribeOptions
from scripts.system.command_line import parse, run


def main(options: DescribeOptions) -> None:
    """Measure, print and write.

    Raises:
        InputError: If the device is not there, or --out is refused.
    """
    # these import torch, so only once the flags are read
    from benchmarks.measure.devices import ready
    from benchmarks.measure.machine import description, peaks
    from benchmarks.measure.records import target, write

    device = ready(options.device)
    content = description(device) | {"peaks": peaks(device)}
    write(target(options.out, True, device, "machine"), content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    run(lambda: main(parse(DescribeOptions, "describe")), "describe")
