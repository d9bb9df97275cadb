"""The kit as it runs by itself beside other libraries as they come, in turn in every round.

In the comparison in one process everyone is given what only the kit does by itself: freed memory is kept, and weights
are constants in compiled inference. Here the kit has a process of its own, as a run has; the others share a second one,
which is left as it is, and are eager or compiled by ``torch.compile`` as it is.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from benchmarks.alone import alone
from benchmarks.contenders import Group, Who, contenders, over_best, own_mode
from benchmarks.peers import KIT
from benchmarks.timing import LEAST, Call, affordable, check, in_turn, repeats, sample

calls: dict[Who, Call] = {}  # in a process that measures: what it is asked for


def as_they_come(group: Group, device: torch.device, seconds: float, fewest: int) -> dict[str, Any]:
    """The kit in its own mode over the fastest of the others, in those modes of the group that have the same type."""
    own = own_mode(group.row, group.kind, device)
    theirs = [mode for mode in group.modes if mode.dtype == own.dtype]
    with alone(keeping=True) as run, alone(keeping=False) as untouched:
        once = run.submit(prepare, group._replace(modes=[own]), device, kit=True).result()
        samples = {who: partial(asked, run, who, repeats(each)) for who, each in once.items()}
        others = untouched.submit(prepare, group._replace(modes=theirs), device, kit=False).result()
        samples |= {who: partial(asked, untouched, who, repeats(each)) for who, each in others.items()}
        a_round = sum(max(LEAST, each) for each in (*once.values(), *others.values()))
        times = in_turn(samples, affordable(seconds, a_round, fewest=fewest))
    best, against = over_best(times, own, [*others])
    return {"best_as_it_comes": f"{best[0]}, {best[1]}", "ratio_as_they_come": against}


def asked(process: ProcessPoolExecutor, who: Who, count: int) -> float:
    """Seconds of a call in that process."""
    return process.submit(timed, who, count).result()


def prepare(group: Group, device: torch.device, *, kit: bool) -> dict[Who, float]:
    """Build the kit or all others, check their outputs, and return the seconds of a call of each."""
    torch.manual_seed(0)
    expected = None
    for who, each in contenders(group, device, alike=False):
        if expected is None:  # the kit comes first
            with torch.no_grad():
                expected = each.module(each.x)
        if (who[0] == KIT) == kit:
            check(each.call(), expected, who[1].dtype)
            calls[who] = each.call
    return {who: min(sample(call) for _ in range(2)) for who, call in calls.items()}


def timed(who: Who, count: int) -> float:
    """Seconds of a call, as the mean of so many."""
    return sample(calls[who], count)
