"""Time the kit and other libraries on the same work, alternating in every round, and write a table of ratios."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.measure.alone import alone
from benchmarks.measure.devices import ready
from benchmarks.measure.machine import description
from benchmarks.measure.memory import kept_bytes, peak_bytes
from benchmarks.measure.oracle import Oracle, without_gradients
from benchmarks.measure.records import finish, recorded, target, write
from benchmarks.measure.timing import LEAST, affordable, interleaved, quartiles, sample
from benchmarks.options import PeerOptions
from benchmarks.peers.contenders import Contender, Group, Mode, Variant, all_modes, contenders, over_best, own_mode
from benchmarks.peers.table import cells_of, draw, markdown
from benchmarks.peers.tasks import KIT, Task, tasks
from scripts.system.errors import InputError
from scripts.system.files import write_bytes
from scripts.system.libraries import plain_figures
from scripts.system.machine import Machine, this_machine

KINDS = ("inference", "training")
PROCESSES = 3


def groups(found: Sequence[Task], machine: Machine, only: str) -> Iterator[Group]:
    """The cells whose names contain all words of ``only``, in groups."""
    words = only.lower().split()
    for task in found:
        for kind in KINDS:
            names = {mode: f"{task.name}, {kind}, {mode}".lower() for mode in all_modes(task, machine)}
            if chosen := [mode for mode, name in names.items() if all(word in name for word in words)]:
                yield Group(task, kind, chosen)


class Measured(NamedTuple):
    """Seconds and bytes of a group."""

    seconds: dict[Variant, list[float]]  # round by round
    bytes: dict[Variant, int | None]


def measure(group: Group, device: torch.device, seconds: float, fewest: int) -> Measured:
    """Check all outputs, time all calls for ``seconds``, alternating in every round, and check the outputs again."""
    torch.manual_seed(0)
    everyone = dict(contenders(group, device))
    ours = everyone[KIT, group.modes[0]]
    oracle = Oracle(ours.x, without_gradients(ours.module))

    def check_all() -> None:
        for (_, mode), each in everyone.items():
            oracle.check(each.call, mode.dtype)

    check_all()
    # all libraries in one mode, then in the next, so that those that are compared are timed close together
    ordered = sorted(everyone, key=lambda variant: group.modes.index(variant[1]))
    calls = {variant: everyone[variant].call for variant in ordered}
    a_round = sum(max(LEAST, sample(call, device)) for call in calls.values())
    times = interleaved(calls, device, affordable(seconds, a_round, fewest=fewest))
    check_all()
    return Measured(times, {variant: bytes_used(each, group.kind) for variant, each in everyone.items()})


def measure_alone(group: Group, device: torch.device, seconds: float, fewest: int) -> Measured:
    """Measure in several new processes, or in one if something is compiled, since that takes longest.

    Two processes that compute the same differ by a percent or two throughout their lives.
    """
    count = 1 if any(mode.compiled for mode in group.modes) else PROCESSES
    parts = []
    for _ in range(count):
        with alone() as process:
            parts.append(process.submit(measure, group, device, seconds / count, -(-fewest // count)).result())
    times = {variant: [second for part in parts for second in part.seconds[variant]] for variant in parts[0].seconds}
    return Measured(times, parts[0].bytes)


def as_records(group: Group, machine: Machine, measured: Measured) -> list[dict[str, Any]]:
    """A record for each mode; that of a whole model's default mode also has the ratio to the best peer in any mode."""
    task, kind, modes = group
    times = measured.seconds
    batch, rounds = task.training if kind == "training" else task.inference, len(times[KIT, modes[0]])
    work = {"row": task.name, "kind": kind, "batch": batch, "rounds": rounds}
    records = []
    for mode in modes:
        used = {library: each for (library, how), each in measured.bytes.items() if how == mode}
        records.append(work | {"mode": str(mode), "bytes": used} | compared(times, mode))
    if task.whole and modes == all_modes(task, machine):
        own = own_mode(task, kind, machine)
        best, against = over_best(times, own, [variant for variant in times if variant[0] != KIT])
        records[modes.index(own)] |= {"best_anywhere": f"{best[0]}, {best[1]}", "ratio_anywhere": against}
    return records


def compared(times: Mapping[Variant, Sequence[float]], mode: Mode) -> dict[str, Any]:
    """The fields of a record that compare the kit with its peers in one mode."""
    best, against = over_best(times, mode, [variant for variant in times if variant[0] != KIT and variant[1] == mode])
    seconds = {library: quartiles(values) for (library, how), values in times.items() if how == mode}
    return {"seconds": seconds, "best_peer": best[0], "ratio": against}


def bytes_used(each: Contender, kind: str) -> int | None:
    """On a GPU the peak of a call; on a CPU what the forward pass keeps for the backward pass, None in inference."""
    if each.x.device.type == "cuda":
        return peak_bytes(each.call, each.module, each.x)
    return kept_bytes(each.forward, each.module) if kind == "training" else None


def main(options: PeerOptions) -> None:
    """Measure all groups, and write the results after each.

    Raises:
        InputError: If no cell is selected, the device is not there, or --out is refused.
    """
    device = ready(options.device)
    out = target(options.out, options.smoke or bool(options.only or options.batch), device, "peers")
    everything = tasks(small=options.smoke, batch=options.batch)
    machine = this_machine(device)
    found = list(groups(everything, machine, options.only))
    if not found:
        names = ", ".join(task.name for task in everything)
        raise InputError(f"--only ({options.only}) must be words from the name of one cell; these begin with {names}")
    content: dict[str, Any] = {"machine": description(device), "small": options.smoke, "cells": [], "errors": []}
    write(out, content)
    for group in found:
        seconds, fewest = (0.0, 2) if options.smoke else (60 * options.minutes / len(found), 9)
        with recorded(out, content, f"{group.task.name}, {group.kind}"):
            measured = (measure if options.smoke else measure_alone)(group, device, seconds, fewest)
            for record in as_records(group, machine, measured):
                content["cells"].append(record)
                print(" | ".join(cells_of(record)), flush=True)
    page = markdown(content)
    print(page)
    if out is not None and content["cells"]:
        write_bytes(out.with_suffix(".md"), page.encode())
        with plain_figures():
            draw(content, out.with_suffix(".png"))
    finish(content)
