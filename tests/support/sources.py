"""The source of the kit, as tests read it: every file of a folder, in whatever room of it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules(folder: str) -> list[Path]:
    """Its Python files and those of the folders in it."""
    found = sorted(path for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py")
    assert found, f"{folder} was moved"
    return found


def dotted(path: Path) -> str:
    """The name that it is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            module = f"{dotted(path.parent)}.{node.module}" if node.level else node.module
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found
