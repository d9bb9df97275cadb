"""What hangs in the museum: a mistake, what it takes the place of, and the law that rejects it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.cases import CASES, Refusal


@dataclass(frozen=True)
class Exhibit:
    """A component with one mistake.

    Args:
        mistake: What people write instead. Its docstring says what is wrong, and in brackets or below it stands where
            people met it on GitHub, or asked for what is lost; a mistake without a report needs no witness.
        right: The method or function of the component whose place it takes.
        law: The test that rejects it.
        given: The law's parameters, as far as hypothesis does not draw them; the case is the component's own row.
        error: How the law rejects it.
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
    """Hang the function below in the museum."""

    def hang(mistake: Callable[..., Any]) -> Callable[..., Any]:
        EXHIBITS.append(Exhibit(mistake, right, law, given, error))
        return mistake

    return hang


def refusal(start: str) -> Refusal:
    """The first refusal in the rows whose message starts like this."""
    return next(row for case in CASES for row in case.refusals if row.message.startswith(start))
