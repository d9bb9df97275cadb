"""Make the notebooks: every cell of a script is executed, and kept with what it prints and draws.

    make notebooks
    python -m scripts.notebooks.make --only vision_transformer

A script, in the percent format of jupytext, becomes scripts/<its name>.ipynb. The cell that gets the kit on Colab is
put behind its title. It and the badge need the public address of the kit, two lines in pyproject.toml:

    [project.urls]
    Repository = "https://github.com/OWNER/NAME"

Without it there is no badge, and on Colab the first cell asks for the address.
"""

import base64
import io
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.system.command_line import option, parse, run
from scripts.system.terminal import say

ROOT = Path(__file__).parents[2]
NAMES = ("spatial_transformer", "vision_transformer")
ADDRESS = re.compile(r'^Repository = "(https://github\.com/[\w.-]+/[\w.-]+)"$', re.MULTILINE)
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}/{place})"
COLAB = "https://colab.research.google.com/github"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MINUTES = 30  # for one cell
COLOURS = 256  # of a figure: a third of the bytes
QUIET = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's, without ipywidgets; it names a path


@dataclass(frozen=True)
class Options:
    """Make the notebooks in scripts/ from the scripts in scripts/notebooks/."""

    only: str | None = option(None, "make this one alone (default: all)", choices=NAMES)


def main(options: Options) -> None:
    """Make them, and print a line for each.

    Raises:
        CellExecutionError: If a cell fails; the old notebook stays.
    """
    from scripts.system.files import write_bytes  # loads torch, and flags are read before that

    for name in [options.only] if options.only else NAMES:
        start = time.monotonic()
        target = path_of(name)
        content = executed(cells(name, address())).encode()
        write_bytes(target, content)
        say(f"{target}: {target.stat().st_size / 1e3:.0f} kB, {time.monotonic() - start:.0f} s")
    if not address():
        say("without a badge: pyproject.toml names no address on GitHub; scripts/notebooks/make.py says how")


def path_of(name: str) -> Path:
    """Return the path of a notebook."""
    return ROOT / "scripts" / f"{name}.ipynb"


def address() -> str:
    """Return the public address of the kit on GitHub, empty if pyproject.toml has none."""
    found = ADDRESS.search((ROOT / "pyproject.toml").read_text("utf-8"))
    return found[1] if found else ""


def cells(name: str, repository: str) -> list[Any]:
    """Return the cells of a notebook before they are executed.

    Args:
        name: Of its script.
        repository: The address of the kit on GitHub; empty leaves out the badge.
    """
    import nbformat.v4

    opening, (title, *rest) = (_script(each) for each in ("opening", name))
    for cell in opening:
        cell.source = cell.source.replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"')
    found = [title, *opening, *rest]
    if repository:
        place = f"{'/'.join(repository.split('/')[-2:])}/blob/main/scripts/{name}.ipynb"
        found.insert(0, nbformat.v4.new_markdown_cell(BADGE.format(colab=COLAB, place=place)))
    for number, cell in enumerate(found, 1):
        cell.id = f"cell-{number}"  # else it is random
        cell.metadata.pop("lines_to_next_cell", None)  # what jupytext keeps for itself
    return found


def _script(name: str) -> list[Any]:
    """The cells of a script without its docstring."""
    import jupytext

    text = (Path(__file__).parent / f"{name}.py").read_text("utf-8")
    found: list[Any] = jupytext.reads(text, fmt="py:percent").cells
    return found[1:]


def executed(found: list[Any]) -> str:
    """Execute cells in a new kernel at the root of the checkout, and return the notebook as text.

    Raises:
        CellExecutionError: If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=found, metadata=METADATA)
    client = NotebookClient(
        notebook, timeout=60 * MINUTES, kernel_name="python3", coalesce_streams=True, record_timing=False,
        resources={"metadata": {"path": str(ROOT)}},
        extra_arguments=["--log-level=ERROR"],  # it warns that it listens on this machine without encryption
    )  # fmt: skip
    client.execute(env=os.environ | QUIET)
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel has added its version
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                output.data["image/png"] = base64.b64encode(smaller(base64.b64decode(png))).decode()
    text: str = nbformat.writes(notebook)
    return text + "\n"


def smaller(png: bytes) -> bytes:
    """Return a PNG with few colours."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    run(lambda: main(parse(Options, "make")), "make")
