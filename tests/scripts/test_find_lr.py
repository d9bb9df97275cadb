"""``--find-lr`` of both scripts: a plot, a table and a suggestion, and nothing else."""

import csv
import json
import re
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from scripts import find_lr, train_stn, train_vit
from scripts.models.vit import PRESETS
from scripts.recipes import stn, vit
from scripts.run import figures
from scripts.system.command_line import run
from scripts.system.errors import InputError
from scripts.training import range_test
from scripts.training.range_test import RangeTest
from scripts.training.step import Outcome, train_step
from scripts.training.trainer import Trainer
from scripts.weights.families import to_family
from scripts.weights.files import write_arrays
from tests.support.networks import TINY_PRESETS, network
from tests.support.runs import flags

pytestmark = pytest.mark.numerics

RECIPES = [*((train_stn, name) for name in stn.RECIPES), *((train_vit, name) for name in vit.RECIPES)]


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_test, "STEPS", 24)
    for preset, sizes in TINY_PRESETS.items():
        monkeypatch.setitem(PRESETS, preset, sizes)


def files(root: Path) -> set[str]:
    """Everything that a command left, apart from the images that it decoded."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {
        str(path.relative_to(root)) for name in ("photos", "data/cache") for path in (root / name).rglob("*")
    }


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(("entry", "recipe"), RECIPES, ids=[name for _, name in RECIPES])
def test_every_recipe_leaves_a_plot_and_a_table_and_ends_with_json(
    entry: ModuleType,
    recipe: str,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(figures, "range_curve", lambda *curve: curve[-1].write(b"drawn in another test"))
    given: dict[str, Any] = {"batch_size": 4, "at_once": 2}
    if entry.RECIPES[recipe].pretrained:
        sizes = TINY_PRESETS[entry.RECIPES[recipe].network["preset"]]
        state = network(5, **sizes | {"image_size": 2 * sizes["patch_size"]}).state_dict()
        write_arrays(tmp_path / "photos" / "start.npz", to_family(state, "google", sizes["num_heads"]))
        given["weights"] = "photos/start.npz"
    entry.main(flags(entry.Options, data="photos", recipe=recipe, find_lr=True, out="found", **given))
    assert files(tmp_path) == {"found/find_lr.csv", "found/find_lr.png"}
    printed = capsys.readouterr().out.splitlines()
    numbers = json.loads(printed[-1])
    lr = entry.RECIPES[recipe].lr
    assert (numbers["recipe"], numbers["lr"], numbers["seed"]) == (recipe, lr, 1)
    assert (numbers["plot"], numbers["table"]) == ("found/find_lr.png", "found/find_lr.csv")
    with (tmp_path / "found" / "find_lr.csv").open() as table:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
    assert len(rows) == numbers["steps"] <= 24
    assert rows[0]["lr"] == pytest.approx(lr * 1e-3 * 10 ** (6 * 0.5 / 24), rel=1e-5)
    assert [row["lr"] for row in rows] == sorted(row["lr"] for row in rows)
    found = RangeTest([row["lr"] for row in rows], [row["loss"] for row in rows], None)
    assert [row["smoothed_loss"] for row in rows] == pytest.approx(found.smoothed, rel=1e-5)
    suggested = numbers["suggested_lr"]
    assert suggested == (found.suggestion and pytest.approx(found.suggestion, rel=1e-2))
    assert any(line.startswith("Suggested: --lr " if suggested else "No suggestion: ") for line in printed)


@pytest.mark.usefixtures("_short", "tree")
def test_it_trains_as_the_run_with_these_flags_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the same images, in the same poses, from the same weights."""
    given = {"data": "photos", "limit_train": 20, "validation": 0.25, "pose": "rts", "lr": 0.3, "recipe": "small"}
    seen: list[Trainer] = []
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((find_lr, "range_test"), (Trainer, "fit")):
            patch.setattr(module, name, lambda trainer, *_: seen.append(trainer) or 1 / 0)
        for more in ({"find_lr": True}, {"epochs": 1, "out": "run"}):
            with pytest.raises(ZeroDivisionError):
                train_stn.main(flags(train_stn.Options, **given, **more))
    test, whole = seen
    assert torch.equal(test.train.images, whole.train.images)
    assert len(test.train) == 14
    assert test.plan.poses == whole.plan.poses
    assert (test.plan.lr, test.plan.schedule) == (0.3, whole.plan.schedule)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(test.model.state_dict()[name], value)
    assert [type(each) for each in test.optimizers] == [type(each) for each in whole.optimizers]
    assert "14 training images" in capsys.readouterr().out
    train_stn.main(flags(train_stn.Options, **given, find_lr=True, seed=3))
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    name = r"runs/tree-photos-small-find-lr-seed3-\d{8}-\d{6}/find_lr\.png"
    assert re.fullmatch(name, numbers["plot"])
    assert (tmp_path / numbers["plot"]).is_file()


