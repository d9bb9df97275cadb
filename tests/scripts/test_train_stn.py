"""scripts.train_stn from the command line: flags in, a run folder and a last line of JSON out."""

import json
import math
import re
import signal
import weakref
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import experiment
from scripts.data.datasets import Split, load
from scripts.data.poses import POSES, posed_split
from scripts.data.transforms import Augment, Normalise
from scripts.models.stn import STNClassifier
from scripts.run import page
from scripts.run.findings import evenly_spaced
from scripts.run.folder import RunFolder, read_metrics
from scripts.run.page import NEEDED as NEEDED_BY_THE_REPORT
from scripts.system import command_line
from scripts.system.command_line import flag_values, parse
from scripts.system.errors import InputError, Stopped
from scripts.system.machine import Machine, this_machine
from scripts.train_stn import RECIPES, Options, main
from scripts.training.plan import Recipe
from scripts.training.step import Outcome, train_step
from scripts.training.trainer import Trainer
from tests.support.machines import BARE_CPU, FAST_CPU, PLAIN_CPU
from tests.support.runs import at_step, flags, full_disk, terminated, without_times
from tests.support.servers import go_offline

pytestmark = pytest.mark.numerics

NEEDED = {"dataset", "recipe", "epochs", "seed", "train_accuracy", "test_accuracy", "best_test_accuracy", "parameters",
          "seconds", "images_per_second", "run_folder"}  # fmt: skip
