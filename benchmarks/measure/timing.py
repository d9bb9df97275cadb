"""Times that can be believed on a machine that is never quiet.

- The clock waits for the device: a GPU returns from a call long before it has done the work.
- A call is warm before it is timed: the first ones compile, choose kernels and fill caches.
- Its output is right before and after it is timed, and follows the input: a wrong answer is not fast (oracle.py).
- What is compared is timed in turn in every round, so that the machine's moods hit all of it. The order changes from
  round to round (two calls: a b, b a, b a, a b), so that neither place nor drift favours one.
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

Call = Callable[[], Tensor]  # does the work once and returns an output by which it can be judged
LEAST = 0.005  # seconds that a sample lasts at least: shorter calls are repeated within it
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class Interval(NamedTuple):
    """A median, and what it lies between at 95 % confidence."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def check(output: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Refuse an output that is further from the expected one than this type explains, by the size of its values.

    Raises:
        AssertionError: If it is.
        ValueError: If nothing but zeros is expected, which a network says that computes nothing.
    """
    scale = expected.abs().max().item()
    if scale == 0:
        raise ValueError("check: expected must hold something else than zeros")
    near = TOLERANCES[dtype]
    output = output.to(expected.device).to(expected.dtype)  # in that order: Apple's GPUs have no float64
    torch.testing.assert_close(output / scale, expected / scale, atol=near, rtol=near)


def warm_up(call: Call, device: torch.device, *, calls: int = 3, seconds: float = 0.0) -> None:
    """Call so often and so long: a GPU also needs time to raise its clocks."""
    start, done = clock(device), 0
    while done < calls or clock(device) - start < seconds:
        call()
        done += 1


def sample(call: Call, device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call, as the mean of so many in a row: the device is waited for once."""
    start = clock(device)
    for _ in range(repeats):
        call()
    return (clock(device) - start) / repeats


def repeats(seconds: float, least: float = LEAST) -> int:
    """How many calls of so many seconds in a row make a sample."""
    return max(1, math.ceil(least / seconds))


def affordable(seconds: float, a_round: float, *, fewest: int = 7, most: int = 1001) -> int:
    """How many rounds fit in so many seconds, within limits: fewer than 6 have no interval of 95 %."""
    return min(most, max(fewest, int(seconds / a_round)))


def order(names: Sequence[str], turn: int) -> list[str]:
    """Who comes when in a round: each second round is the one before backwards, and the first place goes round."""
    shift = turn // 2 % len(names)
    turned = [*names[shift:], *names[:shift]]
    return turned[::-1] if turn % 2 else turned


def in_turn(samples: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each sample returns, round by round, all in turn in every round."""
    times: dict[str, list[float]] = {name: [] for name in samples}
    for turn in range(rounds):
        for name in order([*samples], turn):
            times[name].append(samples[name]())
    return times


def interleaved(
    calls: Mapping[str, Call], device: torch.device, rounds: int, *, least: float = LEAST
) -> dict[str, list[float]]:
    """Seconds of each call, round by round, all in turn in every round. The calls are warm already."""
    counts = {name: repeats(min(sample(call, device) for _ in range(2)), least) for name, call in calls.items()}
    return in_turn({name: partial(sample, call, device, counts[name]) for name, call in calls.items()}, rounds)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median between two of the values: as many lie outside as fair coins allow, whatever the distribution.

    A value lies below the true median like a coin shows heads, so the binomial distribution says how many may be left
    out at each end. Up to 5 values there is no such interval at 95 %: it then reaches from the smallest to the largest.
    """
    ranked, count = sorted(values), len(values)
    tails = itertools.accumulate(math.comb(count, below) / 2**count for below in range(count))
    left_out = max(0, sum(tail <= (1 - confidence) / 2 for tail in tails) - 1)
    return Interval(statistics.median(ranked), ranked[left_out], ranked[-1 - left_out])


def quartiles(values: Sequence[float]) -> list[float]:
    """A quarter lies below the first, half below the second, three quarters below the third."""
    return [float(f"{value:.4g}") for value in statistics.quantiles(values, n=4, method="inclusive")]


def ratio(times: Sequence[float], others: Sequence[float]) -> Interval:
    """Time over time, round by round: below 1 the first is faster. Rounds pair what was measured side by side."""
    return median_interval([time / other for time, other in zip(times, others, strict=True)])