@pytest.mark.usefixtures("_short", "tree")
def test_a_folder_that_cannot_be_made_is_named_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_test, "train_step", lambda *_: pytest.fail("a step was made"))
    (tmp_path / "file").touch()
    wanted = r"^--out \(file/found\) must be a folder that can be created; Not a directory$"
    with pytest.raises(InputError, match=wanted):
        train_stn.main(flags(train_stn.Options, data="photos", find_lr=True, out="file/found"))


@pytest.mark.usefixtures("_short", "tree")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_range_test_that_is_stopped_says_so_and_leaves_nothing(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = iter(range(24))

    def interrupted(*given: Any) -> Outcome:
        if next(steps) == 4:
            signal.raise_signal(number)
        return train_step(*given)

    monkeypatch.setattr(range_test, "train_step", interrupted)
    given = flags(train_stn.Options, data="photos", find_lr=True, out="found")
    with pytest.raises(SystemExit) as ended:
        run(lambda: train_stn.main(given), "train_stn")
    assert ended.value.code == 128 + number
    stopped = f"train_stn: stopped by {number.name} after 4 steps of the range test; nothing is kept\n"
    assert capsys.readouterr().err == stopped
    assert files(tmp_path) == set()
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize("suggestion", [None, 0.02])
def test_the_plot_shows_steps_curve_and_suggestion_and_not_the_explosion(suggestion: float | None) -> None:
    rates, losses = [1e-3, 1e-2, 1e-1, 1.0], [2.0, 1.5, 1.0, 1e9]
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
        figures.range_curve(rates, losses, [2.0, 1.6, 1.1, 1e8], suggestion, "Range test", Path("find_lr.png"))
    (axes,) = drawn[0].axes
    steps, curve, *mark = axes.lines
    assert [list(line.get_ydata()) for line in (steps, curve)] == [losses, [2.0, 1.6, 1.1, 1e8]]
    assert all(list(line.get_xdata()) == rates for line in (steps, curve))
    assert [list(line.get_xdata()) for line in mark] == ([] if suggestion is None else [[0.02, 0.02]])
    low, high = axes.get_ylim()
    assert 0.9 < low < 1.1
    assert 2.0 < high < 3.0
    assert axes.get_xscale() == "log"
    assert axes.get_title(loc="left") == "Range test"


def test_the_verdict_says_how_it_was_chosen() -> None:
    rates = [10 ** (i / 50 - 5) for i in range(250)]
    falls = RangeTest(rates, [2.0 - i / 250 for i in range(250)], rates[-1])
    assert find_lr.verdict(falls) == (
        "Suggested: --lr 0.0871, where the smoothed loss has done 80% of its fall; it was least at 0.955 and diverged "
        "at 0.955"
    )
    level = RangeTest(rates, [2.0] * 250, None)
    assert find_lr.verdict(level) == "No suggestion: the loss fell by less than 5% and did not diverge"
