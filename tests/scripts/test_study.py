"""The studies: every arm is trained once, an interrupted one goes on, and arms are as equal as they claim."""

import json
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch

from scripts import study
from scripts.data.poses import POSES
from scripts.models.upright import UprightCNN
from scripts.models.vit import PRESETS
from scripts.recipes import vit_arms
from scripts.recipes.stn_arms import ARMS, RUNS
from scripts.recipes.study import STUDIES, Options
from scripts.recipes.vit import RECIPES
from scripts.system.errors import InputError, Stopped
from scripts.training.plan import Recipe
from scripts.training.trainer import Trainer
from tests.support.networks import TINY_PRESETS
from tests.support.runs import at_step, terminated


def cost(network: dict) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image."""
    total, model = [], UprightCNN(**network, fine=False).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, x, y: total.append(y.numel() * layer.weight[0].numel()))
    model(torch.zeros(1, 3, 32, 32))
    return sum(weight.numel() for weight in model.parameters()), sum(total)


def differences(recipe: Recipe, base: Recipe) -> set[str]:
    """The settings in which a recipe differs from another."""
    changed = {key for key in recipe.network if base.network.get(key) != recipe.network[key]}
    return changed | {key for key, value in vars(recipe).items() if key != "network" and value != vars(base)[key]}


def test_the_plain_network_costs_what_the_transformer_costs() -> None:
    (parameters, operations), plain = cost(ARMS["angle"].network), cost(ARMS["plain"].network)
    assert plain[0] == pytest.approx(parameters, rel=0.005)
    assert plain[1] == pytest.approx(operations, rel=0.005)


def test_an_ablation_differs_from_the_arm_that_it_belongs_to_in_one_setting() -> None:
    for name, recipe in ARMS.items():
        assert len(differences(recipe, ARMS[name.partition("-")[0]])) == ("-" in name), name
    assert {arm for arm, _ in RUNS} == ARMS.keys()
    assert {pose for _, pose in RUNS} == POSES.keys()
    assert len(set(RUNS)) == len(RUNS)


def test_an_arm_of_compact_is_the_recipe_with_one_change_and_fewer_epochs() -> None:
    recipe = vit_arms.COMPACT
    assert differences(recipe, RECIPES["compact"]) == {"epochs"}
    assert recipe.epochs < RECIPES["compact"].epochs
    assert next(iter(vit_arms.ARMS.values())) == recipe
    belongs = {"optimizer": {"lr"}, "patch_dropout": {"whole_images"}}  # what such a change needs
    seen = set()
    for name, arm in list(vit_arms.ARMS.items())[1:]:
        changed = differences(arm, recipe)
        main = changed - set().union(*(belongs.get(each, set()) for each in changed))
        assert len(main) == 1, name
        seen |= main
    parts = {"stem", "depth", "patch_dropout", "pool", "optimizer", "averaged", "label_smoothing", "augment", "mix"}
    assert seen == parts
    assert [arm for arm, _ in vit_arms.RUNS] == [*vit_arms.ARMS]


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    short = STUDIES["transformer"]._replace(runs=[("plain", "none"), ("angle", "rts")])
    monkeypatch.setitem(STUDIES, "transformer", short)
    monkeypatch.setattr("scripts.run.page.write_report", lambda folder: folder / "report.html")


@pytest.mark.usefixtures("_short")
def test_a_study_that_is_interrupted_goes_on_and_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(data="digits", out=str(tmp_path / "study"), seeds=2, epochs=2, limit_train=60, limit_test=20)
    began, fit = [], Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, *given: began.append(self.folder.path.name) or fit(self, *given))
    with at_step(1, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
        study.main(options)
    study.main(options)
    study.main(options)
    said = capsys.readouterr().out
    folders = [f"{arm}-seed{seed}" for arm in ("plain-none", "angle-rts") for seed in (1, 2)]
    assert began == [folders[0], *folders]
    assert sorted(path.name for path in (tmp_path / "study").glob("[!.]*")) == sorted(folders)
    for name in folders:
        config = json.loads((tmp_path / "study" / name / "config.json").read_text())
        summary = json.loads((tmp_path / "study" / name / "summary.json").read_text())
        assert f"{summary['recipe']}-{config['resolved']['pose']}-seed{summary['seed']}" == name
        accuracies = summary["test_accuracy_in_poses"]
        assert accuracies[config["resolved"]["pose"]] == pytest.approx(summary["best_test_accuracy"], abs=0.01)
        assert f"{name}: none {accuracies['none']:.2f} %, c8 {accuracies['c8']:.2f} %" in said


def test_the_study_of_compact_trains_vision_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = STUDIES["compact"]._replace(runs=[("no-convolutions", "none"), ("sequence-pooling", "none")])
    monkeypatch.setitem(STUDIES, "compact", short)
    monkeypatch.setattr("scripts.run.page.write_report", lambda folder: folder / "report.html")
    monkeypatch.setitem(PRESETS, "compact", TINY_PRESETS["compact"])
    study.main(Options(of="compact", data="digits", seeds=1, epochs=1, limit_train=40, limit_test=20))
    said = capsys.readouterr().out
    for arm in ("no-convolutions", "sequence-pooling"):
        summary = json.loads((tmp_path / "runs" / "study-compact" / f"{arm}-none-seed1" / "summary.json").read_text())
        assert f"{arm}-none-seed1: none {summary['best_test_accuracy']:.2f} %" in said
        assert f"| `{arm}` | 1 |" in said


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("done", [False, True])
def test_runs_of_a_study_with_other_flags_are_refused_finished_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """They would be averaged with the others."""
    flags = {"data": "digits", "out": str(tmp_path / "study"), "seeds": 1, "limit_train": 60, "limit_test": 20}
    trial = Options(epochs=2, **flags)
    if done:
        study.main(trial)
    else:
        with at_step(1, lambda: signal.raise_signal(signal.SIGTERM)), pytest.raises(Stopped):
            study.main(trial)
    with pytest.raises(InputError, match=r"^--epochs \(3\) must be 2, as in the run that .* holds$"):
        study.main(Options(epochs=3, **flags))


@pytest.mark.usefixtures("_short")
def test_a_damaged_or_foreign_summary_is_named_and_only_asked_seeds_are_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"data": "digits", "out": str(tmp_path), "epochs": 1, "limit_train": 60, "limit_test": 20}
    study.main(Options(seeds=2, **flags))
    path = tmp_path / "plain-none-seed2" / "summary.json"
    other = "must be the summary of a run of the study, with accuracies in every pose"
    whole = json.loads(path.read_text())
    odd = [whole | changed for changed in (
        {"dataset": []}, {"parameters": None}, {"best_test_accuracy": "x"}, {"theta_spread": True},
        {"test_accuracy_in_poses": {**whole["test_accuracy_in_poses"], "rts": "x"}},
    )]  # fmt: skip
    for content, found in (("{", "must be a JSON object"), *((json.dumps(each), other) for each in ({}, *odd))):
        path.write_text(content)
        with pytest.raises(InputError, match=rf"^{path} {found}"):
            study.main(Options(seeds=2, **flags))
        capsys.readouterr()
        study.main(Options(seeds=1, **flags))
        assert "| none | plain | 1 |" in capsys.readouterr().out


@pytest.mark.usefixtures("_short")
def test_a_study_goes_on_with_its_own_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``auto`` finds may change meanwhile; nothing is trained then."""
    flags = {"data": "digits", "epochs": 1, "limit_train": 60, "limit_test": 20, "out": str(tmp_path)}
    study.main(Options(seeds=1, **flags))
    for path in tmp_path.glob("*/summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": "cifar10"}))
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("a run was trained"))
    wanted = r"^--data \(digits\) must be cifar10, as in the finished runs in .*; it is digits$"
    with pytest.raises(InputError, match=wanted):
        study.main(Options(seeds=2, **flags))


