"""Hold every row against the contract, keep the verdicts in results.json, and write the tables of the page from them.

python -m tests.contract.foreign.table             # all rows, four minutes
python -m tests.contract.foreign.table "timm Mlp"  # some of them
"""

import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.pages.markdown import rewritten, table
from scripts.system.command_line import run
from scripts.system.errors import InputError

FOLDER = Path(__file__).parent
PAGE, RESULTS = FOLDER / "README.md", FOLDER / "results.json"
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "kornia", "vit-pytorch")
SYMBOLS = {"kept": "●", "broken": "✗", "convention": "~", "left out": ""}


def measured(names: list[str]) -> dict[str, Any]:
    """Hold the rows of these names, or all, and put their verdicts in place of the old ones."""
    from tests.contract.foreign.rows import ROWS
    from tests.contract.verdict import verdict

    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"module ({unknown[0]}) must be one of {', '.join(known)}")
    versions = {library: version(library) for library in LIBRARIES}
    old = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"versions": versions, "modules": {}}
    if names and old["versions"] != versions:
        raise InputError("the results are of other versions of the libraries: all rows must be held anew")
    modules = {}
    for name, row in known.items():
        if names and name not in names:
            modules[name] = old["modules"][name]
            continue
        print(name, file=sys.stderr, flush=True)
        try:
            found = verdict(row)
        except InputError as error:
            modules[name] = {"unusable": str(error)}
            continue
        broken = [{**asdict(one), "convention": row.conventions.get(one.item, "")} for one in found.broken]
        breaks = {one.item for one in found.broken}
        modules[name] = {
            "kept": found.kept,
            "broken": broken,
            "left out": [*found.left_out],
            "notes": found.notes,
            "conventions that it does not need": [item for item in row.conventions if item not in breaks],
        }
    return {"versions": versions, "modules": modules}


def cell(module: dict[str, Any], item: str) -> str:
    """What became of an item: a key of SYMBOLS."""
    if item in module["kept"]:
        return "kept"
    for one in module["broken"]:
        if one["item"] == item:
            return "convention" if one["convention"] else "broken"
    return "left out"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """The generated parts of the page, by name."""
    from tests.contract.items import ITEMS
    from tests.contract.verdict import WHY

    modules = {name: module for name, module in results["modules"].items() if "unusable" not in module}
    items = [item for item in ITEMS if any(cell(module, item) != "left out" for module in modules.values())]
    matrix = ([name, *(SYMBOLS[cell(module, item)] for item in items)] for name, module in modules.items())
    unusable = [(name, module["unusable"]) for name, module in results["modules"].items() if "unusable" in module]
    breaks = [(name, one) for name, module in modules.items() for one in module["broken"] if not one["convention"]]
    conventions: dict[tuple[str, str], list[str]] = {}
    for name, module in modules.items():
        for one in module["broken"]:
            if one["convention"]:
                conventions.setdefault((one["item"], one["convention"]), []).append(name)
    versions = ", ".join(f"{library} {number}" for library, number in results["versions"].items())
    counts = f"{len(modules)} modules, {sum(len(module['kept']) for module in modules.values())} items kept, "
    counts += f"{len(breaks)} broken, {sum(map(len, conventions.values()))} where they promise something else"
    return {
        "the versions": f"{versions}.\n{counts}.\n",
        "modules and items": table(["module", *items], matrix),
        "what they break": table(
            ("module", "item", "what goes wrong for a user", "smallest input", "error"),
            [(name, one["item"], WHY[one["item"]], f"`{one['input']}`", escaped(one["error"])) for name, one in breaks]
            + [(name, "", "it cannot be built", "", escaped(why)) for name, why in unusable],
        ),
        "what they promise instead": table(
            ("item", "because", "modules"),
            [(item, why, ", ".join(names)) for (item, why), names in sorted(conventions.items())],
        ),
    }


def escaped(error: str) -> str:
    """An error inside a cell of a table."""
    return "`" + error.replace("`", "'").replace("|", "\\|") + "`"


def with_tables(page: str, results: dict[str, Any]) -> str:
    """The page with new tables between the marks."""
    for name, content in tables(results).items():
        page = rewritten(page, name, content)
    return page


def written(results: dict[str, Any]) -> str:
    """The results as JSON, a line for each module, so that a changed verdict is a changed line."""
    lines = (f"  {json.dumps(name)}: {json.dumps(module)}" for name, module in results["modules"].items())
    modules = ",\n".join(lines)
    return f'{{\n"versions": {json.dumps(results["versions"])},\n"modules": {{\n{modules}\n}}\n}}\n'


def main() -> None:
    """Write the results and the page."""
    import torch

    torch.set_num_threads(1)
    RESULTS.write_text(written(measured(sys.argv[1:])), "utf-8")
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    run(main, "foreign")
