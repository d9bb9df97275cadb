"""The pages on other libraries are true: tables come from the kept results, and every defect can be reproduced."""

import json
import re
import sys
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.system.errors import InputError
from tests.contract import planted
from tests.contract.foreign import table
from tests.contract.items import ITEMS
from tests.contract.row import Row

DEFECTS = (table.FOLDER / "DEFECTS.md").read_text("utf-8")
RESULTS = json.loads(table.RESULTS.read_text("utf-8"))
HELD = {name: module for name, module in RESULTS["modules"].items() if "unusable" not in module}
PARTS = dict(re.findall(r"^## \d+\. ([^\n]+)\n(.*?)(?=^## |\Z)", DEFECTS, re.DOTALL | re.MULTILINE))


def test_the_tables_of_the_page_come_from_the_kept_results() -> None:
    page = table.PAGE.read_text("utf-8")
    assert page == table.with_tables(page, RESULTS), "run `make foreign`"


def test_at_least_thirty_modules_of_all_libraries_are_in_the_table() -> None:
    assert set(RESULTS["versions"]) == {*table.LIBRARIES}
    prefixes = {"torch": "nn.", "vit-pytorch": "vit_pytorch "}
    for library in table.LIBRARIES:
        assert sum(name.startswith(prefixes.get(library, f"{library} ")) for name in HELD) >= 5, library
    assert len(HELD) >= 30


def test_every_item_of_a_module_is_kept_broken_or_left_out() -> None:
    for name, module in HELD.items():
        items = [*module["kept"], *(one["item"] for one in module["broken"]), *module["left out"]]
        assert sorted(items) == sorted(ITEMS), name


def test_no_convention_is_claimed_for_what_a_module_keeps() -> None:
    unneeded = {name: module["conventions that it does not need"] for name, module in HELD.items()}
    assert {name: items for name, items in unneeded.items() if items} == {}


def test_results_are_kept_by_name_and_only_those_asked_for_are_new(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "results.json"
    monkeypatch.setattr(table, "RESULTS", kept)
    meant = {"batch independence": "it is meant to", "shape": "not needed"}
    rows = (
        Row("sees", partial(planted.SeesTheBatch, 5), (3, 5), conventions=meant),
        Row("reads", partial(planted.ReadsAWeight, 5), (3, 5)),
        Row("fails", planted.Clean, (3, 5)),
    )
    monkeypatch.setitem(sys.modules, "tests.contract.foreign.rows", SimpleNamespace(ROWS=rows))
    with pytest.raises(InputError, match=r"module \(see\) must be one of sees, reads, fails"):
        table.measured(["see"])
    first = table.measured([])
    assert table.cell(first["modules"]["sees"], "batch independence") == "convention"
    assert first["modules"]["sees"]["conventions that it does not need"] == ["shape"]
    assert table.cell(first["modules"]["reads"], "wrapped layers") == "broken"
    assert table.cell(first["modules"]["reads"], "shape") == "kept"
    assert table.cell(first["modules"]["reads"], "print") == "left out"
    assert "must be built without an error" in first["modules"]["fails"]["unusable"]
    shown = table.tables(first)
    assert "2 modules" in shown["the versions"]
    assert "| fails |  | it cannot be built |" in shown["what they break"]
    assert "| batch independence | it is meant to | sees |" in shown["what they promise instead"]
    kept.write_text(json.dumps(first | {"modules": first["modules"] | {"reads": "as it was"}}))
    assert table.measured(["fails"])["modules"]["reads"] == "as it was"
    kept.write_text(json.dumps(first | {"versions": {"torch": "1.0"}}))
    with pytest.raises(InputError, match="all rows must be held anew"):
        table.measured(["fails"])


def test_at_least_ten_defects_are_described_in_full() -> None:
    assert len(PARTS) == DEFECTS.count("\n## ") >= 10
    for title, text in PARTS.items():
        leads = re.findall(r"\*\*(\w+)\.\*\*", text)
        assert leads == ["Version", "Item", "Expected", "Happens", "Known"], title
        assert text.count("```python") == 1, title
        assert re.search(r"\*\*Known\.\*\*.*(https://github.com/|[Nn]ot found in a search of)", text, re.DOTALL), title


@pytest.mark.parametrize("title", PARTS)
def test_a_defect_shows_itself(title: str) -> None:
    """A block passes where the defect is there; with another version it may be gone, which is said."""
    library, found_in = re.search(r"\*\*Version\.\*\* `([\w-]+)` ([\d.]+)\.", PARTS[title]).groups()
    block = re.search(r"```python\n(.*?)```", PARTS[title], re.DOTALL)[1]
    installed = version(library).partition("+")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of somebody else's module
            exec(compile(block, title, "exec"), {"__name__": "defect"})
    except (Exception, SystemExit) as error:
        if installed == found_in:
            raise
        pytest.skip(f"{library} {installed} no longer shows it ({error!r}); the page says {found_in}")
