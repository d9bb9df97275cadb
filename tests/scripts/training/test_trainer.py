"""The loop: it learns, twice the same, in full view, and keeps the last and the best."""

import io
import math
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scripts import train_stn, train_vit
from scripts.data.datasets import Split
from scripts.models.stn import STNClassifier
from scripts.models.vit import VisionTransformer
from scripts.run.folder import read_metrics
from scripts.run.theta import theta_statistics
from scripts.subjects import stn as subject_stn
from scripts.subjects import vit as subject_vit
from scripts.system.errors import Stopped
from scripts.system.signals import Asked
from scripts.training import trainer as training
from scripts.training.evaluation import Evaluation
from scripts.training.schedule import Schedule
from scripts.training.trainer import Trainer
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.runs import dots, trainer

pytestmark = pytest.mark.numerics


def test_it_learns_and_writes_a_row_an_epoch(tmp_path: Path) -> None:
    rows = trainer(tmp_path / "run").fit()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["test_accuracy"] == 100
    kept = read_metrics(tmp_path / "run")
    assert [list(row) for row in kept] == [list(row) for row in rows]
    assert kept[-1]["test_loss"] == pytest.approx(rows[-1]["test_loss"], rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> Tensor:
        run = trainer(tmp_path / name, seed=seed)
        run.fit()
        return run.model[1].weight

    first = weights("a", 0)
    assert torch.equal(weights("b", 0), first)
    assert not torch.equal(weights("c", 1), first)


@pytest.mark.parametrize(("changes", "whole"), [({}, 8), ({"at_once": 3}, 3), ({"batch_size": 40, "steps": 3}, 30)])
def test_a_compiled_run_trains_whole_batches_compiled_evaluates_as_it_is_and_leaves_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], whole: int
) -> None:
    seen = set()
    compiler = torch.compile

    def compile(model: nn.Module, *, dynamic: bool) -> nn.Module:
        assert not dynamic, "a run that is stopped and goes on would meet another graph, of other bits"

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
    saved = compiled.folder.last_sound()
    assert saved is not None
    torch.testing.assert_close(saved["model"], eager.model.state_dict())


def test_the_log_speaks_as_the_published_run_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(tmp_path / "run", steps=4).fit()
    log = (tmp_path / "run" / "train.log").read_text()
    assert capsys.readouterr().out == log
    first, second, third = log.splitlines()
    assert first == "Epoch 1/1, learning rate 0.05"
    assert second.startswith("Train set: Average loss: 0.")
    assert third.startswith("Test set: Average loss: 0.")
    assert third.endswith("%)")


def test_in_a_terminal_a_bar_shows_running_loss_and_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    trainer(tmp_path / "run", steps=50, train=dots(400, seed=1)).fit()
    assert re.search(r"1/1: .* \d+/50 .*loss 0\.\d{4}, accuracy \d\d\.\d\d%\]", sys.stderr.getvalue())


def test_the_test_line_is_that_of_the_published_run() -> None:
    labels = torch.zeros(10000, dtype=torch.long)
    logits = torch.zeros(10000, 2)
    logits[6018:, 1] = 1.0
    logits[:6018, 0] = 1.0
    result = Evaluation(logits, labels, None)
    assert result.line("test") == f"Test set: Average loss: {result.loss:.4f}, Accuracy: 6018/10000 (60.18%)"


