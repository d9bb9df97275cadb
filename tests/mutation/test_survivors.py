"""What ``make mutants`` says of a run of mutmut, and that its list of equivalent mutants is up to date."""

import pytest

from tests.mutation.survivors import EQUIVALENT, Survivor, complaints
from tests.support.sources import ROOT

KNOWN = EQUIVALENT[0]


def shown(survivor: Survivor) -> list[str]:
    """What ``mutmut show`` prints of it."""
    source = (ROOT / survivor.file).read_text("utf-8").splitlines()
    (line,) = (line for line in source if survivor.change[0] in line)
    files = [f"--- {survivor.file}", f"+++ {survivor.file}"]
    return ["# its name: survived", *files, "@@ -1,1 +1,1 @@", f"-{line}", f"+{line.replace(*survivor.change)}"]


def said(others: dict[str, str], diffs: dict[str, list[str]]) -> str:
    """Complaints about a thousand killed mutants, everything in the list, and some others."""
    listed = {f"known {number}": shown(survivor) for number, survivor in enumerate(EQUIVALENT)}
    outcomes = dict.fromkeys(map(str, range(1000)), "killed") | dict.fromkeys(listed, "survived") | others
    return "\n".join(complaints(outcomes, listed | diffs))


def test_nothing_is_said_of_mutants_that_are_killed_or_known() -> None:
    assert said({}, {}) == ""


@pytest.mark.parametrize("outcome", ("survived", "timeout", "no tests", "suspicious", "segfault"))
def test_what_is_alive_or_not_decided_and_not_in_the_list_is_shown(outcome: str) -> None:
    lines = ["# new", f"--- {KNOWN.file}", f"+++ {KNOWN.file}", "@@ -1,1 +1,1 @@", "-    a = b", "+    a = None"]
    complaint = said({"new": outcome}, {"new": lines})
    assert complaint.startswith(f"{outcome}, and nobody says why: new")
    assert "-    a = b\n+    a = None" in complaint


def test_the_list_is_of_one_change_in_one_file() -> None:
    lines = [line.replace(KNOWN.file, "components/other.py") for line in shown(KNOWN)]
    assert "nobody says why" in said({"new": "survived"}, {"new": lines})


def test_a_mutant_in_the_list_that_is_killed_is_shown() -> None:
    assert f"in the list, but killed: {KNOWN}" in complaints({"0": "killed"}, {})


def test_nearly_all_have_to_be_killed_even_if_the_others_are_known() -> None:
    alive = {f"alive {number}": "survived" for number in range(3)}
    outcomes = dict.fromkeys(map(str, range(97)), "killed") | alive
    assert "97.0% of all mutants killed, 98% wanted" in complaints(outcomes, dict.fromkeys(alive, shown(KNOWN)))


@pytest.mark.parametrize("survivor", EQUIVALENT, ids=lambda survivor: " ".join((survivor.file, *survivor.change)))
def test_every_change_in_the_list_is_of_one_place_and_has_a_reason(survivor: Survivor) -> None:
    old, new = survivor.change
    assert (ROOT / survivor.file).read_text("utf-8").count(old) == 1
    assert old != new
    assert survivor.reason
