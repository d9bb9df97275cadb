"""The tree of a folder in its README: its files and the folders below, each with the first line of its docstring."""

import ast
from collections.abc import Iterator
from pathlib import Path


def tree(folder: Path) -> str:
    """Return a line for every Python file of a folder, and one for every folder below it."""
    files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    lines = [f"- [{path.name}]({path.name}): {_docstring(path)}" for path in files]
    return "".join(f"{line}\n" for line in (*lines, *_folders(folder, folder, "")))


def _folders(folder: Path, root: Path, indent: str) -> Iterator[str]:
    for source in sorted(folder.glob("*/__init__.py")):
        inner = source.parent
        yield f"{indent}- **[{inner.name}/]({inner.relative_to(root).as_posix()}/)**: {_docstring(source)}"
        yield from _folders(inner, root, indent + "  ")


def _docstring(path: Path) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]
