"""Write the result table of README.md from the run folders in scripts/results/.

python -m scripts.tables
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.files import write_whole
from scripts.run_folder import read_metrics

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- results: made by `make tables` -->\n", "<!-- end of results -->"
HEADER = (
    "| recipe | data | epochs | seeds | test accuracy, last epoch | best epoch | training accuracy "
    "| mean scale of theta | largest drop after epoch 25 |\n" + "|---" * 9 + "|\n"
)


@dataclass(frozen=True)
class _Run:
    summary: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, float]]


def result_table(folder: Path = RESULTS) -> str:
    """The table in Markdown: a row a recipe, data source and length, over all its seeds."""
    runs: dict[tuple[str, str, int], list[_Run]] = {}
    for path in sorted(folder.glob("*/summary.json")):
        summary, environment = (
            json.loads((path.parent / name).read_text("utf-8")) for name in ("summary.json", "environment.json")
        )
        key = (summary["recipe"], environment["data"], summary["epochs"])
        runs.setdefault(key, []).append(_Run(summary, environment, read_metrics(path.parent)))
    return HEADER + "".join(_row(*key, group) for key, group in runs.items())


def _row(recipe: str, data: str, epochs: int, runs: Sequence[_Run]) -> str:
    scales = [row["theta_scale_mean"] for run in runs for row in run.rows]
    falls = [
        before["test_accuracy"] - after["test_accuracy"]
        for run in runs
        for before, after in zip(run.rows, run.rows[1:], strict=False)
        if before["epoch"] >= 25
    ]
    cells = (
        f"`{recipe}`",
        data,
        str(epochs),
        " ".join(str(run.summary["seed"]) for run in runs),
        _spread([run.summary["test_accuracy"] for run in runs]),
        _spread([run.summary["best_test_accuracy"] for run in runs]),
        _spread([run.summary["train_accuracy"] for run in runs]),
        f"{min(scales):.2f} to {max(scales):.2f}",
        f"{max(falls, default=0.0):.1f} points",
    )
    return f"| {' | '.join(cells)} |\n"


def _spread(values: Sequence[float]) -> str:
    """One value, or mean and standard deviation with all of them."""
    if len(values) == 1:
        return f"{values[0]:.2f} %"
    each = ", ".join(f"{value:.2f}" for value in values)
    return f"**{statistics.mean(values):.2f}** ± {statistics.stdev(values):.2f} % ({each})"


def main() -> None:
    """Replace what stands between the two marks."""
    before, rest = README.read_text("utf-8").split(BEGIN)
    text = before + BEGIN + result_table() + END + rest.split(END)[1]
    write_whole(README, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
