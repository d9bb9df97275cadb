"""Import libraries that only one thing needs, and say how they are installed where they are missing."""

import importlib
from contextlib import AbstractContextManager
from typing import Any

from scripts.system.command_line import command
from scripts.system.errors import InputError


def library(name: str, purpose: str, *packages: str) -> Any:
    """Import a library.

    Args:
        name: The library.
        purpose: What needs it.
        packages: What pip installs for that.

    Raises:
        InputError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        installs = command("-m", "pip", "install", *packages)
        raise InputError(f"{name} must be installed for {purpose}: {installs}") from None


def plain_figures() -> AbstractContextManager[None]:
    """Matplotlib as it comes: a matplotlibrc may ask for TeX, or for files of another format."""
    from matplotlib import style  # takes a second

    return style.context("default")
