"""The source files of the kit and their imports."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules(folder: str) -> list[Path]:
    """All Python files in a folder and its subfolders."""
    found = sorted(path for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py")
    assert found, f"no Python files in {folder}"
    return found


def dotted(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def component_files() -> list[Path]:
    """The files of the components; ``transforms.py`` belongs to one of them."""
    return [path for path in modules("components") if path.name != "transforms.py"]


@cache
def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            module = f"{dotted(path.parent)}.{node.module}" if node.level else node.module
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found
