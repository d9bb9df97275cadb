"""The range test: where a loss diverges, what is suggested, and that groups keep their ratios and seeds their curve."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scripts.run.folder import ReadOnlyFolder
from scripts.system.errors import Stopped
from scripts.system.signals import Asked
from scripts.training.range_test import HIGHEST, LOWEST, STEPS, RangeTest, range_test, smoothed
from scripts.training.step import cross_entropy
from scripts.training.trainer import MOST_SKIPPED, Trainer
from tests.support.runs import run, trainer
from tests.support.strategies import generator

pytestmark = pytest.mark.numerics


def small(folder: Path, **changes: Any) -> Trainer:
    """A run with randomness and optimizers of all kinds, which writes nothing."""
    return run(ReadOnlyFolder(folder), **changes)


def quadratic(folder: Path, curvature: float, momentum: float) -> Trainer:
    """Half the curvature times the square of the distance of a number from -1 or 1; batches differ in their mean."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)

    def objective(network: nn.Module, images: Tensor, labels: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        guess = network(torch.ones(1, 1)).squeeze()
        loss = 0.5 * curvature * (guess - (2.0 * labels - 1)).square().sum()
        return loss, torch.zeros(len(labels), 2)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    return trainer(ReadOnlyFolder(folder), model=model, objective=objective, optimizers=[optimizer])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("curvature", [0.5, 4.0, 30.0, 200.0])
def test_a_quadratic_diverges_within_a_factor_of_two_of_its_largest_stable_rate(
    curvature: float, momentum: float, tmp_path: Path
) -> None:
    """2 (1 + momentum) / curvature: from there on each step overshoots by more than it makes good."""
    found = range_test(quadratic(tmp_path, curvature, momentum))
    stable = 2 * (1 + momentum) / curvature
    assert found.diverged_at is not None
    assert stable / 2 < found.diverged_at < stable * 2
    assert found.suggestion is not None
    assert found.rates[0] < found.suggestion < stable


def test_every_group_of_every_optimizer_keeps_its_ratio_while_the_rate_rises(tmp_path: Path) -> None:
    made = small(tmp_path)
    made.optimizers[2].add_param_group({"params": [nn.Parameter(torch.zeros(2))], "lr": 0.3})
    peaks = [group["lr"] for optimizer in made.optimizers for group in optimizer.param_groups]
    seen: list[list[float]] = []

    def objective(*call: Any) -> tuple[Tensor, Tensor]:
        seen.append([group["lr"] for optimizer in made.optimizers for group in optimizer.param_groups])
        return made.objective(*call)

    found = range_test(Trainer(**{**vars(made), "objective": objective}))
    assert len(peaks) == 4
    for i, rates in enumerate(seen):
        factor = LOWEST * (HIGHEST / LOWEST) ** ((i + 0.5) / STEPS)
        assert rates == pytest.approx([peak * factor for peak in peaks])
        assert found.rates[i] == pytest.approx(made.plan.lr * factor)
    assert len(seen) == len(found.rates) == len(found.losses)


def test_the_same_seed_gives_the_same_curve_and_writes_nothing(tmp_path: Path) -> None:
    first, same, other = (range_test(small(tmp_path, seed=seed)) for seed in (0, 0, 1))
    assert first == same
    assert first.losses != other.losses
    assert list(tmp_path.iterdir()) == []
    assert first.suggestion is not None
    assert first.rates[0] < first.suggestion < first.rates[-1]


def test_the_first_steps_are_those_of_a_run(tmp_path: Path) -> None:
    """Its batches, augmentation and poses, and its objective: at small rates the loss is that of the first epoch."""
    seen: dict[str, list[Tensor]] = {"run": [], "range test": []}
    for name, images in seen.items():
        made = small(tmp_path / name)
        made.model.register_forward_pre_hook(lambda _, given, images=images: images.append(given[0].clone()))
        if name == "run":
            made.train_epoch(made.begin(), Asked())
        else:
            range_test(made)
    assert len(seen["run"]) == 4
    assert len(seen["range test"]) > 100
    for one, other in zip(seen["run"], seen["range test"], strict=False):
        assert torch.equal(one, other)


def falling(found: float, start: float = 2.3, least: float = 1.3) -> RangeTest:
    """A loss that falls along a straight line over two powers of ten, up to that rate, and rises again."""
    rates = [1e-5 * 10 ** (i / 50) for i in range(300)]
    fall = [min(1.0, max(0.0, 1 - abs(math.log10(rate / found)) / 2)) for rate in rates]
    return RangeTest(rates, [start - (start - least) * share for share in fall], None)


@given(st.lists(st.floats(0, 9), max_size=40))
def test_a_smoothed_loss_is_the_median_of_those_around_it(losses: list[float]) -> None:
    around = [sorted(losses[max(0, i - 8) : i + 9]) for i in range(len(losses))]
    assert smoothed(losses) == [(each[(len(each) - 1) // 2] + each[len(each) // 2]) / 2 for each in around]


@given(st.floats(1e-3, 1e-1), st.floats(0.5, 10), st.floats(0.0, 0.9))
def test_four_fifths_of_the_fall_are_done_at_the_suggested_rate(found: float, start: float, share: float) -> None:
    """Two fifths of a power of ten before the least loss, whatever the losses are; medians round off its tip."""
    suggestion = falling(found, start, share * start).suggestion
    assert suggestion is not None
    assert suggestion == pytest.approx(found * 10**-0.4, rel=0.2)


@given(st.integers(0, 2**31 - 1))
def test_neither_single_steps_nor_the_explosion_at_the_end_move_the_suggestion(seed: int) -> None:
    smooth = falling(1e-2)
    losses = list(smooth.losses)
    for i in torch.randint(20, 280, (6,), generator=generator(seed)).unique().tolist()[::2]:
        losses[i] *= 50
        losses[i - 3] /= 50
    losses[-6:] = [1e3, 1e6, 1e9, 1e12, 1e15, 1e18]
    assert RangeTest(smooth.rates, losses, None).suggestion == pytest.approx(smooth.suggestion, rel=0.3)


@pytest.mark.parametrize(
    "losses", [[], [2.3] * 300, [2.3 + 0.01 * (i % 7) for i in range(300)], [2.3 + i for i in range(40)]]
)
def test_where_the_loss_does_not_fall_nothing_is_suggested(losses: list[float]) -> None:
    assert RangeTest([1e-5 * 1.05**i for i in range(len(losses))], losses, None).suggestion is None


def broken_at(steps: range) -> Any:
    """An objective whose loss is not finite in some calls."""
    calls = iter(range(10_000))

    def objective(network: nn.Module, *batch: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = cross_entropy(network, *batch)
        return loss * (math.nan if next(calls) in steps else 1.0), logits

    return objective


def test_a_loss_that_stays_not_finite_has_diverged_at_the_rate_of_its_first_step(tmp_path: Path) -> None:
    found = range_test(small(tmp_path, objective=broken_at(range(120, 10_000))))
    assert len(found.rates) == len(found.losses) == 120
    assert found.rates[-1] < found.diverged_at < found.rates[-1] * 1.05
    assert all(map(math.isfinite, found.losses))


def test_the_rate_does_not_rise_while_steps_are_skipped(tmp_path: Path) -> None:
    """As float16 skips a few at first, until its gradient scale fits."""
    whole = range_test(small(tmp_path, objective=broken_at(range(0))))
    found = range_test(small(tmp_path, objective=broken_at(range(MOST_SKIPPED - 1))))
    assert found.rates[:100] == whole.rates[:100]
    assert len(found.rates) > 100


def test_a_signal_ends_it_after_the_step_and_promises_no_way_to_resume(tmp_path: Path) -> None:
    calls = iter(range(10_000))

    def objective(*call: Any) -> tuple[Tensor, Tensor]:
        if next(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return cross_entropy(*call)

    with pytest.raises(
        Stopped, match=r"^stopped by SIGINT after 6 steps of the range test; nothing is kept$"
    ) as caught:
        range_test(small(tmp_path, objective=objective))
    assert (caught.value.by, caught.value.folder) == (signal.SIGINT, "")
    assert next(calls) == 7
    assert list(tmp_path.iterdir()) == []
