"""The page of the museum: every exhibit, where people met it, and the law that rejects it."""

import inspect
import re
from pathlib import Path

from scripts.pages.markdown import rewritten, table
from tests.museum.exhibits import Exhibit
from tests.museum.rooms import EXHIBITS

README = Path(__file__).parent / "README.md"
ISSUE = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")  # on GitHub, in the docstring or in a comment below it


def sentence(exhibit: Exhibit) -> str:
    """What is wrong, without the issues."""
    said = " ".join((exhibit.mistake.__doc__ or "").partition("\n\n")[0].split())
    return re.sub(rf" \({ISSUE.pattern}.*?\)", "", said).replace("|", "\\|")


def issues(exhibit: Exhibit) -> list[str]:
    """Links to the issues where people met it, each once."""
    found = dict.fromkeys(ISSUE.findall(inspect.getsource(exhibit.mistake)))
    return [f"[{place}#{number}](https://github.com/{place}/issues/{number})" for place, number in found]


def markdown() -> str:
    """The exhibits, by component."""
    rows = (
        [f"`{exhibit.room}`", sentence(exhibit), ", ".join(issues(exhibit)), f"`{exhibit.law.__name__}`"]
        for exhibit in sorted(EXHIBITS, key=lambda exhibit: exhibit.room)
    )
    return table(["component", "mistake", "met in", "rejected by"], rows)


def with_table(page: str) -> str:
    """The page with a new table between the marks."""
    return rewritten(page, "the exhibits", markdown())


def main() -> None:
    """Write the page."""
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
