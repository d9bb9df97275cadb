"""Every mistake in the museum is rejected by its law, which the component itself passes."""

import functools
import inspect
import sys
from dataclasses import replace

import hypothesis
import pytest

import components
from tests.contract import test_contract as contract
from tests.contract.cases import CASES
from tests.contract.items import snake_case
from tests.museum import table
from tests.museum.exhibits import Exhibit
from tests.museum.rooms import EXHIBITS, ROOMS

HUNG = {f"{one.room}: {one.mistake.__name__} - {one.rejected_by}": one for one in EXHIBITS}
LAWS = {f"{one.room}: {one.rejected_by}": one for one in EXHIBITS}


def check(exhibit: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the law with the mistake patched in, and with the component's row if the law belongs to the contract."""
    owner, _, name = exhibit.right.__qualname__.rpartition(".")
    home = sys.modules[exhibit.right.__module__]
    monkeypatch.setattr(getattr(home, owner) if owner else home, name, exhibit.mistake)
    if not owner:  # the law may have imported the function
        monkeypatch.setattr(sys.modules[exhibit.law.__module__], name, exhibit.mistake, raising=False)
    given = dict(exhibit.given)
    if "case" in inspect.signature(exhibit.law).parameters:
        given["case"] = next(case for case in CASES if snake_case(case.name) == exhibit.room)
    if hypothesis.is_hypothesis_test(exhibit.law):
        quick = hypothesis.settings.get_profile("mutants")
        monkeypatch.setattr(exhibit.law, "_hypothesis_internal_use_settings", quick)
    exhibit.law(**given)


@pytest.mark.parametrize("exhibit", HUNG.values(), ids=HUNG)
def test_a_mistake_is_rejected(exhibit: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(exhibit.error):
        check(exhibit, monkeypatch)


@pytest.mark.parametrize("exhibit", LAWS.values(), ids=LAWS)
def test_an_exhibit_that_changes_nothing_is_not_rejected(exhibit: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is the mistake that each law rejects, not the patching."""
    right = exhibit.right
    same = functools.wraps(right)(lambda *args, **options: right(*args, **options))
    check(replace(exhibit, mistake=same), monkeypatch)


def test_the_page_has_every_exhibit_with_the_issues_where_people_met_it() -> None:
    page = table.README.read_text("utf-8")
    assert table.with_table(page) == page, "run `make contract`"
    softmax = next(one for one in EXHIBITS if "labmlai" in inspect.getsource(one.mistake))
    assert table.sentence(softmax) == "Softmax over the queries."
    assert table.issues(softmax)[1] == (
        "[nerminnuraydogan/vision-transformer#1](https://github.com/nerminnuraydogan/vision-transformer/issues/1)"
    )


@pytest.mark.parametrize("component", [name for name, room in ROOMS.items() if hasattr(room, "without_mistake")])
def test_the_code_that_exhibits_change_is_correct(component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, law = (
        getattr(components, component).forward,
        contract.test_the_output_equals_an_independent_float64_reference,
    )
    check(Exhibit(ROOMS[component].without_mistake, right, law, given={}, error=()), monkeypatch)


@pytest.mark.parametrize("component", components.__all__)
def test_every_component_has_a_room_of_different_exhibits(component: str) -> None:
    hung = [one for one in EXHIBITS if one.room == snake_case(component)]
    descriptions = {one.mistake.__doc__ for one in hung}
    assert len(descriptions) == len(hung) >= 4, "at least four mistakes, each in words of its own"
    assert all(descriptions)
    assert {one.mistake.__module__ for one in hung} == {ROOMS[component].__name__}


def test_no_two_exhibits_have_the_same_name() -> None:
    assert len(HUNG) == len(EXHIBITS) >= 95
