"""The training loop: it learns, reproducibly, logs what it does, and saves the last and the best epoch."""

import io
import math
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scripts import train_stn, train_vit
from scripts.data.batches import shuffled, training_batches
from scripts.data.datasets import Split
from scripts.data.mixing import Mix
from scripts.data.poses import POSES, posed
from scripts.data.transforms import Augment
from scripts.models.stn import STNClassifier
from scripts.models.vit import VisionTransformer
from scripts.run.folder import read_metrics
from scripts.run.theta import theta_statistics
from scripts.subjects import stn as subject_stn
from scripts.subjects import vit as subject_vit
from scripts.system.errors import Stopped
from scripts.system.signals import Asked
from scripts.training import trainer as training
from scripts.training.schedule import Schedule
from scripts.training.step import Objective, cross_entropy
from scripts.training.trainer import Trainer
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.runs import at_step, dots, run, told_poses, trainer

pytestmark = pytest.mark.numerics


def test_it_learns_and_writes_a_row_an_epoch(tmp_path: Path) -> None:
    rows = trainer(tmp_path / "run").fit()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["test_accuracy"] == 100
    kept = read_metrics(tmp_path / "run")
    assert [list(row) for row in kept] == [list(row) for row in rows]
    assert kept[-1]["test_loss"] == pytest.approx(rows[-1]["test_loss"], rel=1e-5)


@pytest.mark.parametrize(("changes", "whole"), [({}, 8), ({"at_once": 3}, 3), ({"batch_size": 40, "steps": 3}, 30)])
def test_a_compiled_run_compiles_full_training_batches_only_and_saves_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], whole: int
) -> None:
    seen = set()
    compiler = torch.compile

    def compile(model: nn.Module, *, dynamic: bool) -> nn.Module:
        assert not dynamic, "a resumed run would get another graph, with other bits"

        def passed(*given: Tensor) -> Tensor:
            seen.add((model.training, *map(len, given)))
            return model(*given)

        return compiler(passed, backend="aot_eager", dynamic=dynamic)

    eager = trainer(tmp_path / "eager", **changes)
    rows = eager.fit()
    monkeypatch.setattr(torch, "compile", compile)
    compiled = trainer(tmp_path / "compiled", compiled=True, **changes)
    losses = [row["train_loss"] for row in rows]
    assert [row["train_loss"] for row in compiled.fit()] == pytest.approx(losses, rel=1e-5)
    assert seen == {(True, whole)}
    saved = compiled.folder.last_checkpoint()
    torch.testing.assert_close(saved["model"], eager.model.state_dict())


def test_the_log_has_the_lines_of_the_published_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(tmp_path / "run", steps=4).fit()
    log = (tmp_path / "run" / "train.log").read_text()
    assert capsys.readouterr().out == log
    first, second, third = log.splitlines()
    assert first == "Epoch 1/1, learning rate 0.05"
    assert second.startswith("Train set: Average loss: 0.")
    assert re.fullmatch(r"Test set: Average loss: 0\.\d{4}, Accuracy: \d+/14 \(\d+\.\d\d%\)", third)


def test_in_a_terminal_a_bar_shows_running_loss_and_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    trainer(tmp_path / "run", steps=50, train=dots(400, seed=1)).fit()
    assert re.search(r"1/1: .* \d+/50 .*loss 0\.\d{4}, accuracy \d\d\.\d\d%\]", terminal.getvalue())


