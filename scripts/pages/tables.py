"""Write the generated parts of the READMEs: lists of files, recipes, and results of the runs in scripts/results/.

python -m scripts.pages.tables
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.pages.markdown import rewritten, table
from scripts.pages.study import RESULTS as STUDY
from scripts.pages.study import comparison, study_table
from scripts.pages.trees import tree
from scripts.recipes import stn, vit
from scripts.run.folder import read_metrics
from scripts.subjects import stn as stn_subject
from scripts.subjects import vit as vit_subject
from scripts.system.command_line import run
from scripts.system.errors import InputError
from scripts.system.files import read_json
from scripts.training.plan import Recipe

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "scripts" / "results"
RECIPES: dict[str, tuple[Mapping[str, Recipe], Mapping[str, Callable[..., Any]]]] = {
    "train-stn": (stn.RECIPES, stn_subject.OPTIMIZERS),
    "train-vit": (vit.RECIPES, vit_subject.OPTIMIZERS),
}
LISTED = ("scripts", "benchmarks", "tests")  # folders whose README lists its files


# in the runs of one row: statistics of the images differ in the last bit, and the machine decides the last two
MAY_DIFFER = {"seed", "normalise", "compiled", "precision"}


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
        values = [run.summary[key] for run in runs]
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


def _stages(stem: int, widths: Sequence[int]) -> str:
    return f"stem {stem} and stages {'-'.join(map(str, widths))}"


NETWORK: dict[str, Callable[[Any], str]] = {  # options of networks in words
    "preset": lambda name: f"preset `{name}`",
    "dropout": lambda share: f"dropout {share:g}",
    "patch_dropout": lambda share: f"{share:.0%} of the patches dropped",
    "stochastic_depth": lambda share: f"stochastic depth {share:g}",
    "stem": lambda width: f"stem {width}",
    "widths": lambda widths: f"stages {'-'.join(map(str, widths))}",
    "localization": lambda sizes: f"a localization of {_stages(*sizes)}",
    "places": lambda _: "which reads places too",
    "predicts": lambda what: f"and regresses the {what}",
    "output_size": lambda side: f"a crop of {side}x{side} pixels",
    "alone": lambda sizes: f"without transformer {_stages(*sizes)}",
}


def recipe_table(entry: str) -> str:
    """Return the recipes of an entry in Markdown, with a column for each."""
    recipes, optimizers = RECIPES[entry]
    columns = [_described(recipe, optimizers[recipe.optimizer]) for recipe in recipes.values()]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return table(["", *(f"`{name}`" for name in recipes)], [row for row in rows if any(row[1:])])


def _described(recipe: Recipe, optimizers: Callable[..., object]) -> dict[str, str]:
    schedule, augment, mix = recipe.schedule, recipe.augment, recipe.mix
    rise = f"linear warm-up over {schedule.warm_up:.0%} of the steps, then " if schedule.warm_up else ""
    fall = {"constant": "constant", "linear": "linear to zero", "cosine": "cosine to zero"}[schedule.fall]
    changes = {
        "mirrored": augment.mirror,
        f"shifted by up to {augment.shift} pixels": augment.shift,
        f"random crops of at least {augment.crop or 0:.0%} of the area": augment.crop,
        f"turned, sheared and stretched, by up to {augment.geometry:.0%}": augment.geometry,
        f"brightness, contrast and saturation changed by up to {augment.colour:.0%}": augment.colour,
        f"a square of {augment.cutout} pixels cut out": augment.cutout,
        f"{mix.mixup:.0%} blended": mix.mixup,
        f"{mix.cutmix:.0%} with a box of another image": mix.cutmix,
    }
    one_pass = recipe.batch_size <= recipe.at_once
    return {
        "network": ", ".join(NETWORK[name](value) for name, value in recipe.network.items()),
        "pretrained weights": "`--weights`" if recipe.pretrained else "",
        "image size": "x".join(map(str, recipe.image_size)) if recipe.image_size else "",
        "training images": ", ".join(words for words, given in changes.items() if given) or "unchanged",
        "normalised by": "fixed statistics" if recipe.normalise else "statistics of the training images",
        "optimizer": (optimizers.__doc__ or "").partition("\n")[0].rstrip("."),
        "peak learning rate": f"{recipe.lr:g}",
        "schedule": rise + fall,
        "batch size": f"{recipe.batch_size}" + ("" if one_pass else f", {recipe.at_once} at once"),
        "label smoothing": f"{recipe.label_smoothing:g}" if recipe.label_smoothing else "",
        "length": f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs} epochs",
        "all patches": f"in the epochs of the last {recipe.whole_images:.0%} of the run" if recipe.whole_images else "",
        "averaged weights": f"decay {recipe.averaged:g} a step" if recipe.averaged else "",
        "largest gradient norm": f"{recipe.clip:g}" if recipe.clip else "",
        "precision": recipe.precision,
    }


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
    text = rewritten(study.read_text("utf-8"), "comparison with the plain network", comparison(STUDY))
    found[study] = rewritten(text, "results of the study", study_table(STUDY))
    for entry in RECIPES:
        page = ROOT / "scripts" / "README.md"
        found[page] = rewritten(found[page], f"the recipes of {entry}", recipe_table(entry))
    return found


def main() -> None:
    """Write the pages."""
    for page, text in pages().items():
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    run(main, "tables")
