"""What ``make mutants`` says of a run of mutmut; whether its list is up to date, it finds out itself."""

import pytest

from tests.mutation.survivors import EQUIVALENT, Survivor, complaints

KNOWN = Survivor("components/one.py", ("fill(0)", "fill(1)"), "zero times any number is zero")


def diff(survivor: Survivor, line: str = "x = x.fill(0)") -> list[str]:
    """What ``mutmut show`` prints of it."""
    files = [f"--- {survivor.file}", f"+++ {survivor.file}"]
    return ["# its name: survived", *files, "@@ -1,1 +1,1 @@", f"-    {line}", f"+    {line.replace(*survivor.change)}"]


def said(others: dict[str, str], diffs: dict[str, list[str]]) -> str:
    """Complaints about a thousand killed mutants, the one in the list, and some others."""
    outcomes = dict.fromkeys(map(str, range(1000)), "killed") | {"known": "survived"} | others
    return "\n".join(complaints(outcomes, {"known": diff(KNOWN)} | diffs, [KNOWN]))


def test_nothing_is_said_of_mutants_that_are_killed_or_known() -> None:
    assert said({}, {}) == ""


@pytest.mark.parametrize("outcome", ("survived", "timeout", "no tests", "suspicious", "segfault"))
def test_what_is_alive_or_not_decided_and_not_in_the_list_is_shown(outcome: str) -> None:
    new = Survivor(KNOWN.file, ("= b", "= None"), "")
    complaint = said({"new": outcome}, {"new": diff(new, "a = b")})
    assert complaint.startswith(f"{outcome}, and nobody says why: new")
    assert "-    a = b\n+    a = None" in complaint


def test_the_list_is_of_one_change_in_one_file() -> None:
    other = Survivor("components/other.py", KNOWN.change, "")
    assert "nobody says why" in said({"new": "survived"}, {"new": diff(other)})


def test_a_mutant_in_the_list_that_is_killed_is_shown() -> None:
    assert f"in the list, but killed: {KNOWN}" in complaints({"0": "killed"}, {}, [KNOWN])


def test_nearly_all_have_to_be_killed_even_if_the_others_are_known() -> None:
    alive = {f"alive {number}": "survived" for number in range(3)}
    outcomes = dict.fromkeys(map(str, range(97)), "killed") | alive
    assert "97.0% of all mutants killed, 98% wanted" in complaints(outcomes, dict.fromkeys(alive, diff(KNOWN)), [KNOWN])


@pytest.mark.parametrize("survivor", EQUIVALENT, ids=lambda survivor: " ".join((survivor.file, *survivor.change)))
def test_every_change_in_the_list_has_a_reason(survivor: Survivor) -> None:
    old, new = survivor.change
    assert old != new
    assert survivor.reason
