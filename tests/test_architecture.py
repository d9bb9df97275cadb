"""The architecture: the import graph is read from the source and compared with the rules."""

import ast
import json
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from shutil import copy

import pytest

import components
from tests.contract.cases import CASES
from tests.contract.items import snake_case
from tests.support.sources import ROOT, component_files, dotted, imports, modules

KNOWS = {  # folder of scripts -> folders that it may import; all may import components, and entries everything
    "system": set(),
    "data": {"system"},
    "models": set(),
    "weights": {"system", "models"},
    "run": {"system", "models"},
    "training": {"system", "data", "run"},
    "recipes": {"system", "data", "training"},
    "subjects": {"system", "data", "models", "weights", "run", "training", "recipes"},
    "exporting": {"system", "data", "subjects"},
    "pages": {"system", "data", "models", "run", "training", "recipes", "subjects"},
    # they start runs, as entries do
    "notebooks": {"system", "data", "models", "weights", "run", "training", "recipes", "subjects", "experiment"},
}
FLOORS = {"components": set(), "scripts": {"components"}, "benchmarks": {"components", "scripts"},
          "tests": {"components", "scripts", "benchmarks"}}  # fmt: skip
MOST_FILES = {"scripts": 12}  # directly in that folder
MOST_FILES_IN_A_FOLDER = 14
EXAMPLES = {  # component -> how a copy is built, and the shapes of its input and output
    "localization_net": ("LocalizationNet(3, 6)", (2, 3, 32, 32), (2, 6)),
    "spatial_transformer": (
        "SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(192, 6)))",
        (2, 3, 8, 8),
        (2, 3, 8, 8),
    ),
    "patch_embeddings": ("PatchEmbeddings(8, 4, dim=6)", (2, 3, 8, 8), (2, 5, 6)),
    "attention": ("Attention(6, 2)", (2, 5, 6), (2, 5, 6)),
    "mlp": ("MLP(6, 7)", (2, 5, 6), (2, 5, 6)),
    "block": ("Block(6, 2, mlp_dim=7)", (2, 5, 6), (2, 5, 6)),
    "encoder": ("Encoder(6, 2, num_heads=2, mlp_dim=7)", (2, 5, 6), (2, 5, 6)),
}
PROGRAM = """
import importlib, json, sys
import torch

sys.modules["components"] = None  # so that the kit itself cannot be imported
shapes = {}
for name, (build, shape, _) in json.loads(sys.argv[1]).items():
    module = importlib.import_module(f"theirs_{name}.{name}")
    output = eval(build, {"nn": torch.nn, **vars(module)})(torch.randn(shape))
    shapes[name] = [list(output.shape), module.__file__]
print(json.dumps(shapes))
"""


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def parts(path: Path) -> set[Path]:
    """The components that a component imports."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("components.")}
    return {path.with_name(f"{name}.py") for name in names}


@pytest.mark.parametrize("path", modules("components"), ids=lambda path: path.stem)
def test_a_component_knows_torch_einops_the_standard_library_and_its_parts(path: Path) -> None:
    assert packages(imports(path)) <= {"torch", "einops", "components", *sys.stdlib_module_names}
    if path not in component_files():
        assert parts(path) == set()
        return
    case = next((case for case in CASES if snake_case(case.name) == path.stem), None)
    assert case is not None, f"tests/contract/cases.py has no row for {path.name}"
    module = case.module()
    inside = {type(each).__module__ for each in (*module.modules(), *vars(module).values()) if each is not module}
    assert {dotted(part) for part in parts(path)} <= inside


@pytest.mark.parametrize("path", modules("components"), ids=lambda path: path.stem)
def test_a_component_has_relative_imports_and_a_license(path: Path) -> None:
    """So that a file or a folder can be copied anywhere."""
    source = path.read_text("utf-8")
    assert source.startswith("# SPDX-License-Identifier: MIT\n")
    assert "from components" not in source
    assert "import components" not in source


@pytest.mark.parametrize("name", ("whole", "rate"))
def test_what_every_file_needs_to_stand_alone_is_the_same_in_each(name: str) -> None:
    """So that a copied file has its checks with it, and they are changed together."""
    functions = (node for path in modules("components") for node in ast.parse(path.read_text("utf-8")).body)
    copies = [ast.unparse(node) for node in functions if isinstance(node, ast.FunctionDef) and node.name == name]
    assert len(copies) > 2
    assert len(set(copies)) == 1


@pytest.mark.parametrize("path", modules("scripts"), ids=dotted)
def test_scripts_have_absolute_imports(path: Path) -> None:
    assert not any(
        isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_down_only(floor: str) -> None:
    for path in modules(floor):
        assert packages(imports(path)) & FLOORS.keys() <= FLOORS[floor] | {floor}, path


def is_there(name: str) -> bool:
    """Whether a dotted name of the kit is a folder, a file, something in a file, or something that a folder exports."""
    place = ROOT / name.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").is_file() or place.parent.with_suffix(".py").is_file():
        return True
    return hasattr(import_module(dotted(place.parent)), place.name)


@pytest.mark.parametrize("floor", FLOORS)
def test_what_is_imported_from_the_kit_is_there(floor: str) -> None:
    """Inside a function, a file that was moved would be missed only when somebody calls it."""
    for path in modules(floor):
        assert [name for name in imports(path) if packages({name}) <= {*FLOORS} and not is_there(name)] == [], path


def folder_of(path: Path) -> str:
    """The folder of scripts that a file is in; empty for the entries."""
    return "/".join(path.relative_to(ROOT / "scripts").parts[:-1])


def test_the_rules_list_exactly_the_folders_of_scripts() -> None:
    assert {folder_of(path) for path in modules("scripts")} == {*KNOWS, ""}


@pytest.mark.parametrize("path", [path for path in modules("scripts") if folder_of(path)], ids=dotted)
def test_a_folder_imports_the_folders_below_it_and_no_entry(path: Path) -> None:
    known = {name.split(".")[1] for name in imports(path) if name.startswith("scripts.")}
    assert known <= KNOWS[folder_of(path)] | {folder_of(path)}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a cycle; empty if there is none."""
    try:
        [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_have_no_cycle() -> None:
    files = [path for floor in FLOORS for path in modules(floor)]
    names = {dotted(path) for path in files}
    assert cycle({dotted(path): imports(path) & names for path in files}) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize("floor", ["scripts", "benchmarks", "tests"])
def test_no_folder_has_too_many_files(floor: str) -> None:
    counts = Counter(path.parent for path in (ROOT / floor).rglob("*.py"))
    assert counts[ROOT / floor] <= MOST_FILES.get(floor, MOST_FILES_IN_A_FOLDER)
    assert max(counts.values()) <= MOST_FILES_IN_A_FOLDER


def test_every_component_is_exported_under_its_class_name() -> None:
    assert {type(getattr(components, name)) for name in components.__all__} == {type}
    files = {getattr(components, name).__module__ for name in components.__all__}
    assert files == {dotted(path) for path in component_files()}


def with_parts(path: Path) -> set[Path]:
    return {path}.union(*(with_parts(part) for part in parts(path)))


def test_a_component_runs_in_a_package_of_another_name_that_cannot_see_the_kit(tmp_path: Path) -> None:
    assert {path.stem for path in component_files()} == EXAMPLES.keys(), "EXAMPLES has a line for each"
    for path in component_files():
        package = tmp_path / f"theirs_{path.stem}"
        package.mkdir()
        for each in with_parts(path):
            copy(each, package)
    command = [sys.executable, "-c", PROGRAM, json.dumps(EXAMPLES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(file.startswith(str(tmp_path)) for _, file in found.values())
    assert {name: tuple(shape) for name, (shape, _) in found.items()} == {
        name: out for name, (_, _, out) in EXAMPLES.items()
    }
