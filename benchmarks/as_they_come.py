"""The kit as it runs by itself beside other libraries as they come, each in its own process, in turn in every round.

In one process everyone is given what only the kit does by itself: freed memory is kept, and weights are constants in
compiled inference. Here the processes of the others are left as they are, and they are eager or compiled by
``torch.compile`` as it is. One process for all of them would not do: freed memory is given back only from the end of
the heap, where somebody else's lies.
"""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from benchmarks.alone import alone
from benchmarks.contenders import Group, Who, contenders, over_best, own_mode
from benchmarks.peers import KIT
from benchmarks.timing import LEAST, Call, affordable, check, in_turn, repeats, sample
from scripts.machine import this_machine

calls: dict[Who, Call] = {}  # in a process that measures: what it is asked for


def as_they_come(
    group: Group, libraries: Iterable[str], device: torch.device, seconds: float, fewest: int
) -> dict[str, Any]:
    """The kit in its own mode over the fastest of the others, in those modes of the group that have the same type."""
    own = own_mode(group.row, group.kind, this_machine(device))
    theirs = [mode for mode in group.modes if mode.dtype == own.dtype]
    samples, a_round = {}, 0.0
    with ExitStack() as stack:
        for library in libraries:
            process = stack.enter_context(alone(keeping=library == KIT))
            part = group._replace(modes=[own] if library == KIT else theirs)
            for who, once in process.submit(prepare, part, device, library).result().items():
                samples[who] = partial(asked, process, who, repeats(once))
                a_round += max(LEAST, once)
        times = in_turn(samples, affordable(seconds, a_round, fewest=fewest))
    best, against = over_best(times, own, [who for who in times if who[0] != KIT])
    return {"best_as_it_comes": f"{best[0]}, {best[1]}", "ratio_as_they_come": against}


def asked(process: ProcessPoolExecutor, who: Who, count: int) -> float:
    """Seconds of a call in that process."""
    return process.submit(timed, who, count).result()


def prepare(group: Group, device: torch.device, library: str) -> dict[Who, float]:
    """Build one library's modules, check their outputs, and return the seconds of a call in each mode."""
    torch.manual_seed(0)
    expected = None
    for who, each in contenders(group, device, alike=False):
        if expected is None:  # the kit comes first
            with torch.no_grad():
                expected = each.module(each.x)
        if who[0] == library:
            check(each.call(), expected, who[1].dtype)
            calls[who] = each.call
    return {who: min(sample(call) for _ in range(2)) for who, call in calls.items()}


def timed(who: Who, count: int) -> float:
    """Seconds of a call, as the mean of so many."""
    return sample(calls[who], count)
