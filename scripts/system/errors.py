"""What ends a program early, in words for the person at the command line."""


def one_line(text: str) -> str:
    """The text with escapes for line breaks and whatever else would move the cursor: names in files are anybody's."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class InputError(Exception):
    """Something asked for cannot be had. The message is one line: the name, the value, and what is wanted."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Diverged(Exception):  # noqa: N818  # nobody's mistake
    """The numbers of a run are not finite any more. Its last checkpoint is from before, and stays."""


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """A signal ended a run, which can go on from its folder.

    Args:
        by: The signal's number.
        where: How far the run has come.
        folder: The run folder.
    """

    def __init__(self, by: int, where: str, folder: str) -> None:
        super().__init__(where)
        self.by, self.where, self.folder = by, where, folder
