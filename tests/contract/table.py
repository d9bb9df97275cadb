"""The table component x contract, which the suite prints and ``python -m tests.contract.table`` writes to the README.

In a cell: a test in ``test_contract.py``, laws in ``test_<component>.py``, or a reason why there is nothing to test.
"""

from pathlib import Path

from scripts.pages.markdown import rewritten, table
from tests.contract.cases import CASES, Case
from tests.contract.items import ITEMS, component, contract_tests, snake_case

README = Path(__file__).parents[1] / "README.md"
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
        return f"[{file}](components/{file}): {' '.join(f'`{law}`' for law in laws(item, name))}"
    return f"does not apply: {ROWS[name][0].exempt[item]}"


def markdown() -> str:
    """Three tables: every cell at a glance, the tests that run for every row, and all other cells in words."""
    tests = [(item, promise, " ".join(f"`{name}`" for name in covering(item))) for item, promise in ITEMS.items()]
    others = [(item, name, told(item, name)) for item in ITEMS for name in ROWS if kind(item, name) != "contract"]
    return "\n".join(
        (
            table(("", *ROWS), matrix()),
            table(("item", "promise", "for every row, in [test_contract.py](contract/test_contract.py)"), tests),
            table(("item", "component", "what covers it, ○, or why nothing does, -"), others),
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
    return rewritten(page, "the contract", markdown())


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
