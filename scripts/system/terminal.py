"""Print what a terminal can show, and go on where it is gone: everything stands in train.log as well."""

import contextlib
import io
import os
import sys


def say(text: str) -> None:
    """Print a line; once the terminal or the pipe is closed, print nothing more."""
    try:
        print(text, flush=True)
    except OSError:
        silence()


def silence() -> None:
    """Send standard output nowhere, so that nothing that is left in its buffer fails at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def show_every_name() -> None:
    """Let a terminal that lacks a character show its number: by default it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
