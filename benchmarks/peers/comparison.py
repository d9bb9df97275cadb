"""Time the kit beside other libraries at the same work, in turn in every round, and write the table of ratios."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.measure.alone import alone
from benchmarks.measure.devices import ready
from benchmarks.measure.machine import description
from benchmarks.measure.memory import kept_bytes, peak_bytes
from benchmarks.measure.oracle import Oracle, without_gradients
from benchmarks.measure.records import finish, noted, target, write
from benchmarks.measure.timing import LEAST, affordable, interleaved, quartiles, sample
from benchmarks.options import PeerOptions
from benchmarks.peers.as_they_come import as_they_come
from benchmarks.peers.contenders import Contender, Group, Mode, Who, all_modes, contenders, over_best, own_mode
from benchmarks.peers.rows import KIT, Row, rows
from benchmarks.peers.table import cells, draw, markdown
from scripts.system.errors import InputError
from scripts.system.files import write_whole
from scripts.system.machine import Machine, this_machine

KINDS = ("inference", "training")
PROCESSES = 3


def groups(found: Sequence[Row], machine: Machine, only: str) -> Iterator[Group]:
    """All that have cells whose names hold these words, with those cells."""
    words = only.lower().split()
    for row in found:
        for kind in KINDS:
            names = {mode: f"{row.name}, {kind}, {mode}".lower() for mode in all_modes(row, machine)}
            if chosen := [mode for mode, name in names.items() if all(word in name for word in words)]:
                yield Group(row, kind, chosen)


class Measured(NamedTuple):
    """What a group took."""

    seconds: dict[Who, list[float]]  # round by round
    bytes: dict[Who, int | None]


def measure(group: Group, device: torch.device, seconds: float, fewest: int) -> Measured:
    """Check all outputs, time all calls in turn for so many seconds, and check once more."""
    torch.manual_seed(0)
    everyone = dict(contenders(group, device))
    ours = everyone[KIT, group.modes[0]]
    oracle = Oracle(ours.x, without_gradients(ours.module))

    def judge_all() -> None:
        for (_, mode), each in everyone.items():
            oracle.check(each.call, mode.dtype)

    judge_all()
    # who is compared comes one after another: all libraries in one mode, then in the next
    calls = {who: everyone[who].call for who in sorted(everyone, key=lambda who: group.modes.index(who[1]))}
    a_round = sum(max(LEAST, sample(call, device)) for call in calls.values())
    times = interleaved(calls, device, affordable(seconds, a_round, fewest=fewest))
    judge_all()
    return Measured(times, {who: taken(each, group.kind) for who, each in everyone.items()})


def measure_alone(group: Group, device: torch.device, seconds: float, fewest: int) -> Measured:
    """Measure in new processes; in one alone where something is compiled, which takes longest.

    Two processes that compute the same differ by a percent or two for as long as they live.
    """
    count = 1 if any(mode.compiled for mode in group.modes) else PROCESSES
    parts = []
    for _ in range(count):
        with alone(keeping=True) as process:
            parts.append(process.submit(measure, group, device, seconds / count, -(-fewest // count)).result())
    times = {who: [second for part in parts for second in part.seconds[who]] for who in parts[0].seconds}
    return Measured(times, parts[0].bytes)


def judge(group: Group, machine: Machine, measured: Measured) -> list[dict[str, Any]]:
    """A record for each mode; of a whole model in all modes also what the kit's own one is to the best of others."""
    row, kind, modes = group
    times = measured.seconds
    batch, rounds = row.training if kind == "training" else row.inference, len(times[KIT, modes[0]])
    work = {"row": row.name, "kind": kind, "batch": batch, "rounds": rounds}
    records = []
    for mode in modes:
        used = {library: each for (library, how), each in measured.bytes.items() if how == mode}
        records.append(work | {"mode": str(mode), "bytes": used} | compared(times, mode))
    if row.whole and modes == all_modes(row, machine):
        own = own_mode(row, kind, machine)
        best, against = over_best(times, own, [who for who in times if who[0] != KIT])
        records[modes.index(own)] |= {"best_anywhere": f"{best[0]}, {best[1]}", "ratio_anywhere": against}
    return records


def compared(times: Mapping[Who, Sequence[float]], mode: Mode) -> dict[str, Any]:
    """The kit and its peers in one mode."""
    best, against = over_best(times, mode, [who for who in times if who[0] != KIT and who[1] == mode])
    seconds = {library: quartiles(values) for (library, how), values in times.items() if how == mode}
    return {"seconds": seconds, "best_peer": best[0], "ratio": against}


def taken(each: Contender, kind: str) -> int | None:
    """Bytes at the peak of a call on a GPU; on a CPU those that the forward pass keeps, if there is a backward pass."""
    if each.x.device.type == "cuda":
        return peak_bytes(each.call, each.module, each.x)
    return kept_bytes(each.forward, each.module) if kind == "training" else None


def main(options: PeerOptions) -> None:
    """Measure group by group, and write everything after each.

    Raises:
        InputError: If a name is not there.
    """
    device = ready(options.device)
    out = target(options.out, options.smoke or bool(options.only or options.batch), device, "peers")
    everything = rows(small=options.smoke, batch=options.batch)
    machine = this_machine(device)
    found = list(groups(everything, machine, options.only))
    if not found:
        names = ", ".join(row.name for row in everything)
        raise InputError(f"--only ({options.only}) must be words of one cell's name, made of {names}")
    content: dict[str, Any] = {"machine": description(device), "small": options.smoke, "cells": [], "errors": []}
    write(out, content)
    for group in found:
        seconds, fewest = (0.0, 2) if options.smoke else (60 * options.minutes / len(found), 9)
        records: list[dict[str, Any]] = []
        with noted(content, f"{group.row.name}, {group.kind}"):
            measured = (measure if options.smoke else measure_alone)(group, device, seconds, fewest)
            records = judge(group, machine, measured)
        content["cells"] += records
        write(out, content)
        for record in records:
            if "ratio_anywhere" in record:
                with noted(content, f"{group.row.name}, {group.kind}, as it comes"):
                    record |= as_they_come(group, record["seconds"], device, seconds, fewest)
                write(out, content)
            print(" | ".join(cells(record)), flush=True)
    page = markdown(content)
    print(page)
    if out is not None and content["cells"]:
        write_whole(out.with_suffix(".md"), lambda file: file.write(page.encode()))
        draw(content, out.with_suffix(".png"))
    finish(content)
