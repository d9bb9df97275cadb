"""The notebooks are made from their scripts alone, every cell runs, and what is kept is small and tells no secrets."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from scripts.notebooks import make
from tests.support.sources import ROOT

TINY = {  # notebook -> settings with which it takes a second or two
    "spatial_transformer": {"DATA": "digits", "TRAIN_IMAGES": 60, "TEST_IMAGES": 40, "STEPS": 2, "STEPS_TOLD": 2},
    "vision_transformer": {"SIDE": 48, "DEPTH": 2, "TRAINED": "nowhere"},
}
MOST_BYTES = 1_000_000  # of both
MACHINE = r"(?:^|[\s\"'(=])/(?:\w+/)+|[A-Z]:\\\\|localhost|127\.0\.0\.1"
each_notebook = pytest.mark.parametrize("name", make.NAMES)


@pytest.fixture(scope="module")
def notebooks() -> dict[str, Any]:
    return {name: nbformat.read(make.path_of(name), as_version=nbformat.NO_CONVERT) for name in make.NAMES}


def script(name: str) -> str:
    return (ROOT / "scripts" / "notebooks" / f"{name}.py").read_text("utf-8")


def code(cells: list[Any]) -> list[Any]:
    return [cell for cell in cells if cell.cell_type == "code"]


def figures(cell: Any) -> list[Any]:
    return [output for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())]


@each_notebook
def test_a_notebook_has_the_cells_of_its_script(name: str, notebooks: dict[str, Any]) -> None:
    expected, found = (
        [(cell.cell_type, cell.id, cell.source, cell.metadata) for cell in cells]
        for cells in (make.cells(name, make.address()), notebooks[name].cells)
    )
    assert found == expected, "run `make notebooks`"


@each_notebook
def test_a_notebook_was_executed_from_the_first_cell_to_the_last(name: str, notebooks: dict[str, Any]) -> None:
    nbformat.validate(notebooks[name])
    cells = code(notebooks[name].cells)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {(output.output_type, output.get("name")) for cell in cells for output in cell.outputs}
    assert kinds == {("stream", "stdout"), ("display_data", None)}, "neither errors nor warnings"
    assert sum(len(figures(cell)) for cell in cells) == script(name).count("\ndisplay(")


@each_notebook
def test_every_figure_is_followed_by_words(name: str, notebooks: dict[str, Any]) -> None:
    cells = notebooks[name].cells
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if figures(cell):
            assert after is not None
            assert after.cell_type == "markdown"
            assert not after.source.startswith("#")


def test_the_notebooks_are_small_and_name_nothing_of_the_machine_that_made_them(notebooks: dict[str, Any]) -> None:
    assert sum(make.path_of(name).stat().st_size for name in make.NAMES) < MOST_BYTES
    for notebook in notebooks.values():
        assert notebook.metadata == make.METADATA
        for cell in notebook.cells:
            assert cell.metadata.keys() <= {"tags"}
            for output in cell.get("outputs", ()):
                printed = output.get("text", "") + output.get("data", {}).get("text/plain", "")
                assert not re.search(MACHINE, printed, re.MULTILINE), printed
    assert re.search(MACHINE, "kept in /tmp/run/report.html")


@each_notebook
def test_every_cell_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, where torch is loaded, with other settings than in the notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scripts.run.page.write_report", lambda folder: folder / "report.html")
    namespace: dict[str, Any] = {"Path": Path}
    for cell in code(make.cells(name, "")):
        if "REPOSITORY" not in cell.source:  # which would go to the checkout
            exec(compile(cell.source, cell.id, "exec"), namespace)
        if "parameters" in cell.metadata.get("tags", ()):
            assert TINY[name].keys() <= namespace.keys()
            namespace |= TINY[name]
    assert capsys.readouterr().out.count("<IPython.core.display.Image object>") == script(name).count("\ndisplay(")


def opened(repository: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run the first code of a notebook, and return the commands that it gives."""
    commands: list[list[str]] = []

    def noted(command: list[str], *, check: bool) -> None:
        commands.append(command)
        if command[0] == "git":
            (Path(command[-1]) / "components").mkdir(parents=True)

    monkeypatch.setattr(subprocess, "run", noted)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (first, *_) = code(make.cells("vision_transformer", repository))
    exec(compile(first.source, "opening", "exec"), {})
    return commands


def test_in_a_checkout_the_first_cell_only_goes_to_its_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "scripts")
    assert opened("", monkeypatch) == []
    assert Path.cwd() == ROOT
    assert opened("", monkeypatch) == []


def test_elsewhere_the_first_cell_clones_and_installs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="Set REPOSITORY above"):
        opened("", monkeypatch)
    clone, install = opened("https://github.com/someone/kit", monkeypatch)
    assert clone == ["git", "clone", "--depth=1", "https://github.com/someone/kit", str(tmp_path / "kit")]
    assert install[1:4] == ["-m", "pip", "install"]
    assert f"{tmp_path / 'kit'}[runs]" in install
    assert Path.cwd() == tmp_path / "kit"
    assert opened("https://github.com/someone/kit", monkeypatch) == [], "executed once more"


def test_the_badge_and_the_address_come_from_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "kit"\n')
    assert make.address() == ""
    assert "colab" not in make.cells("vision_transformer", "")[0].source
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/someone/kit"\n')
    badge, title, first, *_ = make.cells("vision_transformer", make.address())
    page = "https://colab.research.google.com/github/someone/kit/blob/main/scripts/vision_transformer.ipynb"
    assert badge.source.endswith(f"]({page})")
    assert title.source.startswith("# ")
    assert 'REPOSITORY = "https://github.com/someone/kit"' in first.source


def picture() -> str:
    """Code that displays a figure of many colours."""
    return (
        "import io\nfrom IPython.display import Image, display\nfrom PIL import Image as Pillow\nfile = io.BytesIO()\n"
        "Pillow.effect_noise((64, 64), 99).convert('RGB').rotate(9).save(file, 'PNG')\ndisplay(Image(file.getvalue()))"
    )


def test_cells_are_executed_in_a_kernel_and_what_they_print_and_draw_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "ROOT", tmp_path)
    sources = ["a = 2\nprint('one')", "import os\nprint(a + 1, os.listdir())", picture()]
    notebook = nbformat.reads(make.executed([nbformat.v4.new_code_cell(source) for source in sources]), 4)
    nbformat.validate(notebook)
    assert notebook.metadata == make.METADATA
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert [cell.outputs[0].get("text") for cell in notebook.cells[:2]] == ["one\n", "3 []\n"]
    assert all(cell.metadata == {} for cell in notebook.cells), "no times"
    data = notebook.cells[2].outputs[0].data["image/png"]
    assert Image.open(io.BytesIO(base64.b64decode(data))).mode == "P"
