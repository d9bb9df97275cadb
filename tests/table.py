"""The table component x contract: ``python -m tests.table`` writes it into tests/README.md, the suite prints it.

In a cell: a test in ``test_contract.py``, laws in ``test_<component>.py``, or a reason why there is nothing to test.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.cases import CASES, Case
from tests.contract import ITEMS, component, contract_tests, snake_case

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- the contract, made by `make contract` -->\n", "<!-- end of the contract -->"
SYMBOLS = {"contract": "●", "laws": "○", "exempt": "-", "nothing": ""}

ROWS: dict[str, list[Case]] = {}  # component -> its rows
for _case in CASES:
    ROWS.setdefault(component(_case), []).append(_case)


def covering(item: str) -> list[str]:
    """The tests of ``test_contract.py`` for one item."""
    return [name for name, test in contract_tests().items() if test.item == item]


def laws(item: str, name: str) -> list[str]:
    """The tests of ``test_<component>.py`` that one component has for one item."""
    return sorted({law for case in ROWS[name] for law in case.laws.get(item, ())})


def kind(item: str, name: str) -> str:
    """What covers one item for one component: a key of SYMBOLS."""
    if covering(item) and any(item not in case.laws and item not in case.exempt for case in ROWS[name]):
        return "contract"
    if laws(item, name):
        return "laws"
    return "exempt" if all(case.exempt.get(item) for case in ROWS[name]) else "nothing"


def matrix() -> list[list[str]]:
    """A symbol for every item and component."""
    return [[item, *(SYMBOLS[kind(item, name)] for name in ROWS)] for item in ITEMS]


def told(item: str, name: str) -> str:
    """Laws or reason, in words."""
    if kind(item, name) == "laws":
        file = f"test_{snake_case(name)}.py"
        return f"[{file}]({file}): {' '.join(f'`{law}`' for law in laws(item, name))}"
    return f"does not apply: {ROWS[name][0].exempt[item]}"


def markdown_table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """One table."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *lines))


def markdown() -> str:
    """Three tables: every cell at a glance, the tests that run for every row, and all other cells in words."""
    tests = [(item, promise, " ".join(f"`{name}`" for name in covering(item))) for item, promise in ITEMS.items()]
    others = [(item, name, told(item, name)) for item in ITEMS for name in ROWS if kind(item, name) != "contract"]
    return "\n".join(
        (
            markdown_table(("", *ROWS), matrix()),
            markdown_table(("item", "promise", "for every row, in [test_contract.py](test_contract.py)"), tests),
            markdown_table(("item", "component", "what covers it, ○, or why nothing does, -"), others),
        )
    )


def plain() -> list[str]:
    """The first of them for a terminal."""
    wide = max(map(len, ITEMS))
    heads = " ".join(ROWS)
    lines = [" " * wide + " " + heads]
    for item, *symbols in matrix():
        cells = (symbol.center(len(name)) for symbol, name in zip(symbols, ROWS, strict=True))
        lines.append(f"{item:{wide}} {' '.join(cells)}".rstrip())
    return [*lines, "● test_contract.py, ○ laws in test_<component>.py, - does not apply: tests/README.md says why"]


def with_table(page: str) -> str:
    """The page with what stands between the marks made anew."""
    found = re.findall(f"{BEGIN}.*?{END}", page, re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"{README.name} must hold {BEGIN.strip()} and {END} once, not {len(found)} times")
    return page.replace(found[0], BEGIN + markdown() + END)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
