"""The report of ``make mutants``, which itself finds entries of its list that are out of date."""

import pytest

from tests.mutation.survivors import EQUIVALENT, Survivor, complaints

KNOWN = Survivor("components/one.py", ("fill(0)", "fill(1)"), "zero times any number is zero")


def diff(survivor: Survivor, line: str = "x = x.fill(0)") -> list[str]:
    """The output of ``mutmut show`` for it."""
    files = [f"--- {survivor.file}", f"+++ {survivor.file}"]
    return ["# its name: survived", *files, "@@ -1,1 +1,1 @@", f"-    {line}", f"+    {line.replace(*survivor.change)}"]


def report(others: dict[str, str], diffs: dict[str, list[str]]) -> str:
    """Problems with a thousand killed mutants, the listed one, and others."""
    outcomes = dict.fromkeys(map(str, range(1000)), "killed") | {"known": "survived"} | others
    return "\n".join(complaints(outcomes, {"known": diff(KNOWN)} | diffs, [KNOWN]))


def test_killed_and_listed_mutants_are_no_problem() -> None:
    assert report({}, {}) == ""


@pytest.mark.parametrize("outcome", ("survived", "timeout", "no tests", "suspicious", "segfault"))
def test_any_other_mutant_that_is_not_killed_is_reported(outcome: str) -> None:
    new = Survivor(KNOWN.file, ("= b", "= None"), "")
    complaint = report({"new": outcome}, {"new": diff(new, "a = b")})
    assert complaint.startswith(f"{outcome}, and not in the list: new")
    assert "-    a = b\n+    a = None" in complaint


def test_an_entry_holds_for_its_file_only() -> None:
    other = Survivor("components/other.py", KNOWN.change, "")
    assert "not in the list" in report({"new": "survived"}, {"new": diff(other)})


def test_a_listed_mutant_that_is_killed_is_reported() -> None:
    assert f"in the list, but killed: {KNOWN}" in complaints({"0": "killed"}, {}, [KNOWN])


def test_nearly_all_mutants_must_be_killed_even_if_the_others_are_listed() -> None:
    alive = {f"alive {number}": "survived" for number in range(3)}
    outcomes = dict.fromkeys(map(str, range(97)), "killed") | alive
    assert "97.0% of all mutants killed, 98% wanted" in complaints(outcomes, dict.fromkeys(alive, diff(KNOWN)), [KNOWN])


@pytest.mark.parametrize("survivor", EQUIVALENT, ids=lambda survivor: " ".join((survivor.file, *survivor.change)))
def test_every_listed_change_has_a_reason(survivor: Survivor) -> None:
    old, new = survivor.change
    assert old != new
    assert survivor.reason
