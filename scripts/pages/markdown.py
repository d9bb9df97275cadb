"""Markdown tables, and the generated parts of a page."""

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, with a line break at its end."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def rewritten(page: str, name: str, content: str) -> str:
    """Return the page with new content between the markers of that name: ``<!-- NAME, made by ... -->``.

    Raises:
        ValueError: If the page does not have these markers exactly once.
    """
    pattern = rf"(<!-- {re.escape(name)}, made by `make \w+` -->\n).*?(<!-- end of {re.escape(name)} -->)"
    found = re.findall(pattern, page, re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"the page must hold <!-- {name}, made by ... --> and its end once, not {len(found)} times")
    begin, end = found[0]
    return re.sub(pattern, lambda _: begin + content + end, page, flags=re.DOTALL)
