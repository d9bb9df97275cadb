"""Command-line flags from the fields of a dataclass, and errors in one line with exit code 2."""

import argparse
import dataclasses
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from scripts.system.errors import Diverged, InputError, Stopped, one_line
from scripts.system.terminal import open_what_is_closed, show_every_name, warn

Options = TypeVar("Options")
LARGEST = 2**31 - 1


def option(default: Any, help: str, *, type: Callable[[str], Any] = str, choices: Sequence[str] = ()) -> Any:
    """Declare a dataclass field that is also a flag.

    Args:
        default: The value without the flag; the help shows it, unless it is None.
        help: The meaning, with the unit.
        type: Converts the argument; ``bool`` makes a switch without an argument.
        choices: The allowed values, if there are only a few.
    """
    return dataclasses.field(default=default, metadata={"help": help, "type": type, "choices": choices})


def setting(help: str, *, type: Callable[[str], Any] = str, choices: Sequence[str] = (), **default: Any) -> Any:
    """Declare a field of a recipe that a flag may override."""
    return dataclasses.field(**default, metadata={"help": help, "type": type, "choices": choices})


def overrides(recipe: type) -> Any:
    """Declare a dataclass field for the settings of a recipe that flags override, with a flag for each setting."""
    settings = [field for field in dataclasses.fields(recipe) if field.metadata]
    return dataclasses.field(default_factory=dict, metadata={"settings": settings})


def names_given() -> Any:
    """Declare a dataclass field for the names of the flags that were given, whatever their values."""
    return dataclasses.field(default=frozenset(), compare=False, metadata={"names given": True})


def argument(help: str) -> Any:
    """Declare a dataclass field that is a required positional argument, a file or a folder."""
    return dataclasses.field(metadata={"help": help})


def whole(minimum: int) -> Callable[[str], int]:
    """Parse a whole number from ``minimum`` to 2^31 - 1: larger ones are typing errors, and too large for torch."""

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
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"({text}) must be a number above 0")
    return value


def fraction(text: str) -> float:
    """Parse a number above 0 and below 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"({text}) must be a number between 0 and 1")
    return value


def path(text: str) -> str:
    """A file or a folder; ``~`` is the home folder, which a shell leaves alone behind ``=`` or in quotes."""
    if not text:  # as from a variable that is not set; it would be this folder
        raise argparse.ArgumentTypeError("() must be a path; it is empty")
    return os.path.expanduser(text)  # noqa: PTH111 - what is no path stays as it was typed


def printable(text: str) -> bool:
    """Whether a text can stand in one line: of any script, but without what moves a cursor or breaks the line."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Parse one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"({text}) must be one of {', '.join(choices)}")
        return text

    return parse


class _Parser(argparse.ArgumentParser):
    """Reports an error without the usage text, which would hide it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument ").replace(": (", " ("))


def parse(options: type[Options], program: str, arguments: Sequence[str] | None = None) -> Options:
    """Read ``options`` from the command line; its docstring introduces the help.

    Raises:
        InputError: If an argument is missing, unknown or invalid.
        SystemExit: With code 0 after ``--help``.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for text in arguments:
        if not printable(text):  # it would get into a log and a page
            raise InputError(f"argument {text} must be one line without control characters")
    parser = _Parser(program, description=options.__doc__, allow_abbrev=False)
    settings: list[dataclasses.Field[Any]] = []
    names = ""
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        if "names given" in field.metadata:
            names = field.name
        elif field.default is field.default_factory is dataclasses.MISSING:
            parser.add_argument(field.name, metavar=field.name.upper(), help=field.metadata["help"], type=path)
        elif "settings" in field.metadata:
            settings = field.metadata["settings"]
            for each in settings:
                _add_flag(parser, each, " (default: the recipe's)")
        else:
            _add_flag(parser, field, "" if field.default is None else f" (default: {field.default})")
    given = vars(parser.parse_args(arguments))
    more: dict[str, Any] = {names: frozenset(given)} if names else {}
    if settings:
        more["changes"] = {field.name: given.pop(field.name) for field in settings if field.name in given}
    return options(**given, **more)


def _add_flag(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]", shown: str) -> None:
    """Add a flag that leaves its field alone where it is not given."""
    flag, meta = "--" + field.name.replace("_", "-"), field.metadata
    if meta["type"] is bool:
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=meta["help"])
        return
    choices = meta["choices"]
    parser.add_argument(
        flag,
        type=one_of(choices) if choices else meta["type"],
        default=argparse.SUPPRESS,
        metavar="|".join(choices) or field.name.upper(),
        help=meta["help"] + shown,
    )


def flag_values(options: Any) -> dict[str, Any]:
    """Return the values of all flags; of those that override the recipe, only the ones given."""
    hidden = {field.name for field in dataclasses.fields(options) if "names given" in field.metadata}
    values = {name: value for name, value in dataclasses.asdict(options).items() if name not in hidden}
    changes = values.pop("changes", {})
    return values | changes


def as_flags(values: Mapping[str, object]) -> list[str]:
    """Return the command line that ``parse`` turns into these values."""
    given = {f"--{name.replace('_', '-')}": value for name, value in values.items()}
    given = {flag: value for flag, value in given.items() if value is not None and value is not False}  # 0 is a value
    return [flag if value is True else f"{flag}={value}" for flag, value in given.items()]


def command(*arguments: str) -> str:
    """A command of the Python that runs this, for a shell in this folder."""
    python, here = Path(sys.executable), Path.cwd()
    return shlex.join([str(python.relative_to(here) if python.is_relative_to(here) else python), *arguments])


def run(main: Callable[[], None], program: str, resumes: bool = False) -> NoReturn:
    """Run ``main`` and exit with its code. ``resumes`` is for a program that goes on if it is started as before.

    0 on success; after one line on standard error, 2 if the user can fix the cause, 1 if the run diverged, and 128 + n
    after signal n.
    """
    open_what_is_closed()
    show_every_name()
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a notebook leaves another one to the programs that it starts
    try:
        main()
    except Stopped as stopped:
        flags = sys.argv[1:] if resumes else [f"--resume={stopped.folder}"]
        resume = f"; to resume: {command('-m', f'scripts.{program}', *flags)}" if stopped.folder else ""
        warn(f"{program}: {stopped}{resume}")
        sys.exit(128 + stopped.by)
    except Diverged as diverged:
        warn(f"{program}: stopped: {diverged}")
        sys.exit(1)
    except (InputError, OSError) as error:
        warn(f"{program}: error: {one_line(str(error))}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name is None or "." in error.name:  # a part of something that is there
            raise
        installs = command("-m", "pip", "install", "-e", ".[test]")
        warn(f"{program}: error: {error.name} must be installed: {installs}; make setup does so in .venv")
        sys.exit(2)
    except KeyboardInterrupt:
        warn(f"{program}: interrupted")
        sys.exit(130)
    sys.exit(0)
