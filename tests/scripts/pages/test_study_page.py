"""The pages of the studies: every finished run counts, with its arm, its pose and its seed."""

import json
from pathlib import Path

import pytest

from scripts.pages.study import ablation_table, comparison, finished, study_picture, study_table
from scripts.recipes.study import STUDIES
from scripts.system.errors import InputError


def write(folder: Path, name: str, **summary: object) -> None:
    (folder / name).mkdir(parents=True)
    common = {"dataset": "digits", "epochs": 8, "parameters": 1234, "best_test_accuracy": 50.0}
    (folder / name / "summary.json").write_text(json.dumps(common | summary))


def accuracies(**tested: float) -> dict[str, dict[str, float]]:
    return {"test_accuracy_in_poses": {"none": 50.0, "c8": 40.0, "rts": 30.0} | tested}


def results(folder: Path) -> Path:
    for seed in (1, 2, 3):
        write(folder, f"angle-c8-seed{seed}", **accuracies(c8=60.0 + seed), theta_spread=20.0, pose_correlation=0.8)
    write(folder, "plain-c8-seed1", **accuracies())
    write(folder, "angle-two-steps-c8-seed1", **accuracies(c8=70.0), theta_spread=21.5)
    write(folder, "plain-none-seed1", **accuracies(none=77.0))
    (folder / "angle-none-seed1").mkdir()  # not finished
    return folder


def test_the_table_has_mean_and_spread_of_the_finished_runs_in_the_order_of_the_arms(tmp_path: Path) -> None:
    _, _, *rows = [line.split(" | ") for line in study_table(results(tmp_path)).splitlines()]
    assert [row[:3] for row in rows] == [["| c8", "plain", "1"], ["| c8", "angle", "3"], ["| none", "plain", "1"],
                                         ["| c8", "angle-two-steps", "1"]]  # fmt: skip
    assert rows[1][3:] == ["62.00 ± 1.00 %", "50.00 ± 0.00 %", "1,234", "20.00 ± 0.00", "0.80 ± 0.00 |"]
    assert rows[2][3:] == ["77.00 %", "77.00 %", "1,234", "", " |"]
    assert rows[3][6:] == ["21.50", " |"]


@pytest.mark.parametrize(("other", "wanted"), [
    ({"dataset": "cifar10"}, "dataset is digits and cifar10"), ({"epochs": 1}, "epochs is 8 and 1"),
])  # fmt: skip
def test_runs_of_other_data_or_length_are_not_put_into_one_table(tmp_path: Path, other: dict, wanted: str) -> None:
    results(tmp_path)
    write(tmp_path, "angle-rts-seed1", **accuracies(), **other)
    with pytest.raises(InputError, match=rf"must hold runs that are alike; {wanted}$"):
        study_table(tmp_path)


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold finished runs of the study$"):
        study_picture(tmp_path)


def test_the_comparison_has_the_points_of_the_means_above_the_plain_network(tmp_path: Path) -> None:
    folder = results(tmp_path)
    write(folder, "plain-c8-seed2", **accuracies(c8=42.0))
    write(folder, "affine-c8-seed1", **accuracies(c8=35.5))
    head, _, *rows = comparison(folder).splitlines()
    assert head == "| images | `plain` | `angle` | `affine` | `similarity` |"
    assert rows == ["| turned by multiples of 45° | 41.0 % | +21.0 | -5.5 |  |", "| upright | 77.0 % |  |  |  |"]


def test_the_picture_shows_every_run_beside_its_arm(tmp_path: Path) -> None:
    first, second = study_picture(results(tmp_path)).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["plain", "angle", "angle-two-steps"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["plain"]
    shown = [sorted(line.get_xdata()) for line in first.lines if line.get_marker() == "o"]
    assert shown == [[40.0], [61.0, 62.0, 63.0], [70.0]]


def test_the_ablations_have_the_best_validation_accuracy_and_the_test_accuracy_of_that_epoch(tmp_path: Path) -> None:
    for seed, validated in ((1, (70.0, 80.0, 79.0)), (2, (81.0, 82.0, 82.0))):
        write(tmp_path, f"compact-none-seed{seed}", best_test_accuracy=77.0 + seed)
        rows = "".join(f"{epoch},{accuracy}\n" for epoch, accuracy in enumerate(validated, start=1))
        (tmp_path / f"compact-none-seed{seed}" / "metrics.csv").write_text(f"epoch,validation_accuracy\n{rows}")
    _, _, row = ablation_table(tmp_path).splitlines()
    assert row == "| `compact` | 2 | 81.00 ± 1.41 % | 78.50 ± 0.71 % | 1,234 |"


@pytest.mark.parametrize("of", [*STUDIES])
def test_a_name_belongs_to_one_arm_in_one_pose(tmp_path: Path, of: str) -> None:
    runs = STUDIES[of].runs
    for name, pose in runs:
        write(tmp_path, f"{name}-{pose}-seed1", **accuracies())
    assert [(arm.name, arm.pose, len(arm.runs)) for arm in finished(of, tmp_path)] == [(*run, 1) for run in runs]
