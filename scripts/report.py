"""Draw the figures and the page of a finished run from its folder alone.

python -m scripts.report runs/<folder>
"""

from dataclasses import dataclass
from pathlib import Path

from scripts.system.command_line import argument, parse, run


@dataclass
class Options:
    """Draw the figures and the page of a finished run."""

    folder: str = argument("the folder of the run")


def main(options: Options) -> None:
    """Draw the report and print its path."""
    from scripts.run.page import write_report  # loads torch and matplotlib, and flags are read before that

    print(write_report(Path(options.folder)))


if __name__ == "__main__":
    run(lambda: main(parse(Options, "report")), "report")
