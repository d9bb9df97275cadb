"""The results of the comparison with peers, as a page and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.measure.records import heading, page
from benchmarks.measure.timing import Interval
from benchmarks.peers.tasks import KIT
from scripts.pages.markdown import table

Record = Mapping[str, Any]
OWN = "ViT-B/16, the kit's default mode over the best mode of any peer"
HEADS = ("work", "mode", "a second", "best peer", "a second", "kit / best peer", "memory")
MEANINGS = """\
Speed of the kit over that of the fastest peer in the same mode: the median over rounds in which all alternate, and its
95 % interval; above 1 the kit is faster. Memory is that of the most frugal peer over the kit's; above 1 the kit takes
less. On a GPU it is the peak of a call, on a CPU what the forward pass keeps for the backward pass.\
"""
OWN_HEADS = ("work", "kit", "best peer", "kit / it")
OWN_MEANINGS = """\
The kit in its default mode, over the fastest mode of any peer. All get what only the kit sets up by default: freed
memory is kept, and weights are constants in compiled inference.\
"""
TICKS = (0.1, 0.25, 0.5, 0.8, 1, 1.25, 2, 4, 10)  # of the picture
OUTCOMES = {"won": "#2a7f3f", "even": "#777777", "lost": "#c0392b"}


def outcome(interval: Sequence[float]) -> str:
    """``won`` if the interval lies above 1, ``lost`` if below, else ``even``."""
    _, low, high = interval
    return "won" if low > 1 else "lost" if high < 1 else "even"


def speed(record: Record, library: str) -> float:
    """Samples per second, in the median round."""
    return record["batch"] / record["seconds"][library][1]


def memory(record: Record) -> float | None:
    """Bytes of the most frugal peer over those of the kit; None if not measured."""
    used = record["bytes"]
    return min(used[library] for library in used if library != KIT) / used[KIT] if used[KIT] else None


def means(records: Sequence[Record]) -> dict[str, float]:
    """Geometric means of the comparison; those without any cell are left out."""
    vit_b16 = [record for record in records if record["row"].startswith("ViT-B/16")]
    found = {
        "ViT-B/16, same mode": [record["ratio"][0] for record in vit_b16],
        OWN: [each["ratio_anywhere"][0] for each in vit_b16 if "ratio_anywhere" in each],
        "all, same mode": [record["ratio"][0] for record in records],
        "all, memory": [share for record in records if (share := memory(record))],
    }
    return {name: geometric_mean(values) for name, values in found.items() if values}


def with_outcome(interval: Sequence[float]) -> str:
    """Median, interval, and outcome if it is not even."""
    verdict = outcome(interval)
    return str(Interval(*interval)) + ("" if verdict == "even" else f" {verdict}")


def cells_of(record: Record) -> list[str]:
    """The cells of one row of the table."""
    share = memory(record)
    return [
        f"{record['row']}, {record['kind']}",
        record["mode"],
        f"{speed(record, KIT):.4g}",
        record["best_peer"],
        f"{speed(record, record['best_peer']):.4g}",
        with_outcome(record["ratio"]),
        "" if share is None else f"{share:.3f}",
    ]


def markdown(content: Record) -> str:
    """The page: the machine, the means, and all cells, won or lost."""
    records = content["cells"]
    verdicts = [outcome(record["ratio"]) for record in records]
    own_rows = [
        (f"{each['row']}, {each['kind']}", each["mode"], each["best_anywhere"], with_outcome(each["ratio_anywhere"]))
        for each in records
        if "ratio_anywhere" in each
    ]
    title, measured_on = heading("The kit beside other libraries", content["machine"])
    parts = [
        title,
        *(["**A trial with small sizes: the figures mean nothing.**"] if content["small"] else []),
        measured_on,
        MEANINGS,
        table(("geometric mean", "kit / peers"), [(name, f"{mean:.3f}") for name, mean in means(records).items()]),
        f"{len(records)} cells: " + ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in OUTCOMES) + ".",
        table(HEADS, map(cells_of, records)),
        *([OWN_MEANINGS, table(OWN_HEADS, own_rows)] if own_rows else []),
    ]
    return page(parts)


def draw(content: Record, path: Path) -> None:
    """Draw a dot with its interval for each cell, and a line at 1, where both are equally fast."""
    records, machine = content["cells"], content["machine"]
    figure = Figure(figsize=(10, 1.5 + 0.22 * len(records)), dpi=100, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(1, color="black", linewidth=1)
    works = list(dict.fromkeys(record["row"] for record in records))
    for place, record in enumerate(records):
        if works.index(record["row"]) % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", zorder=0)
        ratio, low, high = record["ratio"]
        colour = OUTCOMES[outcome(record["ratio"])]
        axes.plot([low, high], [place, place], color=colour, linewidth=1.5)
        axes.plot(ratio, place, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(records)), [f"{each['row']}, {each['kind']}, {each['mode']}" for each in records])
    axes.set_ylim(len(records) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    reached = [bound for record in records for bound in record["ratio"]]
    axes.set_xlim(0.97 * min(0.8, *reached), 1.03 * max(1.25, *reached))
    axes.tick_params(top=True, labeltop=True)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("speed of the kit over that of the fastest peer in the same mode")
    figure.suptitle(f"{machine['identity']}, {machine['started'][:10]}")
    figure.savefig(path)
