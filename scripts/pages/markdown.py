"""Tables of Markdown, and the parts of a page that a command writes."""

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, with a line break at its end."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def rewritten(page: str, name: str, content: str) -> str:
    """The page with what stands between the marks of that name made anew: ``<!-- NAME, made by ... -->``.

    Raises:
        ValueError: If the page does not have these marks once.
    """
    pattern = rf"(<!-- {re.escape(name)}, made by `make \w+` -->\n).*?(<!-- end of {re.escape(name)} -->)"
    found = re.findall(pattern, page, re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"the page must hold <!-- {name}, made by ... --> and its end once, not {len(found)} times")
    begin, end = found[0]
    return re.sub(pattern, lambda _: begin + content + end, page, flags=re.DOTALL)
