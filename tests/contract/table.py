"""The table of components and contract items, which the suite prints and ``make contract`` writes to the README."""

import itertools
from pathlib import Path

from scripts.pages.markdown import rewritten, table
from tests.contract.cases import CASES, Case
from tests.contract.items import ITEMS, contract_tests

README = Path(__file__).parents[1] / "README.md"
SYMBOLS = {"contract": "●", "laws": "○", "exempt": "-", "nothing": ""}

ROWS: dict[str, list[Case]] = {}  # component -> its rows
for _case in CASES:
    ROWS.setdefault(_case.name.split()[0], []).append(_case)


def laws(item: str, name: str) -> list[str]:
    """The tests in ``test_<component>.py`` that one component names for one item."""
    return sorted({law for case in ROWS[name] for law in case.laws.get(item, ())})


def kind(item: str, name: str) -> str:
    """Whether tests for every row, the component's own laws, or a reason cover an item: a key of SYMBOLS."""
    tested = item in {test.item for test in contract_tests().values()}
    if tested and any(item not in case.laws and item not in case.exempt for case in ROWS[name]):
        return "contract"
    if laws(item, name):
        return "laws"
    return "exempt" if all(case.exempt.get(item) for case in ROWS[name]) else "nothing"


def matrix() -> list[list[str]]:
    """A symbol for every item and component."""
    return [[item, *(SYMBOLS[kind(item, name)] for name in ROWS)] for item in ITEMS]


def markdown() -> str:
    """Two tables: every promise with its cells, and why some items do not apply."""
    promises = ((item, ITEMS[item], *symbols) for item, *symbols in matrix())
    exempt: dict[tuple[str, str], list[str]] = {}  # item and reason -> components
    for item, name in itertools.product(ITEMS, ROWS):
        if kind(item, name) == "exempt":
            exempt.setdefault((item, ROWS[name][0].exempt[item]), []).append(name)
    reasons = ((item, ", ".join(names), reason) for (item, reason), names in exempt.items())
    return table(("item", "promise", *ROWS), promises) + "\n" + table(("item", "does not apply to", "because"), reasons)


def plain() -> list[str]:
    """The cells for a terminal."""
    wide = max(map(len, ITEMS))
    lines = [" " * wide + " " + " ".join(ROWS)]
    for item, *symbols in matrix():
        cells = (symbol.center(len(name)) for symbol, name in zip(symbols, ROWS, strict=True))
        lines.append(f"{item:{wide}} {' '.join(cells)}".rstrip())
    return [*lines, "● test_contract.py, ○ laws in test_<component>.py, - does not apply: tests/README.md says why"]


def with_table(page: str) -> str:
    """The page with new tables between the marks."""
    return rewritten(page, "the contract", markdown())


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
