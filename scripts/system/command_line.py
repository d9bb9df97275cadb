"""Arguments and flags from the fields of a dataclass, and errors as one line with exit code 2."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from scripts.system.errors import Diverged, InputError, Stopped, one_line

Options = TypeVar("Options")
LARGEST = 2**31 - 1


def option(default: Any, help: str, *, type: Callable[[str], Any] = str, choices: Sequence[str] = ()) -> Any:
    """Declare a dataclass field that is also a flag.

    Args:
        default: Its value when the flag is not given; also shown in the help, unless None.
        help: What it means, with its unit.
        type: Turns the argument into the value; ``bool`` makes a switch without an argument.
        choices: The only values allowed, where there are few.
    """
    return dataclasses.field(default=default, metadata={"help": help, "type": type, "choices": choices})


def setting(help: str, *, type: Callable[[str], Any] = str, choices: Sequence[str] = (), **default: Any) -> Any:
    """Declare a field of a recipe that a flag may change."""
    return dataclasses.field(**default, metadata={"help": help, "type": type, "choices": choices})


def changes(of: type) -> Any:
    """Declare the field for what flags change of a recipe: a flag for every setting of that class."""
    settings = [field for field in dataclasses.fields(of) if field.metadata]
    return dataclasses.field(default_factory=dict, metadata={"settings": settings})


def argument(help: str) -> Any:
    """Declare a dataclass field that must be given, by its place and without a flag."""
    return dataclasses.field(metadata={"help": help})


def whole(minimum: int) -> Callable[[str], int]:
    """A whole number from ``minimum`` to what 32 bits hold: more is a slip of the finger, and too much for torch."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= LARGEST:
            raise argparse.ArgumentTypeError(f"({text}) must be a whole number from {minimum} to {LARGEST}")
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


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"({text}) must be one of {', '.join(choices)}")
        return text

    return parse


class _Parser(argparse.ArgumentParser):
    """Reports an error as one line: the usage text above it hides it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument ").replace(": (", " ("))


def parse(options: type[Options], program: str, arguments: Sequence[str] | None = None) -> Options:
    """Read ``options`` from the command line; its docstring is the help's first paragraph.

    Raises:
        InputError: If an argument is missing, unknown or not what it must be.
        SystemExit: With code 0 after ``--help``.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for text in arguments:
        if not text.isprintable():  # it would be a name in a log and on a page
            raise InputError(f"argument {text} must be printable")
    parser = _Parser(program, description=options.__doc__, allow_abbrev=False)
    settings: list[dataclasses.Field[Any]] = []
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        if field.default is field.default_factory is dataclasses.MISSING:
            parser.add_argument(field.name, metavar=field.name.upper(), help=field.metadata["help"])
        elif "settings" in field.metadata:
            settings = field.metadata["settings"]
            for each in settings:
                _add_flag(parser, each, argparse.SUPPRESS, " (default: the recipe's)")
        else:
            _add_flag(parser, field, field.default, "" if field.default is None else f" (default: {field.default})")
    given = vars(parser.parse_args(arguments))
    changed = {field.name: given.pop(field.name) for field in settings if field.name in given}
    return options(**given, **({"changes": changed} if settings else {}))


def _add_flag(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]", default: Any, shown: str) -> None:
    flag, meta = "--" + field.name.replace("_", "-"), field.metadata
    if meta["type"] is bool:
        parser.add_argument(flag, action="store_true", help=meta["help"])
        return
    choices = meta["choices"]
    parser.add_argument(
        flag,
        type=one_of(choices) if choices else meta["type"],
        default=default,
        metavar="|".join(choices) or field.name.upper(),
        help=meta["help"] + shown,
    )


def asked(options: Any) -> dict[str, Any]:
    """The value of every flag, and of those that change the recipe what was given."""
    values = dataclasses.asdict(options)
    return values | values.pop("changes", {})


def as_flags(values: Mapping[str, object]) -> list[str]:
    """The command line that ``parse`` turns into these values; switches that are off and None need none."""
    given = [(f"--{name.replace('_', '-')}", value) for name, value in values.items()]
    return [flag if value is True else f"{flag}={value}" for flag, value in given if value not in (None, False)]


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
        print(f"{program}: error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