options = partial(flags, Options)
fit = Trainer.fit


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_leaves_everything_and_ends_with_json(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    main(options(data=str(tree), recipe=recipe, epochs=2, out="run"))
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary.keys() >= NEEDED
    assert (summary["recipe"], summary["epochs"], summary["run_folder"]) == (recipe, 2, "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.json", "environment.json", "metrics.csv", "train.log", "last.pt", "best.pt", "report.html"}
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2]
    columns = {"theta_scale_mean", "theta_angle_std", "theta_shift_x_mean", "theta_outside", "theta_spread"}
    assert columns <= rows[0].keys()
    assert summary["theta_spread"] == pytest.approx(rows[-1]["theta_spread"], abs=0.01)
    assert summary["test_accuracy"] == pytest.approx(rows[-1]["test_accuracy"], abs=0.01)
    assert summary["best_test_accuracy"] == pytest.approx(max(row["test_accuracy"] for row in rows), abs=0.01)


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("validation", [None, 0.25])
def test_the_checkpoints_reproduce_the_accuracies_of_the_summary(
    tree: Path, tmp_path: Path, validation: float | None
) -> None:
    main(options(data=str(tree), recipe="tuned", epochs=4, validation=validation, out="run"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    test = load(str(tree)).test
    for name, key in (("last.pt", "test_accuracy"), ("best.pt", "best_test_accuracy")):
        state = torch.load(tmp_path / "run" / name, weights_only=True)
        network = STNClassifier(len(state["classes"])).eval()
        network.load_state_dict(state["model"])
        correct = network(Normalise(**state["normalise"])(test.images)).argmax(1) == test.labels
        assert 100 * correct.double().mean().item() == pytest.approx(summary[key], abs=0.01)


@pytest.mark.usefixtures("_no_report")
def test_it_learns_digits_and_does_not_mirror_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(
        options(data="digits", epochs=4, batch_size=16, limit_train=800, limit_test=300, precision="float32", out="run")
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_accuracy"] > 30, "chance is 10"
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    assert resolved["augment"] == asdict(Augment(shift=2))


@pytest.mark.usefixtures("_undrawn")
def test_with_validation_the_test_set_is_used_once(tree: Path, tmp_path: Path) -> None:
    main(options(data=str(tree), epochs=3, validation=0.25, out="run"))
    rows = read_metrics(tmp_path / "run")
    assert "validation_accuracy" in rows[0]
    assert not any(name.startswith("test") for name in rows[0])
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    highest = max(row["validation_accuracy"] for row in rows)  # rounded to six digits
    assert best["metrics"]["validation_accuracy"] == pytest.approx(highest, rel=1e-5)
    assert "--validation 0.25" in (tmp_path / "run" / "report.html").read_text("utf-8")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["resolved"]["train_images"] == 18


def test_with_validation_the_training_images_are_held_once(tree: Path, tmp_path: Path, monkeypatch) -> None:
    """In the memory of a GPU too."""
    whole, divided = [], Split.divided

    def seen(split: Split, share: float) -> tuple[Split, Split]:
        whole.append(weakref.ref(split.images))
        return divided(split, share)

    def fit(trainer: Trainer, checkpoint: object) -> None:
        assert [each() for each in whole] == [None]
        raise InputError("trained")

    monkeypatch.setattr(Split, "divided", seen)
    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(InputError, match=r"^trained$"):
        main(flags(Options, data=tree, limit_train=20, validation=0.25, out=tmp_path / "run"))


@pytest.mark.usefixtures("_no_report")
def test_at_the_end_the_best_checkpoint_must_be_the_one_that_the_run_wrote(tree: Path, tmp_path: Path) -> None:
    main(options(data=str(tree), epochs=2, validation=0.25, out="run"))
    best = tmp_path / "run" / "best.pt"
    good = torch.load(best, weights_only=True)
    of_another_run = good | {"metrics": good["metrics"] | {"validation_accuracy": 1.0}}
    for bad in ({}, [1], good | {"model": {}}, good | {"epoch": 7}, of_another_run):
        (tmp_path / "run" / "summary.json").unlink(missing_ok=True)
        torch.save(bad, best)
        with pytest.raises(InputError, match=r"^run/best\.pt must be the best checkpoint of this run; it holds some"):
            main(parse(Options, "train_stn", ["--resume", "run"]))
    best.unlink()
    with pytest.raises(InputError, match=r"^run/best\.pt must be the best checkpoint of this run; it is missing$"):
        main(parse(Options, "train_stn", ["--resume", "run"]))
    torch.save(good, best)
    main(parse(Options, "train_stn", ["--resume", "run"]))
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("validation", [None, 0.25])
def test_no_validation_or_test_image_changes_normalisation_or_weights(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: float | None
) -> None:
    """What is measured on images that a run has learned from, be it their mean, is no measure."""
    dataset = load(str(tree))
    numbered = Split(torch.arange(len(dataset.train)), dataset.train.labels)
    held_out = numbered.divided(validation)[1].images if validation else torch.empty(0, dtype=torch.long)
    images = dataset.train.images.clone()
    images[held_out] = 255 - images[held_out] // 2
    others = replace(
        dataset,
        train=replace(dataset.train, images=images),
        test=Split(255 - dataset.test.images // 2, dataset.test.labels.flip(0)),
    )
    settled = []
    for name, given in (("run", dataset), ("other", others)):
        monkeypatch.setattr(experiment, "load", lambda source, given=given: given)
        main(options(data=str(tree), epochs=2, validation=validation, out=name))
        settled.append(torch.load(tmp_path / name / "last.pt", weights_only=True))
    one, other = settled
    assert one["normalise"] == other["normalise"]
    assert [name for name, weight in one["model"].items() if not torch.equal(weight, other["model"][name])] == []
    (row, _), (of_others, _) = (read_metrics(tmp_path / name) for name in ("run", "other"))
    measured = "validation_loss" if validation else "test_loss"
    assert row["train_loss"] == of_others["train_loss"]
    assert row[measured] != of_others[measured], "they are evaluated"


@pytest.mark.usefixtures("_no_report")
def test_with_validation_no_test_image_decides_which_checkpoint_is_the_best(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load(str(tree))
    others = replace(dataset, test=Split(255 - dataset.test.images // 2, dataset.test.labels.flip(0)))
    for name, given in (("run", dataset), ("other", others)):
        monkeypatch.setattr(experiment, "load", lambda source, given=given: given)
        main(options(data=str(tree), epochs=3, validation=0.25, out=name))
    best = [torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("run", "other")]
    assert best[0]["epoch"] == best[1]["epoch"]
    assert all(torch.equal(weight, best[1]["model"][name]) for name, weight in best[0]["model"].items())
    rows = [without_times(read_metrics(tmp_path / name)) for name in ("run", "other")]
    assert rows[0] == rows[1]


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("validation", [None, 0.25])
def test_training_validation_and_test_images_are_posed_and_test_images_always_alike(
    tree: Path, tmp_path: Path, validation: float | None
) -> None:
    """The figures show the images that were tested."""
    dataset, poses = load(str(tree)), POSES["rts"]
    seen: list[Trainer] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda self, _: seen.append(self) or fit(self))
        for seed in (1, 2):
            main(options(data=str(tree), epochs=1, seed=seed, pose="rts", validation=validation, out=f"run{seed}"))
    kept = dataset.train.divided(validation) if validation else (dataset.train, dataset.test)
    for trainer in seen:
        assert trainer.plan.poses == poses
        assert torch.equal(trainer.train.images, kept[0].images), "upright: they are posed in every batch"
        assert torch.equal(trainer.held_out.images, posed_split(kept[1], poses).images)
    tested = posed_split(dataset.test, poses).images
    for seed in (1, 2):
        found = torch.load(tmp_path / f"run{seed}" / "findings.pt", weights_only=True)
        assert torch.equal(found["transformer_inputs"], tested[evenly_spaced(len(tested))])
        wrong = found["wrong_images"]
        assert ((wrong[:, None] == tested).flatten(2).all(2)).any(1).all()


@pytest.mark.usefixtures("_undrawn")
def test_without_the_transformer_there_is_no_theta(tree: Path, tmp_path: Path) -> None:
    main(options(data=str(tree), recipe="tuned", epochs=1, no_transformer=True, out="run"))
    assert not any(name.startswith("theta") for name in read_metrics(tmp_path / "run")[0])
    assert not (tmp_path / "run" / "transformer.png").exists()
    assert (tmp_path / "run" / "grad_cam.png").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["parameters"] == 31_340 - 7 * 51


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("no_transformer", [False, True])
@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_in_every_pose_with_and_without_transformer(
    recipe: str, pose: str, no_transformer: bool, tree: Path, tmp_path: Path
) -> None:
    main(options(data=str(tree), recipe=recipe, pose=pose, no_transformer=no_transformer, epochs=1, out="run"))
    (row,) = read_metrics(tmp_path / "run")
    assert math.isfinite(row["train_loss"])
    assert ("theta_spread" in row) == (not no_transformer)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert ("pose_correlation" in summary) == (pose != "none" and not no_transformer)


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_learns_poses_resumes_with_the_same_bits(step: int, tree: Path, tmp_path: Path) -> None:
    """Stopped within its first or second epoch, or after it; batch norm has a state that no optimizer knows."""
    given = {"data": str(tree), "recipe": "small", "pose": "rts", "batch_size": 10, "epochs": 2}
    main(options(**given, out="whole"))
    with at_step(step, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
        main(options(**given, out="run"))
    main(parse(Options, "train_stn", ["--resume", "run"]))
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("run", "whole"))
    assert any("running_mean" in name for name in one)
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert without_times(read_metrics(tmp_path / "run")) == without_times(read_metrics(tmp_path / "whole"))


@pytest.mark.usefixtures("_no_report")
def test_test_time_augmentation_changes_the_test_results_alone_and_the_summary_names_it(
    tree: Path, tmp_path: Path
) -> None:
    """Neither training nor theta; and a run does not resume with another one."""
    for tta in ("none", "mirror", "turns"):
        main(options(data=str(tree), recipe="small", epochs=2, pose="c8", tta=tta, out=tta))
    (plain, *others) = (without_times(read_metrics(tmp_path / tta)) for tta in ("none", "mirror", "turns"))
    for rows in others:
        different = {name for row, one in zip(rows, plain, strict=True) for name in row if row[name] != one[name]}
        assert {"test_loss"} <= different <= {"test_loss", "test_accuracy"}
    summary, config = (tmp_path / "mirror" / f"{name}.json" for name in ("summary", "config"))
    assert json.loads(summary.read_text())["tta"] == "mirror"
    summary.unlink()
    changed = json.loads(config.read_text())
    changed["asked"]["tta"] = "turns"
    config.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"must keep the same tta; it was mirror and is now turns$"):
        main(parse(Options, "train_stn", ["--resume", "mirror"]))


@pytest.mark.usefixtures("_no_report")
def test_the_summary_says_what_the_last_epoch_has_without_test_time_augmentation(tmp_path: Path) -> None:
    """With validation images too, where the best epoch is tested as well."""
    digits = {"data": "digits", "limit_train": 500, "limit_test": 200, "validation": 0.2, "pose": "c8"}
    for tta in ("none", "turns"):
        main(options(recipe="tuned", epochs=3, batch_size=20, tta=tta, out=str(tmp_path / tta), **digits))
    alone, averaged = (json.loads((tmp_path / tta / "summary.json").read_text()) for tta in ("none", "turns"))
    assert "test_accuracy_without_tta" not in alone
    assert averaged["test_accuracy_without_tta"] == alone["test_accuracy"]


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize(("began", "now"), [(FAST_CPU, PLAIN_CPU), (PLAIN_CPU, FAST_CPU)], ids=("from", "to"))
def test_a_run_goes_on_as_the_machine_that_it_began_on_decided(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, began: Machine, now: Machine
) -> None:
    """Another kind of CPU would compute in another type, and compile or not."""
    monkeypatch.setattr("scripts.experiment.this_machine", lambda device: began)
    with at_step(2, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
        main(options(data=str(tree), recipe="tuned", epochs=3, precision=None, out="run"))
    monkeypatch.setattr("scripts.experiment.this_machine", lambda device: now)
    capsys.readouterr()
    main(parse(Options, "train_stn", ["--resume", "run"]))
    slow = "goes on in bfloat16, which this machine has no instructions for, far more slowly than it began\n"
    assert capsys.readouterr().err == (f"WARNING: run {slow}" if began == FAST_CPU else "")
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize(("recipe", "given", "name", "was", "now"), [
    ("tuned", {"precision": None}, "precision", "int8", this_machine(torch.device("cpu")).precision("auto")),
    ("tuned", {"precision": "float32"}, "precision", "bfloat16", "float32"),
    ("tutorial", {"precision": None}, "precision", "bfloat16", "float32"),
    ("tuned", {"compile": "no"}, "compiled", True, False),
])  # fmt: skip
def test_only_what_auto_decided_is_taken_over(
    tree: Path, tmp_path: Path, recipe: str, given: dict[str, Any], name: str, was: Any, now: Any
) -> None:
    with at_step(2, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
        main(options(**({"data": str(tree), "recipe": recipe, "epochs": 3, "out": "run"} | given)))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["resolved"][name] = was
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"must keep the same {name}; it was {was} and is now {now}$"):
        main(parse(Options, "train_stn", ["--resume", "run"]))


@pytest.mark.usefixtures("_no_report")
def test_a_compiled_run_needs_a_compiler_to_go_on(tree: Path, tmp_path: Path, monkeypatch) -> None:
    with at_step(2, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
        main(options(data=str(tree), recipe="tuned", epochs=3, out="run"))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["resolved"]["compiled"] = True
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("scripts.experiment.this_machine", lambda device: BARE_CPU)
    wanted = "--resume (run) needs a C++ compiler such as g++ with Python.h, as its steps are compiled"
    with pytest.raises(InputError, match=f"^{re.escape(wanted)}; there is none for cpu$"):
        main(parse(Options, "train_stn", ["--resume", "run"]))


@pytest.mark.parametrize("find_lr", [False, True])
def test_a_compiler_that_does_not_work_is_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch, find_lr: bool) -> None:
    """No look at the machine shows it, as where nothing in the temporary folder may be executed."""
    from torch._dynamo.exc import BackendCompilerFailed  # takes as long as the import of torch

    def compiles(*_: object) -> None:
        raise BackendCompilerFailed(compiles, OSError("noexec\nand a page more"), None)

    for place in ("trainer", "range_test"):
        monkeypatch.setattr(f"scripts.training.{place}.train_step", compiles)
    wanted = r"^--compile must be no, or torch\.compile must work here; OSError: noexec$"
    with pytest.raises(InputError, match=wanted):
        main(options(data=str(tree), find_lr=find_lr, out="run"))


@pytest.mark.usefixtures("_no_report")
def test_every_flag_reaches_the_configuration(tree: Path, tmp_path: Path) -> None:
    given = ["--recipe", "tutorial", "--data", str(tree), "--steps", "1", "--seed", "9", "--batch-size", "5",
             "--at-once", "3", "--save-minutes", "5", "--lr", "0.003", "--device", "cpu", "--precision", "float32",
             "--limit-train", "10", "--limit-test", "4", "--validation", "0.2", "--compile", "no", "--no-transformer",
             "--pose", "c8", "--tta", "mirror", "--tensorboard", "--out", "run"]  # fmt: skip
    parsed = parse(Options, "train_stn", given)
    defaults = parse(Options, "train_stn", [])
    assert all(
        value != getattr(defaults, name) for name, value in vars(parsed).items() if name not in ("resume", "find_lr")
    )
    settings = {field.name for field in fields(Recipe) if field.metadata}
    assert parsed.changes.keys() == settings - {"epochs"}, "replaced by --steps"
    main(parsed)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["asked"] == flag_values(parsed)
    expected = {"lr": 0.003, "batch_size": 5, "steps": 1, "at_once": 3}
    expected |= {"train_images": 7, "test_images": 4}  # one of each class held out
    expected["poses"] = {"turns": 8, "angle": 0.0, "scale": [1.0, 1.0], "shift": 0.0}
    assert expected.items() <= config["resolved"].items()


def finished_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finish the run again, as if it had been killed at its end, from another folder than the one it started in."""
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    main(parse(Options, "train_stn", ["--resume", "../run"]))
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.usefixtures("_no_report")
def test_a_run_on_a_relative_folder_resumes_from_any_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    main(options(data="photos", epochs=1, out="run"))
    said = "1 file that is not an image: 1 .txt"
    assert f"left out: {said}\n" in (tmp_path / "run" / "train.log").read_text()
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["left_out"] == said
    finished_elsewhere(tmp_path, monkeypatch)


@pytest.mark.usefixtures("_no_report")
def test_a_source_that_is_named_is_no_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "begun" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "begun")
    main(options(data="digits", steps=1, limit_train=20, limit_test=5, out=str(tmp_path / "run")))
    finished_elsewhere(tmp_path, monkeypatch)


def test_a_last_epoch_of_only_skipped_steps_leaves_a_summary_that_is_json(tree: Path, tmp_path: Path) -> None:
    made: list[Outcome] = []

    def second_skipped(*given: Any) -> Outcome:
        made.append(train_step(*given))
        return made[0] if len(made) == 1 else Outcome(math.nan, 0.0, False, "as asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.training.trainer.train_step", second_skipped)
        main(options(data=str(tree), recipe="tuned", epochs=2, batch_size=24, out="run"))

    def refuse(name: str) -> None:
        raise ValueError(name)

    text = (tmp_path / "run" / "summary.json").read_text()
    assert json.loads(text, parse_constant=refuse)["train_accuracy"] is None
    assert "every step was skipped" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.usefixtures("_no_report")
def test_resume_auto_starts_goes_on_or_does_nothing_whichever_is_right(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = partial(options, data=str(tree), epochs=2, out="run", resume="auto", limit_train=40, batch_size=8)
    (tmp_path / "run").mkdir()
    for name in (".lock", "environment.json", f".config.json.{0:032}.part"):  # of a run that died as it began
        (tmp_path / "run" / name).touch()
    with at_step(4, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
        main(again())
    main(again())
    main(options(data=str(tree), epochs=2, out="whole", limit_train=40, batch_size=8))
    assert without_times(read_metrics(tmp_path / "run")) == without_times(read_metrics(tmp_path / "whole"))
    last = (tmp_path / "run" / "last.pt").read_bytes()
    half_written = tmp_path / "run" / f".report.html.{0:032}.part"
    half_written.touch()
    drawing = RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match="must not be in use"):  # the process that finished the run is at its report
        main(again())
    drawing.release()
    assert half_written.exists()
    capsys.readouterr()
    main(again())
    assert not half_written.exists()
    assert capsys.readouterr().out == "the run in run is finished\nReport: run/report.html\n", "it died before that"
    (tmp_path / "run" / "report.html").touch()
    main(again())
    assert capsys.readouterr().out == "the run in run is finished\n"
    assert (tmp_path / "run" / "last.pt").read_bytes() == last
    (tmp_path / "run" / "summary.json").unlink()
    main(again())
    assert "Report: run/report.html\n" in capsys.readouterr().out, "an older report is drawn anew"


@pytest.mark.usefixtures("_no_report")
def test_resume_auto_leaves_a_run_alone_that_another_process_has_in_hand(tree: Path, tmp_path: Path) -> None:
    again = partial(options, data=str(tree), epochs=2, out="run", resume="auto", limit_train=40, batch_size=8)
    refused = []

    def second() -> None:
        with pytest.raises(
            InputError, match=r"^run folder \(run\) must not be in use; another process is writing to it$"
        ):
            main(again())
        refused.append(True)

    with at_step(3, second):
        main(again())
    main(options(data=str(tree), epochs=2, out="whole", limit_train=40, batch_size=8))
    assert refused == [True]
    assert without_times(read_metrics(tmp_path / "run")) == without_times(read_metrics(tmp_path / "whole"))


@pytest.mark.usefixtures("_no_report")
def test_a_run_of_an_earlier_version_of_the_kit_is_named_as_such(tree: Path, tmp_path: Path) -> None:
    """Before its plan is compared: that has other names too."""
    main(options(data=str(tree), epochs=1, out="run"))
    (tmp_path / "run" / "summary.json").unlink()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"resolved": {"dropout": 0.0}}))
    RunFolder.reopen(tmp_path / "run").keep({"version": 3})
    with pytest.raises(InputError, match=r"must hold a checkpoint of version 5, as this kit writes; its version is 3$"):
        main(parse(Options, "train_stn", ["--resume", "run"]))


@pytest.mark.long
@pytest.mark.usefixtures("_undrawn")
def test_a_terminated_run_resumes_with_the_command_that_it_prints(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["scripts.train_stn", "--device", "cpu", "--data", "photos", "--epochs", "40", "--precision", "float32"]
    _, errors, code = terminated([*given, "--out", "run"], tmp_path, "Epoch 25/40")
    assert code == 128 + 15
    peaks = [row["peak_memory_mib"] for row in read_metrics(tmp_path / "run")]
    assert 100 < peaks[0] < 4000, "Python with torch"
    assert peaks == sorted(peaks)
    assert peaks[-1] - peaks[4] < 3, "the images of 20 epochs would be 6 MiB"
    stopped = r"train_stn: stopped by SIGTERM after \d+ epochs and \d steps"
    command = re.fullmatch(stopped + r"; to resume: \S+ -m scripts.train_stn (.*)\n", errors)
    assert command, errors
    main(parse(Options, "train_stn", command[1].split()))
    monkeypatch.setattr(page, "write_report", lambda folder: folder)
    main(options(data="photos", epochs=40, out="whole"))
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("run", "whole"))
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert (tmp_path / "run" / "report.html").exists()
    log = (tmp_path / "run" / "train.log").read_text()
    assert re.findall(r"^Epoch (\d+)/40", log, re.MULTILINE) == [str(epoch + 1) for epoch in range(40)]


@pytest.mark.usefixtures("_no_report")
def test_a_signal_in_the_last_epoch_stops_the_run_too(tree: Path, tmp_path: Path) -> None:
    """A study would go on to its next run; a test set may take minutes."""
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM after 1 epochs and 0 steps$"):  # noqa: SIM117
        with at_step(1, lambda: signal.raise_signal(signal.SIGTERM)):
            main(options(data=str(tree), epochs=1, batch_size=1000, out="run"))
    assert not (tmp_path / "run" / "summary.json").exists()
    main(parse(Options, "train_stn", ["--resume", "run"]))
    assert all((tmp_path / "run" / needed).exists() for needed in NEEDED_BY_THE_REPORT)


@pytest.mark.usefixtures("_no_report")
def test_a_signal_behind_the_last_epoch_names_the_run(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "tested", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Stopped, match=r"^stopped by SIGTERM after 1 epochs, before the report$") as stopped:
            main(options(data=str(tree), epochs=1, out="run"))
    assert stopped.value.folder == "run"
    main(parse(Options, "train_stn", ["--resume", "run"]))
    assert all((tmp_path / "run" / needed).exists() for needed in NEEDED_BY_THE_REPORT)


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("name", ["findings.pt", "summary.json"])
def test_a_run_that_dies_after_its_last_epoch_resumes_and_writes_all_files(
    name: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary marks the run as finished, so everything that the report needs must exist by then."""
    rename = Path.replace

    def dying(part: Path, target: Path) -> Path:
        if target.name == name:
            raise KeyboardInterrupt
        return rename(part, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            main(options(data=str(tree), epochs=1, out="run"))
    main(parse(Options, "train_stn", ["--resume", "run"]))
    assert all((tmp_path / "run" / needed).exists() for needed in NEEDED_BY_THE_REPORT)


@pytest.mark.usefixtures("_no_report")
def test_the_tutorial_recipe_is_exactly_the_published_run(tree: Path, tmp_path: Path) -> None:
    main(options(data=str(tree), recipe="tutorial", epochs=1, precision=None, out="run"))
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    assert (resolved["lr"], resolved["batch_size"], resolved["network"]) == (0.01, 256, {"dropout": 0.5})
    assert resolved["normalise"] == {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}
    assert resolved["augment"] == asdict(Augment(shift=0))
    assert resolved["precision"] == "float32"
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["optimizers"][0]["param_groups"][0]
    assert (saved["lr"], saved["momentum"], saved["weight_decay"], saved["nesterov"]) == (0.01, 0.9, 0, False)
    assert parse(Options, "train_stn", []).seed == 1


def test_a_full_disk_ends_the_run_with_one_line_and_no_partial_file(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint is larger than 64 kB."""
    load(str(tree))  # writes the cache of images
    with full_disk(), pytest.raises(SystemExit) as stopped:
        command_line.run(lambda: main(options(data=str(tree), epochs=1, out="run")), "train_stn")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "train_stn: error: cannot write run/.following.pt: File too large\n"
    whole = {".lock", "config.json", "environment.json", "train.log"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == whole


@pytest.mark.usefixtures("_undrawn")
def test_offline_auto_uses_digits_and_announces_it_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    go_offline(monkeypatch)
    main(options(data="auto", epochs=1, limit_train=100, limit_test=50, out="run"))
    lines = capsys.readouterr().out.splitlines()
    notices = [i for i, line in enumerate(lines) if line.startswith("NOTICE: CIFAR-10 is not available")]
    assert len(notices) == 2
    assert notices[0] < 3
    assert notices[1] > len(lines) - 5
    assert "CIFAR-10 is not available" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert json.loads(lines[-1])["dataset"] == "digits"


def test_help_names_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Options, "train_stn", ["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    given = [*flag_values(parse(Options, "train_stn", [])), *(each.name for each in fields(Recipe) if each.metadata)]
    assert all(f"--{name.replace('_', '-')} " in text for name in given)
    assert "(default: small)" in text