def test_training_loss_and_accuracy_are_means_over_the_images_not_the_batches(tmp_path: Path) -> None:
    """Of 30 images in batches of 8, the last batch has 6 and must weigh less."""
    frozen = trainer(tmp_path / "run", steps=4, schedule=lambda done: 0.0)
    (row,) = frozen.fit()
    expected = frozen.evaluate(frozen.train)
    assert row["train_loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(expected.accuracy)


def test_the_objective_gets_each_batch_with_its_poses_in_the_planned_precision_and_makes_the_loss(
    tmp_path: Path,
) -> None:
    seen = []

    def objective(network: nn.Module, images: Tensor, labels: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((images, labels, poses, torch.is_autocast_enabled("cpu")))
        return network(images).float().square().sum(), 100.0 * nn.functional.one_hot(labels, 2)

    run = trainer(tmp_path / "run", steps=4, objective=objective, poses=POSES["rts"], precision="bfloat16")
    before = run.model[1].weight.clone()
    (row,) = run.fit()
    upright = trainer(tmp_path / "upright").train
    draw = run.begin().generator
    order = torch.cat(shuffled(upright, 8, draw))
    poses = [POSES["rts"].draws(count, draw) for count in (8, 8, 8, 6)]
    assert [torch.equal(given[2], pose) for given, pose in zip(seen, poses, strict=True)] == [True] * 4
    assert torch.equal(torch.cat([labels for _, labels, _, _ in seen]), upright.labels[order])
    expected = run.prepare(posed(upright.images[order], torch.cat(poses)))
    assert torch.equal(torch.cat([images for images, _, _, _ in seen]), expected)
    assert all(autocast for _, _, _, autocast in seen)
    assert row["train_accuracy"] == 100
    assert run.model[1].weight.norm() < before.norm(), "small logits are what this loss wants"


EVERYTHING = Augment(mirror=True, shift=1, crop=0.5, geometry=0.2, colour=0.1, cutout=1)


@pytest.mark.parametrize("at_once", (3, 64))
def test_every_image_reaches_the_objective_with_its_own_label(at_once: int, tmp_path: Path) -> None:
    """A bright image stays brighter than a dark one, whatever augmentation does; last batches and parts are smaller."""
    seen: list[tuple[Tensor, Tensor]] = []

    def objective(network: nn.Module, images: Tensor, labels: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((images, labels))
        return cross_entropy(network, images, labels, poses)

    made = trainer(tmp_path / "run", steps=8, objective=objective, augment=EVERYTHING, at_once=at_once)
    made.fit()
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    brightness = images.mean((1, 2, 3))
    assert torch.equal((brightness > made.prepare(torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)).mean()), labels > 0)
    assert torch.equal(labels.bincount(), 2 * made.train.labels.bincount()), "two epochs"


def test_what_anything_else_draws_changes_no_image_that_is_trained_on(tmp_path: Path) -> None:
    """Neither does what was drawn before the run, nor what evaluation draws."""

    def shown(name: str, draws: int) -> list[tuple[Tensor, ...]]:
        seen: list[tuple[Tensor, ...]] = []

        def draw() -> None:
            torch.rand(draws), np.random.rand(draws)  # noqa: NPY002 - the global generators are the point

        def objective(network: nn.Module, *batch: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(batch)
            draw()
            return cross_entropy(network, *batch)

        def predict(images: Tensor) -> tuple[Tensor, None]:
            draw()
            return torch.zeros(len(images), 2), None

        made = trainer(
            tmp_path / name, steps=8, objective=objective, predict=predict, augment=EVERYTHING, poses=POSES["rts"],
            mix=Mix(mixup=0.3, cutmix=0.3),
        )  # fmt: skip
        draw()
        made.fit()
        return seen

    quiet, noisy = shown("quiet", 0), shown("noisy", 5)
    assert len(quiet) == 8
    for one, other in zip(quiet, noisy, strict=True):
        assert [torch.equal(*pair) for pair in zip(one, other, strict=True)] == [True] * 3


@pytest.mark.parametrize("at_once", (1, 3, 5, 14, 64))
def test_evaluation_counts_every_image_once_those_of_a_smaller_last_batch_too(at_once: int, tmp_path: Path) -> None:
    made = trainer(tmp_path / "run", at_once=at_once)
    result = made.evaluate(made.held_out)
    assert torch.equal(result.labels, made.held_out.labels)
    assert len(result.logits) == len(made.held_out), "an image has no logits"
    with torch.no_grad():
        torch.testing.assert_close(result.logits, made.model(made.prepare(made.held_out.images)))
    assert made.evaluate_epoch()["test_accuracy"] == 100 * result.correct / 14


def test_without_an_objective_it_is_the_cross_entropy_with_the_label_smoothing_of_the_plan(tmp_path: Path) -> None:
    frozen = trainer(tmp_path / "run", steps=4, schedule=lambda done: 0.0, label_smoothing=0.2)
    (row,) = frozen.fit()
    logits = frozen.evaluate(frozen.train).logits
    truth, anything = (nn.functional.cross_entropy(logits, targets).item() for targets in (
        frozen.train.labels, torch.full_like(logits, 0.5),
    ))  # fmt: skip
    assert row["train_loss"] == pytest.approx(0.8 * truth + 0.2 * anything, rel=1e-5)


def test_of_mixed_images_every_class_counts_by_its_share(tmp_path: Path) -> None:
    """Loss and accuracy are linear in the shares: with both images in full they are those of the two labels."""
    frozen = trainer(tmp_path / "run", steps=4, schedule=lambda done: 0.0, mix=Mix(mixup=1.0))
    batches = list(training_batches(
        frozen.train, shuffled(frozen.train, 8, draw := frozen.begin().generator), frozen.prepare, Augment(), draw,
        mix=Mix(mixup=1.0), classes=2,
    ))  # fmt: skip
    (row,) = frozen.fit()
    logits = [frozen.model(images) for images, _, _ in batches]
    losses = [-(targets * scores.log_softmax(1)).sum() for scores, (_, targets, _) in zip(logits, batches, strict=True)]
    hits = [
        targets[range(len(targets)), scores.argmax(1)].sum()
        for scores, (_, targets, _) in zip(logits, batches, strict=True)
    ]
    assert row["train_loss"] == pytest.approx(sum(losses).item() / 30, rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(100 * sum(hits).item() / 30, rel=1e-5)


def test_before_each_epoch_the_share_of_the_run_that_is_done_is_told(tmp_path: Path) -> None:
    told = []
    made = trainer(tmp_path / "run", steps=12, before_epoch=told.append)
    made.fit()
    assert told == pytest.approx([0, 1 / 3, 2 / 3])
    with at_step(2, lambda: signal.raise_signal(signal.SIGTERM)):
        stopped = trainer(tmp_path / "stopped", steps=12, before_epoch=told.append)
        with pytest.raises(Stopped):
            stopped.fit()
    trainer(stopped.folder, steps=12, before_epoch=told.append).fit(stopped.folder.last_checkpoint())
    assert told[3:] == pytest.approx([0, 0, 1 / 3, 2 / 3])


class Lazy:
    """The time on an asynchronous device where each forward pass takes so many seconds."""

    def __init__(self, patch: pytest.MonkeyPatch, run: Trainer, seconds: float) -> None:
        self.now, self.given, self.seconds = 1000.0, 0.0, seconds
        run.model.register_forward_hook(self.give)
        patch.setattr(time, "perf_counter", lambda: self.now)
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(training, "clock", self.clock)

    def give(self, *_: object) -> None:
        self.given += self.seconds

    def clock(self, device: torch.device) -> float:
        assert device == torch.device("cpu")
        self.now += self.given
        self.given = 0.0
        return self.now


def test_times_include_the_work_that_the_device_still_has_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", steps=8, at_once=5)
    Lazy(monkeypatch, run, seconds=2.0)
    for row in run.fit():
        assert row["train_seconds"] == 2.0 * 4 * 2, "4 batches in two passes each"
        assert row["images_per_second"] == 30 / row["train_seconds"]
        assert row["test_seconds"] == 2.0 * 3


def test_a_checkpoint_within_an_epoch_has_the_time_of_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path / "run", steps=4)
    Lazy(monkeypatch, run, seconds=2.0)
    state, asked = run.begin(), Asked()
    asked.by = signal.SIGINT
    with pytest.raises(Stopped):
        run.train_epoch(state, asked)
    assert (state.progress.step, state.progress.seconds) == (1, 2.0)


def test_checkpoints_hold_the_last_and_the_best_epoch_and_load_without_running_code(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", steps=16)
    rows = run.fit()
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert last["epoch"] == 4
    assert torch.equal(last["model"]["1.weight"], run.model[1].weight)
    assert last["classes"] == ["dark", "bright"]
    accuracies = [row["test_accuracy"] for row in rows]
    assert best["epoch"] == 1 + accuracies.index(max(accuracies)), "the first of equal ones"
    assert best["metrics"]["test_accuracy"] == max(accuracies)


def test_the_second_output_of_the_model_becomes_columns_and_a_line_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(tmp_path / "run", predict=lambda x: (torch.zeros(len(x), 2), x.flatten(1)))
    rows = run.fit()
    expected = run.prepare(run.held_out.images).mean().item()
    assert [row["extra_mean"] for row in rows] == pytest.approx([expected] * 3)
    assert capsys.readouterr().out.count(f"\nmean {expected:.3f}\n") == 3


def test_evaluation_has_no_dropout_and_no_gradients_and_may_come_before_training(tmp_path: Path) -> None:
    """Constants of the normalisation that are made in inference mode must serve training too."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 2))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05)]
    run = trainer(tmp_path / "run", model=model, optimizers=optimizers, predict=lambda x: (model(x), None))
    first, second = run.evaluate(run.held_out), run.evaluate(run.held_out)
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad
    assert len(run.fit()) == 3


def test_evaluation_runs_in_the_planned_precision_and_returns_float32(tmp_path: Path) -> None:
    seen = []

    def predict(x: Tensor) -> tuple[Tensor, None]:
        logits = run.model(x)
        seen.append(logits.dtype)
        return logits, None

    run = trainer(tmp_path / "run", precision="bfloat16", predict=predict)
    assert run.evaluate(run.held_out).logits.dtype == torch.float32
    assert seen == [torch.bfloat16]


def turned(images: Tensor) -> list[Tensor]:
    return [posed(images, torch.tensor([[math.radians(45 * k), 0, 0, 0]]).expand(len(images), 4)) for k in range(8)]


VIEWS = {"none": lambda x: [x], "mirror": lambda x: [x, x.flip(-1)], "turns": turned}


@pytest.mark.parametrize("tta", VIEWS)
def test_logits_are_averaged_over_the_views_and_the_second_output_is_of_the_image_as_it_is(
    tta: str, tmp_path: Path
) -> None:
    made = run(tmp_path / "run", tta=tta, poses=POSES["c8"], at_once=3)
    views = [made.prepare(view) for view in VIEWS[tta](made.held_out.images)]
    assert all(not torch.equal(view, views[0]) for view in views[1:])
    result = made.evaluate(made.held_out)
    torch.testing.assert_close(result.logits, sum(made.model(view) for view in views).detach() / len(views))
    assert torch.equal(result.extra, views[0][:, 0, 0])


def test_without_views_the_logits_have_the_bits_of_the_model(tmp_path: Path) -> None:
    made = run(tmp_path / "run", precision="bfloat16", at_once=5)
    result = made.evaluate(made.held_out).logits
    with torch.autocast("cpu", torch.bfloat16):
        expected = [made.model(made.prepare(part)).float() for part in made.held_out.images.split(5)]
    assert torch.equal(result, torch.cat(expected))


def test_a_network_that_sees_no_difference_in_a_mirror_image_predicts_the_same(tmp_path: Path) -> None:
    def predict(images: Tensor) -> tuple[Tensor, None]:
        return images.mean(3).flatten(1)[:, :2], None

    one, other = (trainer(tmp_path / tta, tta=tta, predict=predict) for tta in ("none", "mirror"))
    torch.testing.assert_close(other.evaluate(other.held_out).logits, one.evaluate(one.held_out).logits)


def test_the_log_says_by_which_views_the_accuracy_was_reached(tmp_path: Path) -> None:
    run(tmp_path / "run", tta="mirror", steps=4).fit()
    *_, line, _ = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert re.fullmatch(r"Test set: .*, Accuracy: \d+/14 \(\d+\.\d\d%\), test-time augmentation: mirror", line)


@pytest.mark.parametrize(("fall", "middle"), [("linear", 0.75), ("cosine", (1 + math.cos(math.pi / 4)) / 2)])
def test_schedules_rise_linearly_and_fall_to_zero(fall: str, middle: float) -> None:
    factor = Schedule(fall, warm_up=0.2)
    assert [factor(done) for done in (0, 0.1, 0.2, 0.4, 0.6, 1)] == pytest.approx([0, 0.5, 1, middle, 0.5, 0])


def test_the_learning_rate_follows_the_schedule_over_all_steps(tmp_path: Path) -> None:
    used: list[float] = []
    schedule = Schedule("linear", warm_up=0.2)
    run = trainer(tmp_path / "run", steps=20, schedule=schedule)
    run.optimizers[0].register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    run.fit()
    assert used == pytest.approx([0.05 * schedule((step + 0.5) / 20) for step in range(20)])


@pytest.mark.parametrize("objective", (cross_entropy, told_poses))
@pytest.mark.parametrize("at_once", (1, 3, 7))
def test_a_batch_in_parts_makes_the_same_step(at_once: int, objective: Objective, tmp_path: Path) -> None:
    """The last batch has 6 of 30 images, and its last part may be smaller than the others."""
    whole = trainer(tmp_path / "whole", steps=5, objective=objective, poses=POSES["c8"])
    parts = trainer(tmp_path / "parts", steps=5, objective=objective, poses=POSES["c8"], at_once=at_once)
    seen: list[int] = []
    parts.model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    rows = whole.fit(), parts.fit()
    assert max(seen) == at_once
    torch.testing.assert_close(parts.model.state_dict(), whole.model.state_dict(), atol=1e-6, rtol=1e-6)
    for one, other in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["train_accuracy"] == other["train_accuracy"]


def test_the_norm_of_all_gradients_together_is_clipped_before_the_step(tmp_path: Path) -> None:
    def norms(clip: float | None) -> list[float]:
        found: list[float] = []
        run = trainer(tmp_path / str(clip), steps=4, clip=clip, at_once=3)
        weights = [*run.model.parameters()]
        run.optimizers[0].register_step_pre_hook(
            lambda *_: found.append(torch.cat([weight.grad.flatten() for weight in weights]).norm().item())
        )
        run.fit()
        return found

    assert min(norms(None)) > 0.01
    assert norms(0.01) == pytest.approx([0.01] * 4, rel=1e-3)


def test_a_run_may_end_within_an_epoch(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", steps=6)
    assert (run.plan.steps_an_epoch, run.plan.epochs) == (4, 2)
    used: list[float] = []
    run.model.register_forward_pre_hook(lambda module, given: used.append(len(given[0])) if module.training else None)
    rows = run.fit()
    assert used == [8, 8, 8, 6, 8, 8]
    assert [row["epoch"] for row in rows] == [1, 2]


@pretends_cuda
@pytest.mark.parametrize("tta", ["none", "mirror", "turns"])
def test_the_waits_of_an_evaluation_do_not_depend_on_the_number_of_images(tta: str, tmp_path: Path) -> None:
    """It also needs no float64 on the device, which Apple's GPUs lack."""
    counts = []
    with fake_cuda.gpu() as traffic:
        with torch.device("cuda:0"):
            model = STNClassifier()
        for count in (20, 60, 20):  # the first one also copies constants
            with torch.device("cuda:0"):
                split = Split(torch.zeros(count, 3, 32, 32, dtype=torch.uint8), torch.zeros(count, dtype=torch.long))
            run = trainer(
                tmp_path / str(len(counts)), model=model, predict=lambda x: model(x, return_theta=True), at_once=10,
                describe=lambda theta: (theta_statistics(theta, 32, 32), ""), train=split, held_out=split,
                image_size=(32, 32), tta=tta, poses=POSES["c8"],
            )  # fmt: skip
            before = traffic.waits
            run.evaluate_epoch()
            counts.append(traffic.waits - before)
    assert counts[0] == counts[1] == counts[2] <= 8


@pretends_cuda
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by the copy that is averaged
@pytest.mark.parametrize(("name", "copies"), [("tutorial", 1), ("tuned", 2), ("lite", 2), ("compact", 2)])
def test_a_step_waits_for_a_gpu_once(name: str, copies: int, tmp_path: Path) -> None:
    """For loss, hits and gradient norm together; the draws of the augmentation are copied to it."""
    recipe = {**train_stn.RECIPES, **train_vit.RECIPES}[name]
    with fake_cuda.gpu() as traffic:
        with torch.device("cuda:0"):
            model = STNClassifier() if name in train_stn.RECIPES else VisionTransformer.from_preset(name, depth=2)
            images, labels = torch.zeros(40, 3, 32, 32, dtype=torch.uint8), torch.zeros(40, dtype=torch.long)
        subject = subject_stn if name in train_stn.RECIPES else subject_vit
        optimizers = subject.OPTIMIZERS[recipe.optimizer](model, recipe)
        run = trainer(tmp_path / "run", model=model, optimizers=optimizers,
                      augment=recipe.augment, train=Split(images, labels), steps=100, clip=1.0,
                      averaged=recipe.averaged, image_size=(32, 32))  # fmt: skip
        state = run.begin()
        for _ in range(2):  # the first epoch also copies constants
            before = traffic.waits, traffic.copies
            state.progress.step = 0
            run.train_epoch(state, Asked())
    assert traffic.waits - before[0] == 5
    assert traffic.copies - before[1] == 1 + 5 * copies, "the order once, and draws and results of each batch"
