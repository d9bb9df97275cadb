"""The flags of all commands here. This file imports no torch, so that flags are checked before it is loaded."""

from dataclasses import dataclass

from scripts.system.command_line import argument, option, positive, whole


@dataclass(frozen=True)
class PeerOptions:
    """Time the kit and other libraries on the same work, and write a table of ratios."""

    only: str = option("", 'only cells whose names contain all of these words, such as "b/16 training eager"')
    minutes: float = option(10.0, "time for all cells together; compiling comes on top", type=positive)
    batch: int | None = option(None, "batch size for every cell (default: each cell's own)", type=whole(1))
    device: str = option("auto", "device to run on, auto or a name such as cuda:1")
    out: str | None = option(
        None, "result file, .json, page and picture beside it (default: one in results/ if all cells are timed)"
    )
    smoke: bool = option(False, "every cell small and for two rounds, to see that it works", type=bool)


@dataclass(frozen=True)
class ScalingOptions:
    """Measure how time grows with batch, tokens, depth and image size."""

    minutes: float = option(3.0, "time for all curves together", type=positive)
    device: str = option("auto", "device to run on, auto or a name such as cuda:1")
    out: str | None = option(
        None, "result file, .json, picture beside it (default: one in results/; none with --smoke)"
    )
    smoke: bool = option(False, "three sizes per curve, to see that it works", type=bool)


@dataclass(frozen=True)
class BreakdownOptions:
    """Measure where the time of ViT-B/16 goes."""

    minutes: float = option(2.0, "time for all measurements together", type=positive)
    device: str = option("auto", "device to run on, auto or a name such as cuda:1")
    out: str | None = option(None, "result file, .json, page beside it (default: one in results/; none with --smoke)")
    smoke: bool = option(False, "a small network and a few rounds, to see that it works", type=bool)


@dataclass(frozen=True)
class CompareOptions:
    """Time this tree and another one, alternating in every round, and fail if this one is slower."""

    base: str = argument("a result file of `make bench` from this machine, or a commit")
    only: str = option("", "only cells whose names contain this; all by default")
    seconds: float = option(2.0, "time per cell, after it has been built", type=positive)


@dataclass(frozen=True)
class GpuCheckOptions:
    """Find out in ten minutes how the kit runs on a GPU."""

    out: str = option("runs/gpu-check", "folder for all results, new or empty")
    minutes: float = option(10.0, "for all steps together", type=positive)
    data: str = option("digits", "what the runs train on: digits, or a folder {train,test}/<class>/*.{png,jpg}")
    rehearse: bool = option(False, "run every step small on the CPU, to see that it works", type=bool)
