"""Create the folders that flags name, and name those that they do not."""

from datetime import datetime
from pathlib import Path

from scripts.system.errors import InputError


def timed(dataset: str, *parts: str) -> Path:
    """Return the default folder of what is made now, named after data, other parts and time."""
    return Path("runs", "-".join([dataset.replace(":", "-"), *parts, f"{datetime.now():%Y%m%d-%H%M%S}"]))


def make_folder(folder: Path, flag: str) -> None:
    """Create a folder, with those above it, unless it is there.

    Raises:
        InputError: If that cannot be done; the message begins with ``flag``, which says where the name comes from.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{flag} must be a folder that can be created; {error.strerror}") from error
