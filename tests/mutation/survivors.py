"""Mutation testing: ``make mutants`` changes ``components/`` in a thousand places, one at a time, with mutmut.

The specification must kill each mutant, or it must be listed below as equivalent, with the reason. mutmut changes no
constants outside of functions; the museum has exhibits for some.
"""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MUTMUT = Path(sys.executable).with_name("mutmut")
KILLED = 0.98  # of all mutants, equivalent ones included


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test kills.

    Args:
        file: The changed file.
        change: A part of the source, which occurs once, and its replacement in the mutant.
        reason: Why the mutant is equivalent.
    """

    file: str
    change: tuple[str, str]
    reason: str


ZERO_TIMES = "a key that is not finite has no weight, and zero times any number is zero"
SAME_LENGTH = "they have the same length anyway"
NAMES = "axes may have any names"
IN_PLACE = "it saves memory: the previous values are not read again"
FLOORED = "both poolings drop up to three extra rows of zeros at the end"

EQUIVALENT = (
    *(
        Survivor("components/attention.py", (f"{before}, strict=True", f"{before}, {instead}"), SAME_LENGTH)
        for before in ("full", "biases") for instead in ("strict=None", "strict=False", "")
    ),
    Survivor("components/attention.py", ("masked_fill(empty, 0)", "masked_fill(empty, 1)"),
             "softmax depends on differences only, and these rows are zeroed after it"),
    Survivor("components/attention.py", ("k.masked_fill(hidden, 0)", "k.masked_fill(hidden, 1)"), ZERO_TIMES),
    Survivor("components/attention.py", ("sum((1, 3)) + (v", "sum((1, 3)) - (v"), "only NaN is looked for"),
    Survivor("components/attention.py", ("k.masked_fill(here, 0)", "k.masked_fill(here, 1)"), ZERO_TIMES),
    Survivor("components/attention.py", ("v.masked_fill(here, 0)", "v.masked_fill(here, 1)"), ZERO_TIMES),
    Survivor("components/attention.py", ("b heads n d -> b n (heads d)", "B HEADS N D -> B N (HEADS D)"), NAMES),
    Survivor("components/block.py", ("context is None else", "(context is None) and False else"),
             "tokens that are their own context attend to themselves"),
    *(
        Survivor(f"components/{name}.py", ("given(context, x)", "given(context, None)"),
                 "only a traced graph comes here without a context")
        for name in ("attention", "block")
    ),
    *(
        Survivor(f"components/{name}.py", ('"dtype", "")', f'"dtype", {instead})'), "it does not end in bool either")
        for name in ("attention", "localization_net", "mlp", "patch_embeddings", "transforms")
        for instead in ("None", '"XXXX"')
    ),
    Survivor("components/localization_net.py", ("columns - columns // 2", "columns - columns // 3"), FLOORED),
    Survivor("components/localization_net.py", ("rows - rows // 2", "rows - rows // 3"), FLOORED),
    *(
        Survivor("components/localization_net.py", (f"{before}, inplace=True", f"{before}, {instead}"), IN_PLACE)
        for before in ("SMALLEST)), 2)", "self.conv2(x), 2)") for instead in ("inplace=None", "inplace=False", "")
    ),
    Survivor("components/patch_embeddings.py",
             ('cells, "b d h w -> b (h w) d"', 'cells, "B D H W -> B (H W) D"'), NAMES),
    Survivor("components/patch_embeddings.py", ("x.shape[0], -1, -1", "x.shape[0], +1, -1"),
             "there is one class token, which both -1 and 1 keep"),
    Survivor("components/spatial_transformer.py", ("samples > 1:", "samples >= 1:"),
             "the mean of one sample is itself"),
    Survivor("components/transforms.py", ("align_corners: bool = False", "align_corners: bool = True"),
             "of Transform itself, whose grid is never called"),
    Survivor("components/transforms.py", (").mT.flatten(0, 1)", ").mT.flatten(1, 1)"),
             "a product for each image in place of one for all"),
    Survivor("components/spatial_transformer.py", ('mode="bilinear",', ""), "torch's default, written out"),
    Survivor("components/spatial_transformer.py", ("warped + (0 * theta)", "warped - (0 * theta)"),
             "the addend is zero or NaN"),
)  # fmt: skip


def mutmut(*arguments: str) -> list[str]:
    """The output lines of a mutmut command."""
    return subprocess.run([MUTMUT, *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def removed_and_added(diff: list[str]) -> tuple[str, str]:
    """The removed and the added lines of a diff, without indentation."""
    old, new = ("\n".join(line[1:].strip() for line in diff if line[:1] == sign) for sign in "-+")
    return old, new


def known(diff: list[str], listed: Sequence[Survivor]) -> Survivor | None:
    """The entry of the list for a mutant, given the output of ``mutmut show``; None if there is none."""
    _, file, _, *diff = diff
    old, new = removed_and_added(diff)
    found = (one for one in listed if file == f"--- {one.file}" and old.replace(*one.change) == new)
    return next(found, None)


def complaints(
    outcomes: Mapping[str, str], diffs: Mapping[str, list[str]], listed: Sequence[Survivor] = EQUIVALENT
) -> list[str]:
    """Problems with the outcomes of all mutants, given the diffs of those that were not killed."""
    found = {name: known(diff, listed) for name, diff in diffs.items()}
    unexplained = [name for name, survivor in found.items() if survivor is None]
    share = Counter(outcomes.values())["killed"] / len(outcomes)
    return [
        *("\n".join([f"{outcomes[name]}, and not in the list: {name}", *diffs[name][1:]]) for name in unexplained),
        *(f"in the list, but killed: {one}" for one in listed if one not in found.values()),
        *([f"{share:.1%} of all mutants killed, {KILLED:.0%} wanted"] if share < KILLED else []),
    ]


def main() -> int:
    """Run mutmut from the start, print the outcomes, and return 1 if there are problems."""
    shutil.rmtree("mutants", ignore_errors=True)
    run = subprocess.run([MUTMUT, "run", "--max-children", "2"])
    if run.returncode:
        return run.returncode
    outcomes = dict(line.strip().rsplit(": ", 1) for line in mutmut("results", "--all", "true"))
    found = complaints(outcomes, {name: mutmut("show", name) for name, one in outcomes.items() if one != "killed"})
    counts = [f"{count} {outcome}" for outcome, count in Counter(outcomes.values()).most_common()]
    print(*found, f"{len(outcomes)} mutants: {', '.join(counts)}; {len(EQUIVALENT)} are listed as equivalent", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
