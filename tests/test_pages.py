"""The pages are true: examples run, links and make targets exist, tables come from the result files."""

import doctest
import re
from pathlib import Path

import pytest

import components
from scripts.pages import tables
from scripts.pages.markdown import rewritten
from scripts.pages.recipes import recipe_table
from scripts.pages.trees import tree
from tests.support.sources import ROOT, modules

MADE = re.compile(r"\.venv.*|\.pytest_cache|mutants|runs|data")  # folders that commands make
PAGES = sorted(path for path in ROOT.glob("**/*.md") if not MADE.fullmatch(path.relative_to(ROOT).parts[0]))
BEGIN = "<!-- a, made by `make tables` -->"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def test_generated_lists_and_tables_are_up_to_date() -> None:
    assert tables.pages() == {page: page.read_text("utf-8") for page in tables.pages()}, "run `make tables`"


def test_a_tree_has_every_file_and_every_folder_below(tmp_path: Path) -> None:
    (tmp_path / "room" / "corner").mkdir(parents=True)
    (tmp_path / "entry.py").write_text('"""What people type.\n\nMore of it."""')
    (tmp_path / "room" / "__init__.py").write_text('"""What is in it."""')
    (tmp_path / "room" / "part.py").write_text('"""One part."""')
    (tmp_path / "room" / "corner" / "__init__.py").write_text('"""A part of it."""')
    assert tree(tmp_path).splitlines() == [
        "- [entry.py](entry.py): What people type.",
        "- **[room/](room/)**: What is in it.",
        "  - **[corner/](room/corner/)**: A part of it.",
    ]


def test_a_recipe_is_described_in_words() -> None:
    table = recipe_table("train-stn")
    assert "| schedule | constant | linear warm-up over 20% of the steps, then linear to zero |" in table
    assert "| training images | unchanged | mirrored, shifted by up to 2 pixels |" in table
    assert "| batch size | 256 | 128 |" in table
    assert "| stem 8, stages 16-32-40, a localization of stem 4 and stages 7-12-12 |" in table
    assert "| label smoothing |  |  | 0.1 | 0.1 | 0.1 |\n" in table
    table = recipe_table("train-vit")
    assert "| 512, 64 at once | 512, 64 at once |\n" in table
    assert "| random crops of at least 5% of the area |" in table.replace("mirrored, ", "")
    assert (
        "| length | 16 epochs | 20 epochs | 10 epochs | 12 epochs | 12 epochs | 10,000 steps | 500 steps |\n" in table
    )


@pytest.mark.parametrize("page", ["", f"{BEGIN}\n", 2 * f"{BEGIN}\n<!-- end of a -->"])
def test_a_page_without_the_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="<!-- a, made by"):
        rewritten(page, "a", "new")


@pytest.mark.parametrize("entry", tables.TABLES)
def test_each_run_has_its_row(entry: str) -> None:
    runs = [tables.Run.read(path.parent) for path in tables.RESULTS.glob("*/summary.json")]
    assert tables.results_table(entry).count("\n") == 2 + len({run.group for run in runs if run.entry == entry})


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "DEFECTS.md"], ids=name)
def test_every_python_example_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``test_foreign.py`` runs those of DEFECTS.md, which depend on the versions of other libraries."""
    monkeypatch.chdir(tmp_path)
    for block in examples(page):
        if ">>>" not in block:
            exec(compile(block, str(page), "exec"), {})


@each_page
def test_every_session_prints_what_the_page_shows(page: Path) -> None:
    for number, block in enumerate(examples(page)):
        session = doctest.DocTestParser().get_doctest(block, {}, f"example {number}", str(page), 0)
        output: list[str] = []
        assert doctest.DocTestRunner().run(session, out=output.append).failed == 0, "".join(output)


@each_page
def test_every_link_inside_the_repository_has_a_target(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_the_table_of_the_first_page_has_every_component() -> None:
    listed = re.findall(r"^\| \[`(\w+)`\]\(components/", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(components.__all__)


def test_every_file_and_name_that_contributors_are_sent_to_exists() -> None:
    page = re.sub("```.*?```", "", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.DOTALL)
    files = {word for each in re.findall(r"`([^`]+)`", page) for word in each.split() if re.search(r"\w/|\.py", word)}
    named = {path for path in files if not re.search("NAME|[{*]|^runs", path)}
    places = [ROOT, *(path.parent for path in modules("tests")), ROOT / "scripts" / "data"]
    assert [path for path in named if not any((place / path).exists() for place in places)] == []
    source = "\n".join(
        path.read_text("utf-8") for floor in ("scripts", "benchmarks", "tests") for path in modules(floor)
    )
    assert [name for name in re.findall(r"`([A-Z_]{4,})`", page) if f"{name}" not in source] == []


@each_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE)
    assert set(named) <= targets


@each_page
def test_no_line_is_too_long_to_read(page: Path) -> None:
    text = re.sub(r"<!-- the files, made by.*?<!-- end of the files -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > 125 and not line.startswith("|") and "http" not in line]
    assert long == []
