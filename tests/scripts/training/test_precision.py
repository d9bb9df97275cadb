"""Half precision trains like float32, and numbers that are not finite never reach a weight or a file."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scripts.data.mixing import UNMIXED
from scripts.system import command_line
from scripts.system.errors import Diverged
from scripts.training.trainer import MOST_SKIPPED, VERSION, Trainer
from tests.support.runs import run, trainer

pytestmark = pytest.mark.numerics

PLAIN = {"save_minutes": 60.0}


def poisoned(trainer: Trainer, *steps: int, value: float = math.nan, weight: str = "0.weight") -> Trainer:
    """Replace that gradient in these steps, counted over the whole run from 1."""
    count = 0

    def poison(gradient: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return torch.full_like(gradient, value) if count in steps else gradient

    trainer.model.get_parameter(weight).register_hook(poison)
    return trainer


def warnings(trainer: Trainer) -> list[str]:
    return re.findall("^WARNING: .*", (trainer.folder.path / "train.log").read_text(), re.MULTILINE)


@pytest.mark.parametrize("precision", ("bfloat16", "float16"))
@pytest.mark.parametrize("at_once", (1000, 3))
@pytest.mark.parametrize("clip", (None, 0.1))
def test_optimizers_see_the_gradients_of_float32(
    precision: str, at_once: int, clip: float | None, tmp_path: Path
) -> None:
    """Unscaled, clipped, and for a batch in parts."""

    def gradients(precision: str) -> dict[str, Tensor]:
        made = run(tmp_path / precision, precision=precision, at_once=at_once, clip=clip, steps=1, **PLAIN)
        made.model[2].p = 0.0
        seen: dict[str, Tensor] = {}
        made.optimizers[-1].register_step_pre_hook(
            lambda *given: seen.update({name: weight.grad.clone() for name, weight in made.model.named_parameters()})
        )
        made.fit()
        return seen

    exact, half = gradients("float32"), gradients(precision)
    total = torch.cat([gradient.flatten() for gradient in exact.values()]).norm()
    assert total == pytest.approx(0.1, rel=1e-4) if clip else total > 0.15
    for name, gradient in exact.items():
        assert half[name].dtype == torch.float32
        assert (half[name] - gradient).norm() < 0.02 * total, name
    assert any(not torch.equal(half[name], gradient) for name, gradient in exact.items()), "half precision was used"


def test_the_scaler_is_resumed_and_a_scale_that_is_too_large_falls_until_gradients_fit(tmp_path: Path) -> None:
    made = run(tmp_path / "run", precision="float16", **PLAIN)
    saved = {**made.about, "version": VERSION, "log_size": 0, **made.begin().saved()}
    saved["scaler"]["scale"] = 2.0**21
    rows = made.fit(saved)
    lines = warnings(made)
    assert 1 <= len(lines) < MOST_SKIPPED
    assert re.search(r"step 1 of epoch 1 is skipped: .* \(loss 0\.\d+, gradient scale 2\.09715e\+06\)$", lines[0])
    assert "gradient scale 1.04858e+06" in lines[1]
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    last = made.folder.last_checkpoint()
    assert last["scaler"]["scale"] == 2.0**21 / 2 ** len(lines)


@pytest.mark.parametrize("value", (math.nan, math.inf))
def test_a_gradient_that_is_not_finite_is_reported_and_its_step_skipped(value: float, tmp_path: Path) -> None:
    """Weights stay as before the step, and its images do not count."""
    made = poisoned(run(tmp_path / "run", **PLAIN), 6, value=value, weight="3.weight")
    before: list[dict[str, Tensor]] = []
    made.model.register_forward_pre_hook(
        lambda module, given: before.append({name: weight.clone() for name, weight in module.state_dict().items()})
        if module.training else None
    )  # fmt: skip
    rows = made.fit()
    (warning,) = warnings(made)
    assert re.fullmatch(
        r"WARNING: step 2 of epoch 2 is skipped: the gradient of 3\.weight is not finite \(loss \d\.\d+\)", warning
    )
    assert all(torch.equal(before[6][name], weight) for name, weight in before[5].items())
    assert any(not torch.equal(before[5][name], weight) for name, weight in before[4].items())

    assert re.search(r"Train set: .*/22 \(", (made.folder.path / "train.log").read_text()), "8 of 30 are not counted"
    assert all(math.isfinite(row["train_loss"]) for row in rows)


def test_a_loss_that_is_not_finite_is_reported_and_its_step_skipped(tmp_path: Path) -> None:
    """If the true class has probability 0, the loss is infinite and every gradient finite."""
    made = run(tmp_path / "run", **PLAIN, mix=UNMIXED)  # no share of a class, not even 0, may be multiplied by infinity
    count = 0

    def impossible(module: nn.Module, given: object, logits: Tensor) -> Tensor:
        nonlocal count
        count += module.training
        return logits + torch.tensor([-math.inf, 0.0]) if module.training and count == 2 else logits

    made.model.register_forward_hook(impossible)
    rows = made.fit()
    (warning,) = warnings(made)
    assert warning.startswith("WARNING: step 2 of epoch 1 is skipped: ")
    assert warning.endswith("(loss inf)")
    assert all(math.isfinite(row["train_loss"]) for row in rows)


def test_ten_skipped_steps_in_a_row_end_the_run_and_keep_its_last_checkpoint(tmp_path: Path) -> None:
    made = poisoned(run(tmp_path / "run", steps=30, **PLAIN), *range(3, 31))
    with pytest.raises(Diverged, match=r"^10 steps in a row were skipped, up to step 4 of epoch 3; the last"):
        made.fit()
    assert len(warnings(made)) == MOST_SKIPPED
    saved = made.folder.last_checkpoint()
    assert (saved["epoch"], saved["progress"]["skipped"]) == (2, 6)
    assert all(weight.isfinite().all() for weight in saved["model"].values())


def test_skipped_steps_that_are_not_in_a_row_do_not_end_the_run(tmp_path: Path) -> None:
    often = poisoned(run(tmp_path / "run", steps=30, **PLAIN), *(step for step in range(1, 30) if step % 10))
    often.fit()
    assert len(warnings(often)) == 27


def test_an_epoch_of_only_skipped_steps_has_no_loss(tmp_path: Path) -> None:
    rows = poisoned(run(tmp_path / "run", **PLAIN), 1, 2, 3, 4).fit()
    assert math.isnan(rows[0]["train_loss"])
    assert rows[0]["images_per_second"] == 0
    assert math.isfinite(rows[1]["train_loss"])


def test_a_run_that_diverges_before_its_first_checkpoint_speaks_of_none(tmp_path: Path) -> None:
    made = trainer(tmp_path / "run", schedule=lambda done: math.inf)
    with pytest.raises(Diverged, match=r"^1\.weight is not finite; lower --lr$"):
        made.fit()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """With an infinite learning rate a finite gradient is enough."""
    made = trainer(tmp_path / "run", schedule=lambda done: 1.0 if done < 0.6 else math.inf)
    with pytest.raises(Diverged, match=r"^1\.weight is not finite; the last checkpoint in .*/run is unchanged"):
        made.fit()
    saved = made.folder.last_checkpoint()
    assert saved["epoch"] == 1
    assert all(weight.isfinite().all() for weight in saved["model"].values())


def test_running_statistics_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """A forward pass updates them, also that of a step which is then skipped."""
    made = run(tmp_path / "run", **PLAIN)
    made.model.insert(1, nn.BatchNorm2d(4))
    state = made.begin()
    state.progress.step = 1
    made.save(state)
    made.model[1].running_var[2] = math.inf
    with pytest.raises(Diverged, match=r"^1\.running_var is not finite; the last checkpoint in .*/run is unchanged"):
        made.save(state)
    assert made.folder.last_checkpoint()["model"]["1.running_var"].isfinite().all()


def test_a_step_that_is_skipped_changes_no_running_statistic(tmp_path: Path) -> None:
    """One overflow would end the run at its next checkpoint, and again whenever it is resumed."""
    made = run(tmp_path / "run", **PLAIN)
    made.model.insert(1, norm := nn.BatchNorm2d(4))
    made.optimizers[1].add_param_group({"params": [*norm.parameters()]})
    seen: list[dict[str, Tensor]] = []

    def overflowing(norm: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        seen.append({name: value.clone() for name, value in norm.state_dict().items()})
        return (given[0] * math.inf,) if len(seen) == 2 else given

    norm.register_forward_pre_hook(overflowing)
    made.fit()
    assert all(torch.equal(value, seen[1][name]) for name, value in seen[2].items()), "the third step begins as before"
    assert len(warnings(made)) == 1
    assert norm.running_var.isfinite().all()


def test_a_network_that_predicts_nothing_but_nan_diverges_whatever_its_accuracy(tmp_path: Path) -> None:
    """The largest of ten NaN is the first, which may be right for most images; its weights are finite."""
    made = run(tmp_path / "run", **PLAIN)
    made.model.register_forward_hook(lambda model, given, out: out if model.training else out * math.nan)
    with pytest.raises(Diverged, match=r"^the test loss is not finite; "):
        made.fit()
    assert not (made.folder.path / "best.pt").exists()


def test_a_diverged_run_ends_with_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def diverge() -> None:
        raise Diverged("10 steps in a row were skipped")

    with pytest.raises(SystemExit) as stopped:
        command_line.run(diverge, "train_stn")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "train_stn: stopped: 10 steps in a row were skipped\n"
