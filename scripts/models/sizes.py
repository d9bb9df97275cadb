"""What the sizes of a network must be."""

from collections.abc import Sequence
from typing import SupportsIndex

from components.attention import whole


def size(name: str, value: SupportsIndex) -> int:
    """Return a size as an int.

    Raises:
        TypeError: If it is no integer; the message begins with ``name``.
        ValueError: If it is below 1.
    """
    found = whole(name, value)
    if found < 1:
        raise ValueError(f"{name} ({value}) must be at least 1")
    return found


def sizes(name: str, values: Sequence[SupportsIndex]) -> tuple[int, ...]:
    """Return several sizes as ints.

    Raises:
        TypeError: If they are no sequence of integers.
        ValueError: If one is below 1.
    """
    if not isinstance(values, Sequence):
        raise TypeError(f"{name} ({values!r}) must be several integers")
    return tuple(size(name, value) for value in values)
