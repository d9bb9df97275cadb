"""Reliable timing on a machine that is never quiet.

- The clock waits for the device: a call returns long before a GPU has done the work.
- Calls are warmed up: the first ones compile, choose kernels and fill caches.
- Outputs are checked before and after timing, for two inputs (oracle.py).
- Calls that are compared alternate in every round, so that disturbances hit all of them. Their order changes from round
  to round (two calls: a b, b a, b a, a b), so that neither position nor drift favours one.
- Median and interquartile range are reported: one outlier spoils a mean.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from scripts.system.devices import clock

Call = Callable[[], Tensor]  # does the work once and returns its output
LEAST = 0.005  # seconds of a sample at least: shorter calls are repeated within it
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class Interval(NamedTuple):
    """A median and its 95 % confidence interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def check(output: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Compare an output with the expected one, relative to its largest value, within the tolerance of the type.

    Raises:
        AssertionError: If they differ by more.
        ValueError: If all expected values are zero, which would hide a network that computes nothing.
    """
    scale = expected.abs().max().item()
    if scale == 0:
        raise ValueError("check: expected must not be all zeros")
    near = TOLERANCES[dtype]
    output = output.to(expected.device).to(expected.dtype)  # in that order: Apple's GPUs have no float64
    torch.testing.assert_close(output / scale, expected / scale, atol=near, rtol=near)


def warm_up(call: Call, device: torch.device, *, calls: int = 3, seconds: float = 0.0) -> None:
    """Make at least so many calls for at least so many seconds: a GPU also needs time to raise its clocks."""
    start, done = clock(device), 0
    while done < calls or clock(device) - start < seconds:
        call()
        done += 1


def sample(call: Call, device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call, as the mean of ``repeats`` in a row; the clock waits for the device once."""
    start = clock(device)
    for _ in range(repeats):
        call()
    return (clock(device) - start) / repeats


def repeats(seconds: float, least: float = LEAST) -> int:
    """The number of calls of this duration that make a sample."""
    return max(1, math.ceil(least / seconds))


def affordable(seconds: float, a_round: float, *, fewest: int = 7, most: int = 1001) -> int:
    """The number of rounds that fit into ``seconds``, within limits: fewer than 6 have no 95 % interval."""
    return min(most, max(fewest, int(seconds / a_round)))


def order(names: Sequence[str], turn: int) -> list[str]:
    """The order in one round: every second round reverses the previous one, and the first position rotates."""
    shift = turn // 2 % len(names)
    turned = [*names[shift:], *names[:shift]]
    return turned[::-1] if turn % 2 else turned


def in_turn(samples: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each sample by round, all of them alternating in every round."""
    times: dict[str, list[float]] = {name: [] for name in samples}
    for turn in range(rounds):
        for name in order([*samples], turn):
            times[name].append(samples[name]())
    return times


def interleaved(
    calls: Mapping[str, Call], device: torch.device, rounds: int, *, least: float = LEAST
) -> dict[str, list[float]]:
    """Seconds of each call by round, all of them alternating in every round. The calls must be warm."""
    counts = {name: repeats(min(sample(call, device) for _ in range(2)), least) for name, call in calls.items()}
    return in_turn({name: partial(sample, call, device, counts[name]) for name, call in calls.items()}, rounds)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median and its confidence interval, which assumes nothing of the distribution.

    Each value lies below the true median with probability 1/2, so the binomial distribution gives the number of values
    to leave out at each end. Up to 5 values have no 95 % interval: then it reaches from the smallest to the largest.
    """
    ranked, count = sorted(values), len(values)
    tails = itertools.accumulate(math.comb(count, below) / 2**count for below in range(count))
    left_out = max(0, sum(tail <= (1 - confidence) / 2 for tail in tails) - 1)
    return Interval(statistics.median(ranked), ranked[left_out], ranked[-1 - left_out])


def quartiles(values: Sequence[float]) -> list[float]:
    """First quartile, median and third quartile, with four digits."""
    return [float(f"{value:.4g}") for value in statistics.quantiles(values, n=4, method="inclusive")]


def ratio(times: Sequence[float], others: Sequence[float]) -> Interval:
    """The ratio of times, paired by round: below 1 the first is faster."""
    return median_interval([time / other for time, other in zip(times, others, strict=True)])
