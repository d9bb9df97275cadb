"""The flags of all commands here. This file imports no torch, so that flags are checked before it is loaded."""

from dataclasses import dataclass

from scripts.system.command_line import argument, option, path, positive, whole


@dataclass(frozen=True)
class Options:
    """What all measurements with a result file share."""

    device: str = option("auto", "device to run on, auto or a name such as cuda:1")
    out: str | None = option(
        None, "result file, .json, page or picture beside it (default: one in results/; none for a part, or small)",
        type=path,
    )  # fmt: skip
    smoke: bool = option(False, "everything small and for a few rounds, to see that it works", type=bool)


@dataclass(frozen=True)
class PeerOptions(Options):
    """Time the kit and other libraries on the same work, and write a table of ratios."""

    only: str = option("", 'only cells whose names contain all of these words, such as "b/16 training eager"')
    minutes: float = option(10.0, "time for all cells together; compiling comes on top", type=positive)
    batch: int | None = option(None, "batch size for every cell (default: each cell's own)", type=whole(1))


@dataclass(frozen=True)
class ScalingOptions(Options):
    """Measure how time grows with batch, tokens, depth and image size."""

    minutes: float = option(3.0, "time for all curves together", type=positive)


@dataclass(frozen=True)
class BreakdownOptions(Options):
    """Measure where the time of ViT-B/16 goes."""

    minutes: float = option(2.0, "time for all measurements together", type=positive)


@dataclass(frozen=True)
class CompareOptions:
    """Time this tree and another one, alternating in every round, and fail if this one is slower."""

    base: str = argument("a result file of `make bench` from this machine, or a commit")
    only: str = option("", "only cells whose names contain this; all by default")
    seconds: float = option(2.0, "time per cell, after it has been built", type=positive)


@dataclass(frozen=True)
class DescribeOptions:
    """Describe this machine and measure its peaks."""

    device: str = option("auto", "device to describe, auto or a name such as cuda:1")
    out: str | None = option(None, "file to write as well as printing, .json (default: none)", type=path)


@dataclass(frozen=True)
class GpuCheckOptions:
    """Find out in ten minutes how the kit runs on a GPU."""

    out: str = option("runs/gpu-check", "folder for all results, new or empty", type=path)
    minutes: float = option(10.0, "for all steps together", type=positive)
    data: str = option(
        "digits", "what the runs train on: digits, or a folder {train,test}/<class>/*.{png,jpg}", type=path
    )
    wheels: str | None = option(None, "folder with wheels of the packages that are missing (default: none)", type=path)
    rehearse: bool = option(False, "run every step small on the CPU, to see that it works", type=bool)
