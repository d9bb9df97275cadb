"""The out-of-the-box comparison: the kit in its own mode, and the others as installed, alternating in every round.

The main comparison gives every library what only the kit sets up: freed memory is kept, and weights are constants in
compiled inference. Here the others are eager or compiled by plain ``torch.compile``, without either. Each library has a
process of its own, because the allocator is set up for a whole process.
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
from benchmarks.peers.contenders import Group, Variant, contenders, over_best, own_mode
from benchmarks.peers.tasks import KIT
from scripts.system.machine import this_machine

calls: dict[Variant, tuple[Call, Oracle]] = {}  # what a measuring process can time, and the check of its output


def out_of_the_box(
    group: Group, libraries: Iterable[str], device: torch.device, seconds: float, fewest: int
) -> dict[str, Any]:
    """Compare the kit in its own mode with the fastest other library in any mode of the group of the same type."""
    own = own_mode(group.task, group.kind, this_machine(device))
    theirs = [mode for mode in group.modes if mode.dtype == own.dtype]
    samples, a_round, processes = {}, 0.0, []
    with ExitStack() as stack:
        for library in libraries:
            process = stack.enter_context(alone(keeping=library == KIT))
            part = group._replace(modes=[own] if library == KIT else theirs)
            for variant, once in process.submit(prepare, part, device, library).result().items():
                samples[variant] = partial(time_in, process, device, variant, repeats(once))
                a_round += max(LEAST, once)
            processes.append(process)
        times = in_turn(samples, affordable(seconds, a_round, fewest=fewest))
        for process in processes:
            process.submit(check_outputs).result()
    best, against = over_best(times, own, [variant for variant in times if variant[0] != KIT])
    return {"best_as_it_comes": f"{best[0]}, {best[1]}", "ratio_as_they_come": against}


def time_in(process: ProcessPoolExecutor, device: torch.device, variant: Variant, count: int) -> float:
    """Seconds of a call in this process."""
    return process.submit(timed, device, variant, count).result()


def prepare(group: Group, device: torch.device, library: str) -> dict[Variant, float]:
    """Build one library's modules, check their outputs, and return the seconds of a call in each mode."""
    torch.manual_seed(0)
    oracle = None
    for variant, each in contenders(group, device, alike=False):
        oracle = oracle or Oracle(each.x, without_gradients(each.module))  # the reference is the kit, which comes first
        if variant[0] == library:
            calls[variant] = each.call, oracle
    check_outputs()
    return {variant: min(sample(call, device) for _ in range(2)) for variant, (call, _) in calls.items()}


def check_outputs() -> None:
    """Check the output of every call in this process."""
    for (_, mode), (call, oracle) in calls.items():
        oracle.check(call, mode.dtype)


def timed(device: torch.device, variant: Variant, count: int) -> float:
    """Seconds of a call, as the mean of ``count``."""
    return sample(calls[variant][0], device, count)
