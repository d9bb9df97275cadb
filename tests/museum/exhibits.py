"""An exhibit of the museum: a mistake, the function that it replaces, and the law that rejects it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.cases import CASES, Refusal


@dataclass(frozen=True)
class Exhibit:
    """A component with one mistake.

    Args:
        mistake: The wrong code. Its docstring says what is wrong; GitHub issues where people met it, if there are any,
            follow in brackets or in a comment.
        right: The method or function of the component that it replaces.
        law: The test that rejects it.
        given: The law's parameters that hypothesis does not draw; ``case`` is always the component's own row.
        error: The errors by which the law may reject it.
    """

    mistake: Callable[..., Any]
    right: Callable[..., Any]
    law: Callable[..., None]
    given: Mapping[str, object]
    error: tuple[type[BaseException], ...]

    @property
    def room(self) -> str:
        """The file of the component."""
        return self.right.__module__.split(".")[-1]

    @property
    def rejected_by(self) -> str:
        """The law by name, with its parameters."""
        given = [str(getattr(value, "message", getattr(value, "__name__", value))) for value in self.given.values()]
        return self.law.__name__ + (f"[{'-'.join(given)}]" if given else "")


EXHIBITS: list[Exhibit] = []


def exhibit(
    right: Callable[..., Any],
    law: Callable[..., None],
    error: tuple[type[BaseException], ...] = (AssertionError, pytest.fail.Exception),
    **given: object,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the decorated function to the museum."""

    def add(mistake: Callable[..., Any]) -> Callable[..., Any]:
        EXHIBITS.append(Exhibit(mistake, right, law, given, error))
        return mistake

    return add


def refusal(start: str) -> Refusal:
    """The first refusal in any row whose message starts like this."""
    return next(row for case in CASES for row in case.refusals if row.message.startswith(start))
