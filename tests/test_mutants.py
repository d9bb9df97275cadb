"""The bug museum: every mistake in ``museum.py`` is rejected by the law beside it, which the component itself passes.

A mutant is the component's source changed in one place. Its functions are not exchanged, their code is: whoever holds
the class already, a parent, a row of ``cases.py`` or the law, then holds the mutant.
"""

import inspect
from importlib import import_module
from pathlib import Path
from types import FunctionType

import hypothesis
import pytest

import components
from tests.contract.cases import CASES
from tests.museum import MUSEUM, Exhibit

HUNG = [(room, exhibit) for room, exhibits in MUSEUM.items() for exhibit in exhibits]
EXHIBITS = {f"{room}: {exhibit.mistake} - {exhibit.rejected_by}": (room, exhibit) for room, exhibit in HUNG}
LAWS = {f"{room}: {exhibit.rejected_by}": (room, exhibit) for room, exhibit in HUNG}


def change(room: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the functions of a component, and its constants, what they are in the changed source."""
    module = import_module(getattr(components, room).__module__)
    source = Path(module.__file__).read_text("utf-8")
    assert source.count(old) == 1, f"{old!r} must occur once in {module.__file__}"
    changed = {"__name__": module.__name__, "__package__": module.__package__}
    exec(compile(source.replace(old, new), module.__file__, "exec"), changed)

    def transplant(target: object, parts: dict[str, object]) -> None:
        for name, part in parts.items():
            own = getattr(part, "__module__", None) == module.__name__  # not imported
            if own and isinstance(part, FunctionType):
                for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
                    monkeypatch.setattr(getattr(target, name), attribute, getattr(part, attribute))
            elif own and isinstance(part, type):
                transplant(getattr(target, name), dict(vars(part)))
            elif name.isupper():
                monkeypatch.setattr(target, name, part)

    transplant(module, changed)


def check(room: str, exhibit: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the law, on the component's row of cases.py if it is one of the contract."""
    given = dict(exhibit.given)
    if "case" in inspect.signature(exhibit.law).parameters:
        given["case"] = next(case for case in CASES if case.name == room)
    if hypothesis.is_hypothesis_test(exhibit.law):
        quick = hypothesis.settings.get_profile("mutants")
        monkeypatch.setattr(exhibit.law, "_hypothesis_internal_use_settings", quick)
    exhibit.law(**given)


@pytest.mark.parametrize(("room", "exhibit"), EXHIBITS.values(), ids=EXHIBITS)
def test_a_mutant_is_rejected(room: str, exhibit: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    change(room, *exhibit.change, monkeypatch)
    with pytest.raises(exhibit.error):
        check(room, exhibit, monkeypatch)


@pytest.mark.parametrize(("room", "exhibit"), LAWS.values(), ids=LAWS)
def test_the_component_itself_passes(room: str, exhibit: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each law once, and through the same exchange of code, with nothing changed."""
    old, _ = exhibit.change
    change(room, old, old, monkeypatch)
    check(room, exhibit, monkeypatch)


@pytest.mark.parametrize("room", components.__all__)
def test_every_component_has_a_room_and_no_mistake_hangs_twice(room: str) -> None:
    changes = {exhibit.change for exhibit in MUSEUM[room]}
    assert len(changes) == len(MUSEUM[room]) >= 4
