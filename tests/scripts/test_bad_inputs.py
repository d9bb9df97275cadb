"""Every bad input gives one line with the name, the value and what is wanted, exit code 2, and changes no file."""

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

import pytest

from scripts import annotate, convert, export, report, train_stn, train_vit
from scripts.models.vit import PRESETS
from scripts.run import page
from scripts.system.command_line import parse, run
from scripts.weights.families import to_family
from scripts.weights.files import write_arrays
from tests.contract.cases import CASES
from tests.scripts.bad_inputs import IN_USE, ROWS, Row
from tests.support.networks import TINY_PRESETS, network
from tests.support.servers import go_offline
from tests.support.sources import modules
from tests.support.trees import write_tree

MAINS = {
    "train_stn": lambda given: train_stn.main(parse(train_stn.Options, "train_stn", given)),
    "train_vit": lambda given: train_vit.main(parse(train_vit.Options, "train_vit", given)),
    "convert": lambda given: convert.main(parse(convert.Options, "convert", given)),
    "annotate": lambda given: annotate.main(parse(annotate.Options, "annotate", given)),
    "export": lambda given: export.main(parse(export.Options, "export", given)),
    "report": lambda given: report.main(parse(report.Options, "report", given)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, weights, a folder that is not empty, and finished and unfinished runs of small networks, offline."""
    root = tmp_path_factory.mktemp("folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        go_offline(patch)
        for preset, sizes in TINY_PRESETS.items():
            patch.setitem(PRESETS, preset, sizes)
        write_tree(root / "photos", per_class=4)
        write_arrays(root / "vit.npz", to_family(network().state_dict(), "google", 3))
        with patch.context() as undrawn:
            undrawn.setattr(page, "write_report", lambda folder: folder / "report.html")  # drawing takes a second
            for program, out in (("train_stn", "finished"), ("train_vit", "ended-vit")):
                MAINS[program](["--data", "photos", "--device", "cpu", "--steps", "1", "--out", out])
        shutil.copytree("finished", "ended")
        for name in ("ended", "ended-vit"):
            (root / name / "summary.json").unlink()
        (root / "taken").mkdir()
        (root / "taken" / "last.pt").write_text("precious")
        shutil.rmtree("data")
        yield root


def contents(root: Path) -> dict[str, object]:
    """Every path below a folder with its bytes, or its mode if it is no file; the cache of images may change."""
    names = {str(path.relative_to(root)): path for path in sorted(root.rglob("*"))}
    return {
        name: path.read_bytes() if S_ISREG(path.lstat().st_mode) else path.lstat().st_mode
        for name, path in names.items()
        if name != "data" and not name.startswith("data/cache")
    }


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_bad_input_gives_one_line_and_exit_code_2_and_touches_no_file(
    row: Row, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("CIFAR10_DIR", "")
    monkeypatch.delenv("CIFAR10_DIR")  # so that pytest undoes what the row sets
    row.spoil()
    before = contents(here)
    given = shlex.split(row.arguments)
    if row.program.startswith("train") and "--resume" not in given:
        given = ["--data", "photos", "--device", "cpu", *given]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(lambda: MAINS[row.program](given), row.program)
    IN_USE.clear()
    printed = capsys.readouterr()
    expected = re.escape(f"{row.program}: error: {row.message}\n").replace(r"\.\.\.", ".*")
    assert re.fullmatch(expected, printed.err), printed.err
    assert printed.out == ""
    assert stopped.value.code == 2
    assert contents(here) == before


def test_the_table_is_long_and_has_no_row_twice() -> None:
    assert len(ROWS) >= 60
    assert sum(len(case.refusals) for case in CASES) >= 30
    assert len({str(row) for row in ROWS}) == len(ROWS)


def texts(node: ast.AST) -> list[str]:
    """Every string literal in a piece of source; of f-strings, the parts between the values."""
    constants = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def refusals(path: Path) -> list[ast.Call]:
    """The calls that create an InputError."""
    calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "InputError"]


def test_every_error_message_of_the_scripts_is_in_a_test() -> None:
    """An error that no test provokes may be worded wrongly, or never happen."""
    sources = [ast.parse(path.read_text("utf-8")) for path in modules("tests")]
    known = "\n".join([*(row.message for row in ROWS), *(text for source in sources for text in texts(source))])
    longest = [max(texts(call), key=len, default="") for path in modules("scripts") for call in refusals(path)]
    assert len(longest) > 40
    assert [text for text in longest if text.strip(" ();") not in known.replace("\\", "")] == []
