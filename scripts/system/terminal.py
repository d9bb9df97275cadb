"""Print what a terminal can show, and go on where it is gone: what a run says stands in train.log as well."""

import contextlib
import io
import os
import sys
from typing import TextIO


def say(text: str) -> None:
    """Print a line; once the terminal or the pipe is closed, print nothing more."""
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """The same on standard error."""
    _print(text, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """Send a stream nowhere, so that nothing that is left in its buffer fails at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_what_is_closed() -> None:
    """Open what a daemon was started without: a file of the run would take its place, and the bar needs a stream."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free is this one
            os.set_inheritable(number, True)  # for the programs that this one starts
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - for good


def show_every_name() -> None:
    """Let a terminal that lacks a character show its number: by default it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
