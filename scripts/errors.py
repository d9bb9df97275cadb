"""The one error that a person at the command line can mend."""


class InputError(Exception):
    """Something asked for cannot be had. The message is one line: the name, the value, and what is wanted."""
