"""The known faults of torch: each has its range of versions and names tests that exist."""

import re
from types import SimpleNamespace

import pytest

from tests.support import torch_faults
from tests.support.sources import modules
from tests.support.torch_faults import FAULTS, Fault


@pytest.mark.parametrize(("version", "gpu", "there"), (
    ("2.8.0", False, False), ("2.9.0+cu128", False, True), ("2.9.0+cu128", True, False),
    ("2.11.0", False, True), ("2.12.0", False, False), ("2.12.0a0+git1234567", False, True),
))  # fmt: skip
def test_a_fault_is_in_every_version_before_its_fix(version: str, gpu: bool, there: bool) -> None:
    assert Fault("test_x", "2.9", "2.12", "wrong", without_gpu=True).is_in(version, gpu) == there


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.tests)
def test_every_fault_names_tests_that_exist(fault: Fault) -> None:
    """A renamed test would otherwise leave its fault behind unnoticed."""
    file, name = re.match(r"(\w+\.py)::(\w+)", fault.tests).groups()
    (path,) = (path for path in modules("tests") if path.name == file)
    assert f"def {name}" in path.read_text("utf-8")


def test_only_the_tests_that_a_fault_names_must_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_faults, "FAULTS", (Fault("test_y.py::test_x[a]", "2.8", "99", "late"),))
    names = ("tests/test_y.py::test_x[a]", "tests/test_y.py::test_x[b]", "tests/test_my_y.py::test_x[a]")
    marks: dict[str, list[pytest.MarkDecorator]] = {name: [] for name in names}
    torch_faults.expect(SimpleNamespace(nodeid=name, add_marker=given.append) for name, given in marks.items())
    assert [[mark.kwargs for mark in given] for given in marks.values()] == [
        [{"reason": "torch before 99: late", "strict": True}], [], [],
    ]  # fmt: skip
