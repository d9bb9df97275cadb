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

from benchmarks.measure.alone import alone
from benchmarks.measure.oracle import Oracle, without_gradients
from benchmarks.measure.timing import LEAST, Call, affordable, in_turn, repeats, sample
from benchmarks.peers.contenders import Group, Who, contenders, over_best, own_mode
from benchmarks.peers.rows import KIT
from scripts.system.machine import this_machine

calls: dict[Who, tuple[Call, Oracle]] = {}  # in a process that measures: what it is asked for, and who judges it


def as_they_come(
    group: Group, libraries: Iterable[str], device: torch.device, seconds: float, fewest: int
) -> dict[str, Any]:
    """The kit in its own mode over the fastest of the others, in those modes of the group that have the same type."""
    own = own_mode(group.row, group.kind, this_machine(device))
    theirs = [mode for mode in group.modes if mode.dtype == own.dtype]
    samples, a_round, processes = {}, 0.0, []
    with ExitStack() as stack:
        for library in libraries:
            process = stack.enter_context(alone(keeping=library == KIT))
            part = group._replace(modes=[own] if library == KIT else theirs)
            for who, once in process.submit(prepare, part, device, library).result().items():
                samples[who] = partial(asked, process, device, who, repeats(once))
                a_round += max(LEAST, once)
            processes.append(process)
        times = in_turn(samples, affordable(seconds, a_round, fewest=fewest))
        for process in processes:
            process.submit(judge).result()
    best, against = over_best(times, own, [who for who in times if who[0] != KIT])
    return {"best_as_it_comes": f"{best[0]}, {best[1]}", "ratio_as_they_come": against}


def asked(process: ProcessPoolExecutor, device: torch.device, who: Who, count: int) -> float:
    """Seconds of a call in that process."""
    return process.submit(timed, device, who, count).result()


def prepare(group: Group, device: torch.device, library: str) -> dict[Who, float]:
    """Build one library's modules, check their outputs, and return the seconds of a call in each mode."""
    torch.manual_seed(0)
    oracle = None
    for who, each in contenders(group, device, alike=False):
        oracle = oracle or Oracle(each.x, without_gradients(each.module))  # the kit comes first
        if who[0] == library:
            calls[who] = each.call, oracle
    judge()
    return {who: min(sample(call, device) for _ in range(2)) for who, (call, _) in calls.items()}


def judge() -> None:
    """Refuse a wrong output of any call in this process."""
    for (_, mode), (call, oracle) in calls.items():
        oracle.check(call, mode.dtype)


def timed(device: torch.device, who: Who, count: int) -> float:
    """Seconds of a call, as the mean of so many."""
    return sample(calls[who][0], device, count)
