"""The import graph is the architecture, so it is read from the source and compared with the rules."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest

ROOT = Path(__file__).parent.parent
SIBLINGS = {  # component -> components it may import
    "localization_net": set(),
    "spatial_transformer": set(),
    "patch_embeddings": set(),
    "attention": set(),
    "mlp": set(),
    "block": {"attention", "mlp"},
    "encoder": {"block"},
}
ENTRIES = {"train_stn", "train_vit", "convert", "report"}
KNOWS_NO_TRAINING = {"data", "download", "image_tree", "batches", "page", "figures", "findings", "theta",
                     "attention_maps", "archives", "evaluation", "processes", "checkpoints", "files",
                     "weight_families", "weight_files", "weight_names", "cifar10_batches", "transforms", "recipes",
                     "recipes_stn", "recipes_vit"}  # fmt: skip
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


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            module = f"{path.parent.name}.{node.module}" if node.level else node.module
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


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


@pytest.mark.parametrize("path", modules("scripts"), ids=lambda path: path.stem)
def test_scripts_name_what_they_import_in_full(path: Path) -> None:
    assert not any(
        isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


@pytest.mark.parametrize("path", modules("scripts"), ids=lambda path: path.stem)
def test_scripts_know_components_and_never_an_entry(path: Path) -> None:
    names = imports(path)
    assert not packages(names) & {"tests", "benchmarks"}
    known = {name.split(".")[1] for name in names if name.startswith("scripts.")}
    assert not known & (ENTRIES - {path.stem})
    if path.stem in KNOWS_NO_TRAINING:
        assert "training" not in known


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
