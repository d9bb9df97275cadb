"""Write the generated parts of the READMEs: lists of files, recipes, and results of the runs in scripts/results/.

python -m scripts.pages.tables
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.pages.markdown import rewritten, table
from scripts.pages.recipes import RECIPES, recipe_table
from scripts.pages.study import RESULTS, ablation_table, comparison, study_table
from scripts.pages.trees import tree
from scripts.run.folder import read_metrics
from scripts.system.command_line import run
from scripts.system.errors import InputError
from scripts.system.files import read_json

ROOT = Path(__file__).parents[2]
LISTED = ("scripts", "benchmarks", "tests")  # folders whose README lists its files


# in the runs of one row: statistics of the images differ in the last bit, the machine decides the next two, and earlier
# versions did not record the hash of the images
MAY_DIFFER = {"seed", "normalise", "compiled", "precision", "images"}


IN_EVERY_SUMMARY = ("recipe", "epochs", "seed", "train_accuracy", "test_accuracy", "best_test_accuracy", "parameters")


@dataclass(frozen=True)
class Run:
    """The files of a run folder."""

    summary: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, float]]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a folder in scripts/results/."""
        names = ("summary.json", "config.json", "environment.json")
        for name in (*names, "metrics.csv"):
            if not (folder / name).is_file():
                raise InputError(f"{folder} must hold the results of a run; {name} is missing")
        summary, config, environment = (read_json(folder / name) for name in names)
        for key in IN_EVERY_SUMMARY:
            if key not in summary:
                raise InputError(f"{folder / 'summary.json'} must be the summary of a run; it has no {key}")
        if not ("no_transformer" in config["asked"] or "patches" in config["resolved"]):
            raise InputError(f"{folder} must hold a run of train_stn or train_vit; it is of another script")
        return cls(summary, config, environment, read_metrics(folder))

    @property
    def entry(self) -> str:
        """The make target of the run: only train-stn has a transformer to leave out."""
        return "train-stn" if "no_transformer" in self.config["asked"] else "train-vit"

    @property
    def settings(self) -> dict[str, Any]:
        """What the runs of one row share."""
        resolved = {name: value for name, value in self.config["resolved"].items() if name not in MAY_DIFFER}
        return resolved | {"validation": self.config["asked"].get("validation")}

    @property
    def pose(self) -> str:
        """What was done to the images; empty where nothing was."""
        return self._setting("pose")

    @property
    def tta(self) -> str:
        """The test-time augmentation, if any."""
        return self._setting("tta")

    def _setting(self, name: str) -> str:
        setting = self.config["resolved"].get(name, "none")  # earlier versions had none
        return "" if setting == "none" else str(setting)

    @property
    def plain(self) -> bool:
        """Whether the transformer was left out."""
        return bool(self.config["asked"].get("no_transformer"))

    @property
    def group(self) -> tuple[str, str, int, str, str, bool]:
        """What the runs of one row of the table share, in the order of the rows."""
        summary, data = self.summary, self.environment["data"]
        return summary["recipe"], data, summary["epochs"], self.pose, self.tta, self.plain


Column = Callable[[Sequence[Run]], str]  # from the runs of one row, one for each seed, to the cell


def _scales(runs: Sequence[Run]) -> str:
    if runs[0].plain:
        return ""
    scales = [row["theta_scale_mean"] for run in runs for row in run.rows]
    return f"{min(scales):.2f} to {max(scales):.2f}"


def _largest_drop(runs: Sequence[Run]) -> str:
    drops = [
        before["test_accuracy"] - after["test_accuracy"]
        for run in runs
        for before, after in zip(run.rows, run.rows[1:], strict=False)
        if before["epoch"] >= 25 and "test_accuracy" in before
    ]
    return f"{max(drops):.1f} points" if drops else ""


def _spread(key: str) -> Column:
    """Return a column that shows one value, or mean, standard deviation and all values."""

    def cell(runs: Sequence[Run]) -> str:
        values = [run.summary[key] for run in runs if key in run.summary]
        if len(values) < len(runs):  # not measured, as by earlier versions
            return ""
        if None in values:
            return "every step of the last epoch was skipped"
        if len(values) == 1:
            return f"{values[0]:.2f} %"
        each = ", ".join(f"{value:.2f}" for value in values)
        return f"**{statistics.mean(values):.2f}** ± {statistics.stdev(values):.2f} % ({each})"

    return cell


