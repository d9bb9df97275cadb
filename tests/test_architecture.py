"""The import graph is the architecture, so it is read from the source and compared with the rules."""

import ast
import json
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from shutil import copy

import pytest

from tests.support.sources import ROOT, dotted, imports, modules

SIBLINGS = {  # component -> components it may import
    "localization_net": set(),
    "spatial_transformer": set(),
    "patch_embeddings": set(),
    "attention": set(),
    "mlp": set(),
    "block": {"attention", "mlp"},
    "encoder": {"block"},
}
KNOWS = {  # room of scripts -> rooms that it may import; all know the components, and the entries know everything
    "system": set(),
    "data": {"system"},
    "models": set(),
    "weights": {"system", "models"},
    "run": {"system", "models"},
    "training": {"system", "data", "run"},
    "recipes": {"system", "data", "training"},
    "subjects": {"system", "data", "models", "weights", "run", "training", "recipes"},
    "pages": {"system", "data", "models", "run", "training", "recipes", "subjects"},
}
FLOORS = {"components": set(), "scripts": {"components"}, "benchmarks": {"components", "scripts"},
          "tests": {"components", "scripts", "benchmarks"}}  # fmt: skip
MOST_FILES = {"scripts": 10}  # directly in that folder
MOST_FILES_IN_A_ROOM = 14
CALLS = {  # of what was copied: how it is built and what it is given
    "localization_net": ("LocalizationNet(3, 6)", (2, 3, 32, 32)),
    "spatial_transformer": ("SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(192, 6)))", (2, 3, 8, 8)),
    "patch_embeddings": ("PatchEmbeddings(8, 4, dim=6)", (2, 3, 8, 8)),
    "attention": ("Attention(6, 2)", (2, 5, 6)),
    "mlp": ("MLP(6, 7)", (2, 5, 6)),
    "block": ("Block(6, 2, mlp_dim=7)", (2, 5, 6)),
    "encoder": ("Encoder(6, 2, num_heads=2, mlp_dim=7)", (2, 5, 6)),
}  # fmt: skip
PROGRAM = """
import importlib, json, sys
import torch

sys.modules["components"] = None  # the kit itself cannot be imported here
shapes = {}
for name, (build, shape) in json.loads(sys.argv[1]).items():
    module = importlib.import_module(f"theirs_{name}.{name}")
    output = eval(build, {"nn": torch.nn, **vars(module)})(torch.randn(shape))
    shapes[name] = [list(output.shape), module.__file__]
print(json.dumps(shapes))
"""


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", modules("components"), ids=lambda path: path.stem)
def test_a_component_knows_torch_einops_and_its_direct_children(path: Path) -> None:
    names = imports(path)
    assert packages(names) <= {
        "torch",
        "einops",
        "components",
        "contextlib",
        "collections",
        "functools",
        "math",
        "typing",
    }
    children = {name.split(".")[1] for name in names if name.startswith("components.")}
    assert children == SIBLINGS[path.stem]


@pytest.mark.parametrize("path", modules("components"), ids=lambda path: path.stem)
def test_a_component_names_its_children_by_their_place_beside_it_and_its_license(path: Path) -> None:
    """So that a file, or a folder of them, can be copied anywhere."""
    source = path.read_text("utf-8")
    assert source.startswith("# SPDX-License-Identifier: MIT\n")
    assert "from components" not in source
    assert "import components" not in source


@pytest.mark.parametrize("path", modules("scripts"), ids=dotted)
def test_scripts_name_what_they_import_in_full(path: Path) -> None:
    assert not any(
        isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_down_only(floor: str) -> None:
    for path in modules(floor):
        assert packages(imports(path)) & FLOORS.keys() <= FLOORS[floor] | {floor}, path


def room(path: Path) -> str:
    """The folder of scripts that a file lies in; empty for the entries."""
    return "/".join(path.relative_to(ROOT / "scripts").parts[:-1])


def test_every_room_of_the_scripts_is_in_the_rules_and_the_other_way_round() -> None:
    assert {room(path) for path in modules("scripts")} == {*KNOWS, ""}


@pytest.mark.parametrize("path", [path for path in modules("scripts") if room(path)], ids=dotted)
def test_a_room_knows_the_rooms_below_it_and_no_entry(path: Path) -> None:
    known = {name.split(".")[1] for name in imports(path) if name.startswith("scripts.")}
    assert known <= KNOWS[room(path)] | {room(path)}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none where there is no such circle."""
    try:
        [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_on_a_way_round() -> None:
    files = [path for floor in FLOORS for path in modules(floor)]
    names = {dotted(path) for path in files}
    assert cycle({dotted(path): imports(path) & names for path in files}) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize("floor", ["scripts", "benchmarks", "tests"])
def test_no_folder_is_crowded(floor: str) -> None:
    counts = Counter(path.parent for path in (ROOT / floor).rglob("*.py"))
    assert counts[ROOT / floor] <= MOST_FILES.get(floor, MOST_FILES_IN_A_ROOM)
    assert max(counts.values()) <= MOST_FILES_IN_A_ROOM


def test_every_component_is_exported_under_its_class_name() -> None:
    import components

    assert {type(getattr(components, name)) for name in components.__all__} == {type}
    assert {getattr(components, name).__module__.split(".")[-1] for name in components.__all__} == set(SIBLINGS)


def with_children(name: str) -> set[str]:
    return {name}.union(*(with_children(child) for child in SIBLINGS[name]))


def test_a_component_runs_in_a_package_of_another_name_that_cannot_see_the_kit(tmp_path: Path) -> None:
    assert CALLS.keys() == SIBLINGS.keys()
    for name in CALLS:
        package = tmp_path / f"theirs_{name}"
        package.mkdir()
        for each in with_children(name):
            copy(ROOT / "components" / f"{each}.py", package)
    command = [sys.executable, "-c", PROGRAM, json.dumps(CALLS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(file.startswith(str(tmp_path)) for _, file in found.values())
    assert {name: shape for name, (shape, _) in found.items()} == {
        "localization_net": [2, 6], "spatial_transformer": [2, 3, 8, 8], "patch_embeddings": [2, 5, 6],
        "attention": [2, 5, 6], "mlp": [2, 5, 6], "block": [2, 5, 6], "encoder": [2, 5, 6],
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, children in SIBLINGS.items() if not children])
def test_a_component_without_children_is_a_file_of_its_own(name: str) -> None:
    source = (ROOT / "components" / f"{name}.py").read_text("utf-8")
    assert "from ." not in source