@pytest.mark.parametrize("data", ["cluttered", "cluttered:photos"])
def test_scenes_are_refused_before_anything_is_written(tmp_path: Path, data: str) -> None:
    wanted = rf"^--data \({data}\) must be whole images; these are scenes$"
    with pytest.raises(InputError, match=wanted):
        study.main(Options(data=data, out=str(tmp_path / "study")))
    assert not (tmp_path / "study").exists()


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--out \(.*/file\) must be a folder that can be created; File exists$"):
        study.main(Options(data="digits", out=str(tmp_path / "file")))


@pytest.mark.usefixtures("_short")
def test_what_another_process_has_in_hand_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(data="digits", out=str(tmp_path), seeds=1, epochs=1, limit_train=60, limit_test=20)
    began, fit = [], Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, *given: began.append(self.folder.path.name) or fit(self, *given))
    with study.claimed(tmp_path / "plain-none-seed1") as mine:
        assert mine
        study.main(options)
    assert began == ["angle-rts-seed1"]
    assert "plain-none-seed1: another process is at it" in capsys.readouterr().out
    study.main(options)
    assert began == ["angle-rts-seed1", "plain-none-seed1"]


@pytest.mark.long
def test_a_study_that_is_terminated_says_how_it_goes_on(tmp_path: Path) -> None:
    flags = ["--data", "digits", "--out", "a study", "--seeds", "1", "--epochs", "500", "--limit-train", "60",
             "--limit-test", "20"]  # fmt: skip
    _, errors, code = terminated(["scripts.study", *flags], tmp_path, "Epoch 2/500")
    assert code == 128 + signal.SIGTERM
    said = f"study: stopped by SIGTERM after .*; to resume: \\S+ -m scripts.study {re.escape(shlex.join(flags))}\n"
    assert re.fullmatch(said, errors)