def test_training_loss_and_accuracy_are_means_over_the_images_not_the_batches(tmp_path: Path) -> None:
    """30 images in batches of 8 leave a batch of 6, which must not weigh as much as the others."""
    frozen = trainer(tmp_path / "run", steps=4, schedule=lambda done: 0.0)
    (row,) = frozen.fit()
    expected = frozen.evaluate(frozen.train)
    assert row["train_loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(expected.accuracy)


class Lazy:
    """Time on a device that has not begun a step when the call returns, and does each in so many seconds."""

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


def test_times_are_read_once_the_device_has_done_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last pass of a batch, or of an evaluation, is waited for, and its time is told of what it belongs to."""
    run = trainer(tmp_path / "run", steps=8, at_once=5)
    Lazy(monkeypatch, run, seconds=2.0)
    for row in run.fit():
        assert row["train_seconds"] == 2.0 * 4 * 2, "each of 4 batches in two passes"
        assert row["images_per_second"] == 30 / row["train_seconds"]
        assert row["test_seconds"] == 2.0 * 3


def test_a_checkpoint_within_an_epoch_knows_the_time_of_all_its_steps(
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
    assert best["epoch"] == 1 + accuracies.index(max(accuracies)), "the first of the best"
    assert best["metrics"]["test_accuracy"] == max(accuracies)


def test_what_the_model_reports_becomes_columns_and_a_line_each_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(tmp_path / "run", predict=lambda x: (torch.zeros(len(x), 2), x.flatten(1)))
    rows = run.fit()
    expected = run.prepare(run.held_out.images).mean().item()
    assert [row["extra_mean"] for row in rows] == pytest.approx([expected] * 3)
    assert capsys.readouterr().out.count(f"\nmean {expected:.3f}\n") == 3


def test_evaluation_neither_trains_nor_drops(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 2))
    run = trainer(tmp_path / "run", model=model, predict=lambda x: (model(x), None))
    first, second = run.evaluate(run.held_out), run.evaluate(run.held_out)
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad


def test_a_run_may_begin_with_an_evaluation(tmp_path: Path) -> None:
    """What is made in inference mode and kept, such as the constants of the normalisation, serves training too."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 2))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05)]
    run = trainer(tmp_path / "run", model=model, optimizers=optimizers, predict=lambda x: (model(x), None))
    run.evaluate(run.held_out)
    assert len(run.fit()) == 3


def test_bfloat16_is_used_on_request_and_results_are_float32(tmp_path: Path) -> None:
    seen = []

    def predict(x: Tensor) -> tuple[Tensor, None]:
        logits = run.model(x)
        seen.append(logits.dtype)
        return logits, None

    run = trainer(tmp_path / "run", precision="bfloat16", predict=predict)
    assert run.evaluate(run.held_out).logits.dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_one_cycle_rises_to_one_and_falls_to_zero_linearly() -> None:
    factor = Schedule("linear", warm_up=0.2)
    assert [factor(done) for done in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_the_learning_rate_follows_the_schedule_over_all_steps(tmp_path: Path) -> None:
    used: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            used.append(self.param_groups[0]["lr"])
            super().step(closure)

    run = trainer(tmp_path / "run", steps=20, schedule=Schedule("linear", warm_up=0.2))
    spies = [Spy(run.model.parameters(), lr=2.0)]
    trainer(tmp_path / "again", model=run.model, predict=run.predict, optimizers=spies, steps=20,
            schedule=Schedule("linear", warm_up=0.2)).fit()  # fmt: skip
    assert len(used) == 5 * 4
    assert max(used) == pytest.approx(2.0, rel=0.2)
    assert used.index(max(used)) in (3, 4)
    assert used[-1] < 0.1


def test_cosine_rises_linearly_and_falls_as_half_a_cosine() -> None:
    factor = Schedule("cosine", warm_up=0.2)
    expected = [0, 0.5, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0]
    assert [factor(done) for done in (0, 0.1, 0.2, 0.4, 0.6, 1)] == pytest.approx(expected)


@pytest.mark.parametrize("at_once", (1, 3, 7))
def test_a_batch_in_parts_steps_as_the_batch_at_once(at_once: int, tmp_path: Path) -> None:
    """The last batch has 6 of 30 images, and its last part fewer than the others."""
    whole = trainer(tmp_path / "whole", steps=5)
    parts = trainer(tmp_path / "parts", steps=5, at_once=at_once)
    rows = whole.fit(), parts.fit()
    torch.testing.assert_close(parts.model.state_dict(), whole.model.state_dict(), atol=1e-6, rtol=1e-6)
    for one, other in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["train_accuracy"] == other["train_accuracy"]


def test_no_forward_pass_has_more_images_than_allowed(tmp_path: Path) -> None:
    seen: list[int] = []
    run = trainer(tmp_path / "run", steps=4, at_once=3)
    run.model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    run.fit()
    assert max(seen) == 3
    assert sum(seen) == 30 + 14


def test_the_norm_of_all_gradients_together_is_clipped_before_the_step(tmp_path: Path) -> None:
    norms: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            gradients = [parameter.grad for group in self.param_groups for parameter in group["params"]]
            norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

    for name, clip in (("free", None), ("clipped", 0.01)):
        run = trainer(tmp_path / name)
        trainer(tmp_path / f"{name}-again", model=run.model, predict=run.predict, steps=4, clip=clip, at_once=3,
                optimizers=[Spy(run.model.parameters(), lr=1.0)]).fit()  # fmt: skip
    assert min(norms[:4]) > 0.01
    assert norms[4:] == pytest.approx([0.01] * 4, rel=1e-3)


def test_a_run_may_end_within_an_epoch(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", steps=6)
    assert (run.plan.steps_an_epoch, run.plan.epochs) == (4, 2)
    used: list[float] = []
    run.model.register_forward_pre_hook(lambda module, given: used.append(len(given[0])) if module.training else None)
    rows = run.fit()
    assert used == [8, 8, 8, 6, 8, 8]
    assert [row["epoch"] for row in rows] == [1, 2]


@pretends_cuda
def test_an_evaluation_waits_for_a_gpu_as_often_whatever_it_has_to_evaluate(tmp_path: Path) -> None:
    """Once all is asked of it; and needs no float64 there, which Apple's GPUs lack."""
    counts = []
    with fake_cuda.gpu() as traffic:
        with torch.device("cuda:0"):
            model = STNClassifier()
        for count in (20, 60, 20):  # the first time also has constants to copy
            with torch.device("cuda:0"):
                split = Split(torch.zeros(count, 3, 32, 32, dtype=torch.uint8), torch.zeros(count, dtype=torch.long))
            run = trainer(
                tmp_path / str(len(counts)), model=model, predict=lambda x: model(x, return_theta=True), at_once=10,
                describe=lambda theta: (theta_statistics(theta, 32, 32), ""), train=split, held_out=split,
                image_size=(32, 32),
            )  # fmt: skip
            before = traffic.waits
            run.evaluate_epoch()
            counts.append(traffic.waits - before)
    assert counts[0] == counts[1] == counts[2] <= 8


@pretends_cuda
@pytest.mark.parametrize(("name", "copies"), [("tutorial", 1), ("tuned", 2), ("lite", 2)])
def test_a_step_waits_for_a_gpu_once(name: str, copies: int, tmp_path: Path) -> None:
    """For loss, hits and the norm of the gradients, together; what goes there are the draws of its augmentation."""
    recipe = {**train_stn.RECIPES, **train_vit.RECIPES}[name]
    with fake_cuda.gpu() as traffic:
        with torch.device("cuda:0"):
            model = STNClassifier() if name in train_stn.RECIPES else VisionTransformer.from_preset("lite", depth=2)
            images, labels = torch.zeros(40, 3, 32, 32, dtype=torch.uint8), torch.zeros(40, dtype=torch.long)
        subject = subject_stn if name in train_stn.RECIPES else subject_vit
        optimizers = subject.OPTIMIZERS[recipe.optimizer](model, recipe.lr)
        run = trainer(tmp_path / "run", model=model, optimizers=optimizers,
                      augment=recipe.augment, train=Split(images, labels), steps=100, clip=1.0,
                      image_size=(32, 32))  # fmt: skip
        state = run.begin()
        for _ in range(2):  # the first epoch also has constants to copy
            before = traffic.waits, traffic.copies
            state.progress.step = 0
            run.train_epoch(state, Asked())
    assert traffic.waits - before[0] == 5
    assert traffic.copies - before[1] == 1 + 5 * copies, "the order, and a batch's draws and results"
