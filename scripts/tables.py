"""Write the result tables of README.md from the run folders in scripts/results/.

python -m scripts.tables
"""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.files import write_whole
from scripts.run_folder import read_metrics

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"


@dataclass(frozen=True)
class Run:
    """What a run folder says."""

    summary: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, float]]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a folder in scripts/results/."""
        names = ("summary.json", "config.json", "environment.json")
        summary, config, environment = (json.loads((folder / name).read_text("utf-8")) for name in names)
        return cls(summary, config, environment, read_metrics(folder))

    @property
    def entry(self) -> str:
        """The command that it is a run of: only train-stn has a theta."""
        return "train-stn" if "theta_scale_mean" in self.rows[0] else "train-vit"

    @property
    def group(self) -> tuple[str, str, int]:
        """What runs of one row have in common: all but the seed."""
        return self.summary["recipe"], self.environment["data"], self.summary["epochs"]


Column = Callable[[Sequence[Run]], str]  # from the runs of one row, a run a seed, to the cell


def _scales(runs: Sequence[Run]) -> str:
    scales = [row["theta_scale_mean"] for run in runs for row in run.rows]
    return f"{min(scales):.2f} to {max(scales):.2f}"


def _largest_drop(runs: Sequence[Run]) -> str:
    falls = [
        before["test_accuracy"] - after["test_accuracy"]
        for run in runs
        for before, after in zip(run.rows, run.rows[1:], strict=False)
        if before["epoch"] >= 25
    ]
    return f"{max(falls, default=0.0):.1f} points"


def _spread(key: str) -> Column:
    """One value, or mean and standard deviation with all of them."""

    def cell(runs: Sequence[Run]) -> str:
        values = [run.summary[key] for run in runs]
        if len(values) == 1:
            return f"{values[0]:.2f} %"
        each = ", ".join(f"{value:.2f}" for value in values)
        return f"**{statistics.mean(values):.2f}** ± {statistics.stdev(values):.2f} % ({each})"

    return cell


COMMON: dict[str, Column] = {
    "recipe": lambda runs: f"`{runs[0].summary['recipe']}`",
    "data": lambda runs: str(runs[0].environment["data"]),
    "epochs": lambda runs: str(runs[0].summary["epochs"]),
    "seeds": lambda runs: " ".join(str(run.summary["seed"]) for run in runs),
    "test accuracy, last epoch": _spread("test_accuracy"),
    "best epoch": _spread("best_test_accuracy"),
    "training accuracy": _spread("train_accuracy"),
}
TABLES: dict[str, dict[str, Column]] = {
    "train-stn": {**COMMON, "mean scale of theta": _scales, "largest drop after epoch 25": _largest_drop},
    "train-vit": {
        **COMMON,
        "parameters": lambda runs: f"{runs[0].summary['parameters']:,}",
        "patches": lambda runs: str(runs[0].config["resolved"]["patches"]),
    },
}


def table(entry: str, folder: Path = RESULTS) -> str:
    """The table of an entry in Markdown: a row a recipe, data source and length, over all its seeds."""
    runs: dict[tuple[str, str, int], list[Run]] = {}
    for path in sorted(folder.glob("*/summary.json")):
        run = Run.read(path.parent)
        if run.entry == entry:
            runs.setdefault(run.group, []).append(run)
    columns = TABLES[entry]
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[column(group) for column in columns.values()] for group in runs.values()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_tables(text: str, folder: Path = RESULTS) -> str:
    """The page with what stands between the marks of each entry made anew."""
    for entry in TABLES:
        begin, end = f"<!-- results of {entry}, made by `make tables` -->\n", f"<!-- end of {entry} -->"
        found = re.findall(f"{begin}.*?{end}", text, re.DOTALL)
        if len(found) != 1:
            raise ValueError(f"{README.name} must hold {begin.strip()} and {end} once, not {len(found)} times")
        text = text.replace(found[0], begin + table(entry, folder) + end)
    return text


def main() -> None:
    """Write README.md."""
    text = with_tables(README.read_text("utf-8"))
    write_whole(README, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
