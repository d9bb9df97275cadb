"""The specification is complete: each component has a row, each cell of the table is covered, each law exists."""

import ast

import pytest

import components
from tests.contract import table
from tests.contract.cases import CASES
from tests.contract.items import ITEMS, contract_tests, snake_case
from tests.support.sources import ROOT


def test_every_component_has_a_row() -> None:
    assert set(table.ROWS) == set(components.__all__), "tests/contract/cases.py has a row for each"


def test_no_cell_of_the_table_is_empty() -> None:
    """A cell has a test for every row, laws, or a reason in words."""
    empty = [f"{name}: {item}" for item in ITEMS for name in table.ROWS if table.kind(item, name) == "nothing"]
    assert not empty, "\n".join(["a row gives a law in `laws` or a reason in `exempt`; neither has", *empty])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_row_names_items_that_exist_and_gives_one_answer_to_each(case) -> None:
    assert set(case.laws) | set(case.exempt) <= set(ITEMS)
    assert not set(case.laws) & set(case.exempt), "covered by laws and exempt at once"
    assert all(reason.strip() for reason in case.exempt.values())


@pytest.mark.parametrize("name", table.ROWS)
def test_every_law_that_a_row_names_is_a_test_of_its_component(name: str) -> None:
    file = ROOT / "tests" / "components" / f"test_{snake_case(name)}.py"
    tree = ast.parse(file.read_text("utf-8") if file.exists() else "")  # a component may have no laws of its own
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    missing = {law for item in ITEMS for law in table.laws(item, name)} - tests
    assert not missing, f"{file.name} lacks laws that the row of {name} names: {missing}"


@pytest.mark.parametrize("test", contract_tests().values(), ids=contract_tests())
def test_a_test_of_the_contract_runs_for_every_row_with_neither_laws_nor_a_reason(test) -> None:
    (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize" and "case" in mark.args[0])
    owing = [case for case in CASES if test.item not in case.exempt and test.item not in case.laws]
    expected = {case.name for case in owing if all(getattr(case, field) for field in test.over.values())}
    assert {parameters.values[0].name for parameters in mark.args[1]} == expected


def test_every_row_has_bad_inputs_or_says_which_row_has_them() -> None:
    assert [case.name for case in CASES if not case.refusals and "refusals" not in case.exempt] == []


def test_the_table_of_the_page_is_that_of_the_tests() -> None:
    page = table.README.read_text("utf-8")
    assert page == table.with_table(page), "run `make contract`"