RECIPE: dict[str, Column] = {"recipe": lambda runs: f"`{runs[0].summary['recipe']}`"}
COMMON: dict[str, Column] = {
    "pose": lambda runs: runs[0].pose,
    "data": lambda runs: str(runs[0].environment["data"]),
    "epochs": lambda runs: str(runs[0].summary["epochs"]),
    "seeds": lambda runs: " ".join(str(run.summary["seed"]) for run in runs),
    "test-time augmentation": lambda runs: runs[0].tta,
    "test accuracy, last epoch": _spread("test_accuracy"),
    "last epoch, without it": _spread("test_accuracy_without_tta"),
    "best epoch": _spread("best_test_accuracy"),
    "training accuracy": _spread("train_accuracy"),
    "parameters": lambda runs: f"{runs[0].summary['parameters']:,}",
}
TABLES: dict[str, dict[str, Column]] = {
    "train-stn": {
        **RECIPE,
        "transformer": lambda runs: "no" if runs[0].plain else "yes",
        **COMMON,
        "mean scale of theta": _scales,
        "largest drop after epoch 25": _largest_drop,
    },
    "train-vit": {**RECIPE, **COMMON, "patches": lambda runs: str(runs[0].config["resolved"]["patches"])},
}


def check_alike(runs: Sequence[Run]) -> None:
    """Raise InputError if runs that share a row differ in more than the seed, or two have the same one."""
    recipe, seeds = runs[0].summary["recipe"], [each.summary["seed"] for each in runs]
    if len({*seeds}) < len(seeds):
        raise InputError(f"results of {recipe} must have seeds of their own; two have the same")
    mine = runs[0].settings
    for other, seed in zip(runs[1:], seeds[1:], strict=True):
        for name in sorted(mine.keys() & other.settings.keys()):  # earlier versions had fewer
            if mine[name] != other.settings[name]:
                wanted = f"results of {recipe}, seeds {seeds[0]} and {seed}, must be alike"
                raise InputError(f"{wanted}; {name} is {mine[name]} and {other.settings[name]}")


def results_table(entry: str, folder: Path = RESULTS) -> str:
    """Return the results of an entry in Markdown, with a row for the runs that differ in the seed alone.

    Raises:
        InputError: If a file is missing or damaged, or runs of a row differ in more than that.
    """
    runs: dict[tuple[str, str, int, str, str, bool], list[Run]] = {}
    for path in sorted(folder.glob("*/summary.json")):
        found = Run.read(path.parent)
        if found.entry == entry:
            runs.setdefault(found.group, []).append(found)
    for each in runs.values():
        check_alike(each)
    columns = {name: [column(runs[group]) for group in sorted(runs)] for name, column in TABLES[entry].items()}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    return table([*columns], zip(*columns.values(), strict=True))


def pages() -> dict[Path, str]:
    """Return every page that has generated parts, with their current content."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    for entry in TABLES:
        text = rewritten(text, f"results of {entry}", results_table(entry))
    found = {readme: text}
    for floor in LISTED:
        page = ROOT / floor / "README.md"
        found[page] = rewritten(page.read_text("utf-8"), "the files", tree(ROOT / floor))
    study = ROOT / "scripts" / "STUDY.md"
    transformer, compact = RESULTS / "study-transformer", RESULTS / "study-compact"
    text = rewritten(study.read_text("utf-8"), "comparison with the plain network", comparison(transformer))
    found[study] = rewritten(text, "results of the study", study_table(transformer))
    page = ROOT / "scripts" / "README.md"
    for entry in RECIPES:
        found[page] = rewritten(found[page], f"the recipes of {entry}", recipe_table(entry))
    found[page] = rewritten(found[page], "what each part of compact is worth", ablation_table(compact))
    return found


def main() -> None:
    """Write the pages."""
    for page, text in pages().items():
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    run(main, "tables")
