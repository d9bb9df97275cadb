"""Create the folders that flags name."""

from pathlib import Path

from scripts.system.errors import InputError


def make_folder(folder: Path, flag: str) -> None:
    """Create a folder, with those above it, unless it is there.

    Raises:
        InputError: If that cannot be done; the message begins with ``flag``, which says where the name comes from.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{flag} must be a folder that can be created; {error.strerror}") from error
