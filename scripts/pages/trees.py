"""The list of files in a README, each with the first line of its docstring."""

import ast
from collections.abc import Iterator
from pathlib import Path


def tree(folder: Path) -> str:
    """Return a line for every Python file of a folder and its subfolders: a link, and the first line of the file."""
    return "".join(f"{line}\n" for line in _lines(folder, folder, 0))


def _lines(folder: Path, root: Path, depth: int) -> Iterator[str]:
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _line(path, path, root, depth)
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            yield _line(inner, inner / "__init__.py", root, depth)
            yield from _lines(inner, root, depth + 1)


def _line(path: Path, source: Path, root: Path, depth: int) -> str:
    docstring = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
    place = path.relative_to(root).as_posix() + ("/" if path.is_dir() else "")
    name = f"**[{path.name}/]({place})**" if path.is_dir() else f"[{path.name}]({place})"
    return f"{'  ' * depth}- {name}: {docstring.partition(chr(10))[0]}"
