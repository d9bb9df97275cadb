"""The results of the studies: tables, and a picture of every run."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from scripts.pages.markdown import table
from scripts.recipes.stn_arms import COMPARED
from scripts.recipes.study import STUDIES
from scripts.run.folder import read_metrics
from scripts.system.errors import InputError
from scripts.system.files import read_json

RESULTS = Path(__file__).parents[1] / "results"
TITLES = {"c8": "turned by multiples of 45°", "none": "upright", "rts": "turned, scaled and shifted"}
NUMBERS = ("epochs", "parameters", "best_test_accuracy")  # in every summary
COLUMNS = (
    "trained on", "arm", "seeds", "tested on the same", "tested on upright images", "parameters",
    "spread of theta in pixels", "correlation of pose and theta",
)  # fmt: skip


class Arm(NamedTuple):
    """The finished runs of an arm in one pose: their folders, and their summaries."""

    name: str
    pose: str
    folders: Sequence[Path]
    runs: Sequence[dict[str, Any]]

    def accuracies(self, tested: str) -> list[float]:
        """Test accuracy in percent of each run, on images in these poses."""
        return [run["test_accuracy_in_poses"][tested] for run in self.runs]


def read_summary(of: str, path: Path) -> dict[str, Any]:
    """Read the summary of a run of that study.

    Raises:
        InputError: If it is damaged, or of another kind of run.
    """
    summary = read_json(path)
    poses = TITLES if of == "transformer" else ()
    tested = summary.get("test_accuracy_in_poses")
    numbers = [
        *(summary.get(name) for name in NUMBERS),
        *(summary[name] for name in ("theta_spread", "pose_correlation") if name in summary),
        *(tested.get(pose) if isinstance(tested, dict) else None for pose in poses),
    ]
    if not isinstance(summary.get("dataset"), str) or not all(type(number) in (int, float) for number in numbers):
        more = ", with accuracies in every pose" if poses else ""
        raise InputError(f"{path} must be the summary of a run of the study{more}")
    return summary


def finished(of: str, folder: Path, seeds: int | None = None) -> list[Arm]:
    """Read the finished runs in a folder of that study, in the order of the arms: of all seeds, or the first ones.

    Raises:
        InputError: If a summary is damaged, or runs are of other data or length.
    """
    arms = []
    for name, pose in STUDIES[of].runs:
        wanted = range(1, seeds + 1) if seeds else ("*",)
        paths = [path for seed in wanted for path in sorted(folder.glob(f"{name}-{pose}-seed{seed}/summary.json"))]
        if paths:
            folders = [path.parent for path in paths]
            arms.append(Arm(name, pose, folders, [read_summary(of, path) for path in paths]))
    for name in ("dataset", "epochs"):
        found = list(dict.fromkeys(run[name] for arm in arms for run in arm.runs))
        if len(found) > 1:
            raise InputError(f"{folder} must hold runs that are alike; {name} is {found[0]} and {found[1]}")
    return arms


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation, the value alone if there is one, empty if there is none."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else ""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def study_table(folder: Path, seeds: int | None = None) -> str:
    """Return the results of study ``transformer`` in Markdown, with a row for each arm in each pose."""
    rows = []
    for arm in finished("transformer", folder, seeds):
        theta = ([run[key] for run in arm.runs if key in run] for key in ("theta_spread", "pose_correlation"))
        tested = (f"{spread(arm.accuracies(pose))} %" for pose in (arm.pose, "none"))
        parameters = f"{arm.runs[0]['parameters']:,}"
        rows.append([arm.pose, arm.name, str(len(arm.runs)), *tested, parameters, *(spread(each) for each in theta)])
    return table(COLUMNS, rows)


def ablation_table(folder: Path, seeds: int | None = None) -> str:
    """Return the results of study ``compact`` in Markdown, with a row for each arm; the first one is the recipe."""
    rows = []
    for arm in finished("compact", folder, seeds):
        validated = [max(row["validation_accuracy"] for row in read_metrics(run)) for run in arm.folders]
        accuracies = [validated, [run["best_test_accuracy"] for run in arm.runs]]
        cells = (f"{spread(values)} %" for values in accuracies)
        rows.append([f"`{arm.name}`", str(len(arm.runs)), *cells, f"{arm.runs[0]['parameters']:,}"])
    return table(["arm", "seeds", "validation accuracy", "test accuracy", "parameters"], rows)


TABLES: dict[str, Callable[[Path, int | None], str]] = {"transformer": study_table, "compact": ablation_table}


def comparison(folder: Path) -> str:
    """Return in Markdown how many points arms are above the plain network, on images posed as in training."""
    found = {(arm.name, arm.pose): statistics.mean(arm.accuracies(arm.pose)) for arm in finished("transformer", folder)}
    arms = [arm for arm in COMPARED if arm != "plain"]
    rows = []
    for pose, title in TITLES.items():
        plain = found.get(("plain", pose))
        if plain is not None:
            above = (f"{found[arm, pose] - plain:+.1f}" if (arm, pose) in found else "" for arm in arms)
            rows.append([title, f"{plain:.1f} %", *above])
    return table(["images", "`plain`", *(f"`{arm}`" for arm in arms)], rows)


def study_picture(folder: Path) -> Figure:
    """Draw the test accuracy of every run, on images in the poses that it was trained on."""
    arms = finished("transformer", folder)
    if not arms:
        raise InputError(f"{folder} must hold finished runs of the study")
    poses = [pose for pose in TITLES if any(arm.pose == pose for arm in arms)]
    figure = Figure(figsize=(11, 1 + 0.34 * max(sum(arm.pose == pose for arm in arms) for pose in poses)),
                    dpi=100, layout="constrained")  # fmt: skip
    for axes, pose in zip(figure.subplots(1, len(poses), squeeze=False)[0], poses, strict=True):
        shown = [arm for arm in arms if arm.pose == pose]
        for row, arm in enumerate(shown):
            values = arm.accuracies(pose)
            axes.plot(values, [row] * len(values), "o", color="#1f5fa8", alpha=0.5, markersize=5)
            axes.plot(statistics.mean(values), row, "|", color="black", markersize=14)
        axes.set_yticks(range(len(shown)), [arm.name for arm in shown])
        axes.invert_yaxis()
        axes.set_title(TITLES[pose], loc="left", fontsize=10)
        axes.set_xlabel("test accuracy (%)")
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


PICTURES = {"study": lambda: study_picture(RESULTS / "study-transformer")}
