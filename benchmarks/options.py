"""The flags of what people type here. They need no torch, so that they are answered before it is imported."""

from dataclasses import dataclass

from scripts.system.command_line import argument, option, positive, whole


@dataclass(frozen=True)
class PeerOptions:
    """Time the kit beside other libraries at the same work, and write the table of ratios."""

    only: str = option("", 'the cells with all of these words in their names, such as "b/16 training eager"')
    minutes: float = option(
        10.0, "how long to time all cells together; compiling, and models as they come, are on top", type=positive
    )
    batch: int | None = option(None, "samples at once, where it is not to be that of the cell", type=whole(1))
    device: str = option("auto", "where to compute, auto or a name such as cuda:1")
    out: str | None = option(None, "the file to write, .json, page and picture beside it; of all cells, in results/")
    smoke: bool = option(False, "every cell small and twice, to see that it works", type=bool)


@dataclass(frozen=True)
class ScalingOptions:
    """Measure how the cost grows with batch, tokens, depth and image size."""

    minutes: float = option(3.0, "how long to time all curves together", type=positive)
    device: str = option("auto", "where to compute, auto or a name such as cuda:1")
    out: str | None = option(None, "the file to write, .json, the picture beside it; unless --smoke, in results/")
    smoke: bool = option(False, "three sizes a curve, to see that it works", type=bool)


@dataclass(frozen=True)
class BreakdownOptions:
    """Measure where the time of ViT-B/16 goes."""

    minutes: float = option(2.0, "how long to time all together", type=positive)
    device: str = option("auto", "where to compute, auto or a name such as cuda:1")
    out: str | None = option(None, "the file to write, .json, the page beside it; unless --smoke, in results/")
    smoke: bool = option(False, "a small network and few rounds, to see that it works", type=bool)


@dataclass(frozen=True)
class CompareOptions:
    """Measure this tree and another one in turn, and fail if this one is slower."""

    base: str = argument("a JSON file of `make bench` on this machine, or a commit")
    only: str = option("", "part of the names of the cells to compare; all by default")
    seconds: float = option(2.0, "to spend on a cell, beside building it", type=positive)
