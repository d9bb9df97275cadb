"""The pages say what the code does: examples run, links lead somewhere, tables come from the result files."""

import doctest
import re
from pathlib import Path

import pytest

from scripts import tables

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in ROOT.glob("**/*.md") if not {".venv", ".pytest_cache", "mutants"} & {*path.parts})
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_the_result_tables_are_those_of_the_result_files() -> None:
    page = tables.README.read_text("utf-8")
    assert page == tables.with_tables(page), "run `make tables`"


@pytest.mark.parametrize("entry", tables.TABLES)
def test_each_run_has_its_row(entry: str) -> None:
    runs = [tables.Run.read(path.parent) for path in tables.RESULTS.glob("*/summary.json")]
    assert tables.table(entry).count("\n") == 2 + len({run.group for run in runs if run.entry == entry})


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


@each_page
def test_every_python_example_runs(page: Path) -> None:
    for block in examples(page):
        if ">>>" not in block:
            exec(compile(block, str(page), "exec"), {})


@each_page
def test_every_session_prints_what_the_page_shows(page: Path) -> None:
    for number, block in enumerate(examples(page)):
        session = doctest.DocTestParser().get_doctest(block, {}, f"example {number}", str(page), 0)
        said: list[str] = []
        assert doctest.DocTestRunner().run(session, out=said.append).failed == 0, "".join(said)


@each_page
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


@each_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE)
    assert set(named) <= targets


@each_page
def test_no_line_is_too_long_to_read(page: Path) -> None:
    text = page.read_text("utf-8")
    long = [line for line in text.splitlines() if len(line) > 125 and not line.startswith("|") and "http" not in line]
    assert long == []
