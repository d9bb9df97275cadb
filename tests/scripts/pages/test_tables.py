"""Tables of results: runs that differ in more than the seed have rows of their own, and the row says in what."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.pages.tables import results_table
from scripts.system.errors import InputError

THETA = {"theta_scale_mean": 1.25}


def write_run(folder: Path, *, asked: dict[str, Any], theta: bool = False, seed: int = 1, **resolved: Any) -> None:
    """The files of a run that a table reads."""
    folder.mkdir()
    numbers = {"train_accuracy": 70.0, "test_accuracy": 60.0 + seed, "best_test_accuracy": 65.0, "parameters": 1234}
    files = {
        "summary": {"recipe": resolved.pop("recipe", "tuned"), "epochs": 2, "seed": seed, **numbers},
        "config": {"asked": asked, "resolved": resolved},
        "environment": {"data": "digits"},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    row = {"epoch": 1, "test_accuracy": 60, **(THETA if theta else {})}
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*row])
        writer.writeheader()
        writer.writerow(row)


def write_stn(folder: Path, *, transformer: bool = True, **changes: Any) -> None:
    write_run(folder, asked={"no_transformer": not transformer}, theta=transformer, **changes)


def write_each(write: Any, folder: Path, name: str, values: list[str]) -> None:
    """A run of an earlier version, which has no such setting, and one with each value."""
    given = {} if write is write_stn else {"asked": {}, "patches": 4}
    for number, setting in enumerate([{}, *({name: value} for value in values)]):
        write(folder / str(number), seed=number, **given, **setting)


def rows(entry: str, folder: Path) -> list[dict[str, str]]:
    """The rows of the table, each cell by its column."""
    table = results_table(entry, folder).splitlines()
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)
    return [dict(zip(head, line, strict=True)) for line in lines]


@pytest.mark.parametrize(("changed", "message"), [
    ({"seed": 2, "lr": 5.0}, "results of tuned, seeds 1 and 2, must be alike; lr is 0.02 and 5.0"),
    ({"seed": 2, "asked": {"no_transformer": False, "validation": 0.1}},
     "results of tuned, seeds 1 and 2, must be alike; validation is None and 0.1"),
    ({"seed": 1}, "results of tuned must have seeds of their own; two have the same"),
])  # fmt: skip
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    common = {"asked": {"no_transformer": False}, "theta": True, "lr": 0.02}
    write_run(tmp_path / "a", **common)
    write_run(tmp_path / "b", **(common | changed))
    with pytest.raises(InputError) as error:
        rows("train-stn", tmp_path)
    assert str(error.value) == message


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    write_stn(tmp_path / "a")
    (tmp_path / "a" / "metrics.csv").unlink()
    with pytest.raises(InputError, match=r"/a must hold the results of a run; metrics\.csv is missing$"):
        rows("train-stn", tmp_path)


def test_a_run_of_another_script_and_an_incomplete_summary_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", asked={})
    with pytest.raises(InputError, match=r"/a must hold a run of train_stn or train_vit; it is of another script$"):
        rows("train-vit", tmp_path)
    write_stn(tmp_path / "b")
    summary = tmp_path / "b" / "summary.json"
    summary.write_text(json.dumps({"recipe": "tuned"}))
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(InputError, match=r"/b/summary\.json must be the summary of a run; it has no epochs$"):
        rows("train-stn", tmp_path)


def test_a_run_whose_last_epoch_was_skipped_has_no_training_accuracy(tmp_path: Path) -> None:
    write_stn(tmp_path / "a")
    write_stn(tmp_path / "b", seed=2)
    path = tmp_path / "b" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train_accuracy": None}))
    (row,) = rows("train-stn", tmp_path)
    assert row["training accuracy"] == "every step of the last epoch was skipped"


def test_a_run_without_transformer_stands_below_its_twin_in_the_table_of_its_script(tmp_path: Path) -> None:
    """Whatever their folders are called; runs of one recipe that differ in the seed alone share a row."""
    write_stn(tmp_path / "a", transformer=False)
    write_stn(tmp_path / "b", recipe="other", transformer=False)
    for seed in (1, 2):
        write_stn(tmp_path / f"c{seed}", seed=seed)
    write_stn(tmp_path / "d", recipe="other")
    found = rows("train-stn", tmp_path)
    cells = [(row["recipe"], row["transformer"], row["seeds"]) for row in found]
    assert cells == [("`other`", "yes", "1"), ("`other`", "no", "1"), ("`tuned`", "yes", "1 2"), ("`tuned`", "no", "1")]
    assert [row["mean scale of theta"] for row in found] == ["1.25 to 1.25", "", "1.25 to 1.25", ""]
    assert {row["parameters"] for row in found} == {"1,234"}


@pytest.mark.parametrize(("entry", "write"), [("train-stn", write_stn), ("train-vit", write_run)])
def test_runs_on_posed_images_have_rows_of_their_own(entry: str, write: Any, tmp_path: Path) -> None:
    write_each(write, tmp_path, "pose", ["none", "c8", "rts"])
    assert [(row["pose"], row["seeds"]) for row in rows(entry, tmp_path)] == [("", "0 1"), ("c8", "2"), ("rts", "3")]


@pytest.mark.parametrize(("entry", "write"), [("train-stn", write_stn), ("train-vit", write_run)])
def test_runs_tested_on_several_views_have_rows_of_their_own(entry: str, write: Any, tmp_path: Path) -> None:
    write_each(write, tmp_path, "tta", ["none", "mirror", "turns"])
    cells = [(row["test-time augmentation"], row["seeds"]) for row in rows(entry, tmp_path)]
    assert cells == [("", "0 1"), ("mirror", "2"), ("turns", "3")]


@pytest.mark.parametrize(("entry", "write"), [("train-stn", write_stn), ("train-vit", write_run)])
def test_the_accuracy_of_the_image_alone_stands_beside_that_of_several_views(
    entry: str, write: Any, tmp_path: Path
) -> None:
    """A run of an earlier version does not know it."""
    write_each(write, tmp_path, "tta", ["none", "mirror", "turns"])
    assert "last epoch, without it" not in rows(entry, tmp_path)[0]
    path = tmp_path / "2" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test_accuracy_without_tta": 12.5}))
    assert [row["last epoch, without it"] for row in rows(entry, tmp_path)] == ["", "12.50 %", ""]


def test_a_column_that_says_nothing_is_left_out(tmp_path: Path) -> None:
    write_stn(tmp_path / "a")
    (row,) = rows("train-stn", tmp_path)
    assert {"pose", "test-time augmentation"}.isdisjoint(row)
    assert "transformer" in row


def test_each_script_has_its_own_table(tmp_path: Path) -> None:
    write_stn(tmp_path / "plain", recipe="one", transformer=False)
    write_run(tmp_path / "vit", recipe="two", asked={}, patches=4)
    assert [row["recipe"] for row in rows("train-stn", tmp_path)] == ["`one`"]
    assert [row["recipe"] for row in rows("train-vit", tmp_path)] == ["`two`"]


def test_the_largest_drop_is_that_of_test_accuracies_and_empty_where_there_are_none(
    tmp_path: Path,
) -> None:
    write_stn(tmp_path / "a")
    write_stn(tmp_path / "b", recipe="other")
    for name, measured in (("a", "test"), ("b", "validation")):
        lines = [f"epoch,{measured}_accuracy,theta_scale_mean", "24,70,1", "25,60,1", "26,58.5,1", "27,59,1"]
        (tmp_path / name / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert [row["largest drop after epoch 25"] for row in rows("train-stn", tmp_path)] == ["", "1.5 points"]
