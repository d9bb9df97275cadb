"""Arguments and flags from the fields of a dataclass, and errors as one line with exit code 2."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from scripts.errors import Diverged, InputError, Stopped

Options = TypeVar("Options")


def option(default: Any, help: str, *, type: Callable[[str], Any] = str, choices: Sequence[str] = ()) -> Any:
    """Declare a dataclass field that is also a flag.

    Args:
        default: Its value when the flag is not given; also shown in the help, unless None.
        help: What it means, with its unit.
        type: Turns the argument into the value; ``bool`` makes a switch without an argument.
        choices: The only values allowed, where there are few.
    """
    return dataclasses.field(default=default, metadata={"help": help, "type": type, "choices": choices})


def argument(help: str) -> Any:
    """Declare a dataclass field that must be given, by its place and without a flag."""
    return dataclasses.field(metadata={"help": help})


def whole(minimum: int) -> Callable[[str], int]:
    """A whole number that is at least ``minimum``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"({text}) must be a whole number, at least {minimum}")
        return value

    return parse


def positive(text: str) -> float:
    """A number above zero and below infinity."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"({text}) must be a number above 0")
    return value


def share(text: str) -> float:
    """A number above 0 and below 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"({text}) must be a share between 0 and 1")
    return value


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line: the usage text above it hides it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message.removeprefix('argument ').replace(': (', ' (')}\n")


def parse(options: type[Options], program: str, arguments: Sequence[str] | None = None) -> Options:
    """Read ``options`` from the command line; its docstring is the help's first paragraph.

    Raises:
        SystemExit: With code 2 after one line on standard error, or 0 after ``--help``.
    """
    parser = _Parser(program, description=options.__doc__, allow_abbrev=False)
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        flag, meta = "--" + field.name.replace("_", "-"), field.metadata
        if field.default is dataclasses.MISSING:
            parser.add_argument(field.name, metavar=field.name.upper(), help=meta["help"])
            continue
        if meta["type"] is bool:
            parser.add_argument(flag, action="store_true", help=meta["help"])
            continue
        shown = "" if field.default is None else f" (default: {field.default})"
        choices = meta["choices"] or None
        placeholder = "|".join(choices) if choices else field.name.upper()
        parser.add_argument(
            flag,
            type=meta["type"],
            choices=choices,
            default=field.default,
            metavar=placeholder,
            help=meta["help"] + shown,
        )
    return options(**vars(parser.parse_args(arguments)))


def run(main: Callable[[], None], program: str) -> NoReturn:
    """Run ``main`` and exit.

    0, or after one line: 2 where a person can mend the cause, 1 where the numbers went astray, 128 + n after signal n.
    """
    try:
        main()
    except Stopped as stopped:
        print(f"{program}: {stopped}; to go on: python -m scripts.{program} --resume {stopped.folder}", file=sys.stderr)
        sys.exit(128 + stopped.by)
    except Diverged as diverged:
        print(f"{program}: stopped: {diverged}", file=sys.stderr)
        sys.exit(1)
    except (InputError, OSError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
