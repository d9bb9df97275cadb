"""Errors that end a program with one line on standard error."""


def one_line(text: str) -> str:
    """Escape line breaks and control characters, which names in untrusted files may contain."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class InputError(Exception):
    """An input that the user can fix. The message is one line: the name, the value, and what is wanted."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Diverged(Exception):  # noqa: N818  # not an error of the program
    """Loss, gradients or weights of a run are no longer finite; its last checkpoint is from before that."""


class Stopped(Exception):  # noqa: N818  # not an error
    """A signal stopped a run.

    Args:
        by: The signal's number.
        message: How far the run got.
        folder: The run folder, from which it can be resumed; empty if it cannot.
    """

    def __init__(self, by: int, message: str, folder: str = "") -> None:
        super().__init__(message)
        self.by, self.folder = by, folder
