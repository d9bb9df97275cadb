"""The import graph is the architecture, so it is read from the source and compared with the rules."""

import ast
from pathlib import Path

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


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
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
