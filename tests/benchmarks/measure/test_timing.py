"""Timing: the clock waits, calls are warm and alternate, outputs are checked, and intervals hold the truth."""

import itertools
import statistics
import time
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks.measure import timing

SECOND = torch.device("cuda:1")


class Device:
    """A second accelerator, which works on after a call has returned; the first one is the current one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.free = 0.0
        self.waited: list[torch.device | None] = []
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "synchronize", self.wait)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def launch(self, work: float) -> torch.Tensor:
        self.now += 1e-6
        self.free = max(self.free, self.now) + work
        return torch.ones(1)

    def wait(self, device: torch.device | None = None) -> None:
        self.waited.append(device)
        if device == SECOND:
            self.now = max(self.now, self.free)


def test_the_clock_waits_for_the_device_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    device.launch(10.0)  # earlier work does not count
    assert timing.sample(lambda: device.launch(0.25), SECOND) == pytest.approx(0.25, abs=1e-5)
    assert timing.sample(lambda: device.launch(0.25), SECOND, repeats=4) == pytest.approx(0.25, abs=1e-5)
    assert device.waited == 4 * [SECOND]


def test_numbers_of_calls_and_rounds_follow_the_time() -> None:
    assert timing.repeats(0.0004, least=0.005) == 13
    assert timing.repeats(3.0, least=0.005) == 1
    assert timing.affordable(2.0, 0.1) == 20
    assert timing.affordable(2.0, 5.0) == 7
    assert timing.affordable(2.0, 1e-6) == 1001


def test_a_warm_up_has_enough_calls_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    device, calls = Device(monkeypatch), []
    timing.warm_up(lambda: calls.append(0) or device.launch(0.1), SECOND, calls=3)
    assert len(calls) == 3
    timing.warm_up(lambda: calls.append(0) or device.launch(0.1), SECOND, calls=3, seconds=1.05)
    assert len(calls) == 3 + 11


@pytest.mark.parametrize("wrong", [lambda y: y + 0.2 * y.abs().max(), lambda y: y.flip(0), torch.zeros_like,
                                   lambda y: y * torch.nan])  # fmt: skip
@pytest.mark.parametrize("dtype", timing.TOLERANCES)
def test_a_wrong_output_is_refused(wrong, dtype: torch.dtype) -> None:
    expected = 1000 * torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    timing.check(expected.to(dtype), expected, dtype)
    with pytest.raises(AssertionError, match="not close"):
        timing.check(wrong(expected).to(dtype), expected, dtype)


def tf32(x: torch.Tensor) -> torch.Tensor:
    """Rounded to 10 of 23 bits, as in a tensor core."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_a_convolution_in_tf32_is_refused() -> None:
    draws = torch.Generator().manual_seed(0)
    images, kernels = torch.randn(2, 3, 32, 32, generator=draws), torch.randn(64, 3, 16, 16, generator=draws)
    expected = F.conv2d(images.double(), kernels.double(), stride=16)
    timing.check(F.conv2d(images, kernels, stride=16), expected)
    with pytest.raises(AssertionError, match="not close"):
        timing.check(F.conv2d(tf32(images), tf32(kernels), stride=16), expected)


def test_an_expected_output_of_zeros_is_refused() -> None:
    with pytest.raises(ValueError, match="zeros"):
        timing.check(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_call_is_equally_often_in_each_place_and_after_each_other(count: int) -> None:
    names = "abcd"[:count]
    turns = [timing.order(names, turn) for turn in range(2 * count)]
    assert all(sorted(turn) == sorted(names) for turn in turns)
    places = Counter((place, name) for turn in turns for place, name in enumerate(turn))
    assert set(places.values()) == {2}
    before = Counter(itertools.chain.from_iterable(itertools.combinations(turn, 2) for turn in turns))
    assert all(before[a, b] == before[b, a] for a, b in itertools.combinations(names, 2))


def test_drift_hits_all_calls_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that becomes slower and slower the ratio of times is that of the work."""
    device = Device(monkeypatch)

    def call(work: float):
        return lambda: device.launch(work * (1 + device.now / 50))

    times = timing.interleaved({"a": call(0.12), "b": call(0.10)}, SECOND, rounds=61)
    assert min(times["b"][-5:]) > max(times["a"][:5]), "one after another would have shown the opposite"
    assert timing.ratio(times["a"], times["b"]).median == pytest.approx(1.2, rel=0.01)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 2.0))
def test_the_interval_contains_the_true_ratio(seed: int, true: float) -> None:
    """In at least 180 of 200 comparisons with skewed noise; 190 are expected."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, 200, 15, generator=generator).pow(3) + 1  # symmetric in the ratio, and outliers above
    found = [timing.ratio(a, b) for a, b in zip((true * noise[0]).tolist(), noise[1].tolist(), strict=True)]
    assert sum(interval.low <= true <= interval.high for interval in found) >= 180


@pytest.mark.parametrize(("count", "left_out"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (26, 7)])
def test_how_many_values_are_left_out_at_each_end(count: int, left_out: int) -> None:
    """As in tables of the two-sided sign test at 5 %."""
    values = [float(value) for value in range(count)]
    assert timing.median_interval(values) == (statistics.median(values), left_out, count - 1 - left_out)
