"""Time the kit beside other libraries at the same work, in turn in every round, and write the table of ratios.

python -m benchmarks.bench_peers --only "b/16 training"
"""

import multiprocessing
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from benchmarks.machine import description
from benchmarks.memory import kept_bytes, peak_bytes
from benchmarks.modes import adamw, autocast, backward, forward, step
from benchmarks.peer_table import cells, draw, markdown
from benchmarks.peers import KIT, Row, rows
from benchmarks.records import target, write
from benchmarks.timing import LEAST, Call, Interval, affordable, check, interleaved, quartiles, ratio, sample
from scripts.command_line import option, parse, positive, run, whole
from scripts.compiled import for_inference
from scripts.devices import choose_device, choose_precision, keep_freed_memory
from scripts.errors import InputError
from scripts.files import write_whole

KINDS = ("inference", "training")


@dataclass
class Options:
    """Time the kit beside other libraries at the same work, and write the table of ratios."""

    only: str = option("", 'the cells with all of these words in their names, such as "b/16 training eager"')
    minutes: float = option(10.0, "how long to time all cells together; compiling comes on top", type=positive)
    batch: int | None = option(None, "samples at once, where it is not to be that of the cell", type=whole(1))
    device: str = option("auto", "where to compute, auto or a name such as cuda:1")
    out: str | None = option(None, "the file to write, .json, page and picture beside it; of all cells, in results/")
    smoke: bool = option(False, "every cell small and twice, to see that it works", type=bool)


class Mode(NamedTuple):
    """How a module is called."""

    dtype: torch.dtype
    compiled: bool

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}, {'compiled' if self.compiled else 'eager'}"


class Group(NamedTuple):
    """What is timed together: one piece of work, in inference or training, by everyone in several modes."""

    row: Row
    kind: str
    modes: list[Mode]


class Contender(NamedTuple):
    """One library in one mode."""

    module: nn.Module
    x: Tensor
    forward: Call
    call: Call  # what is timed


Who = tuple[str, Mode]


def own_mode(row: Row, kind: str, device: torch.device) -> Mode:
    """What the kit chooses by itself."""
    precision = "float32" if row.float32 else choose_precision("auto", device)
    compiled = kind in row.compiled and (kind == "inference" or device.type == "cpu")
    return Mode(getattr(torch, precision), compiled)


def all_modes(row: Row, device: torch.device) -> list[Mode]:
    """Eager and compiled; on a CPU, where compiling takes longest, only whole models and in one type."""
    eager = [Mode(torch.float32, compiled=False), Mode(torch.bfloat16, compiled=False)][: 1 if row.float32 else 2]
    if device.type == "cpu":
        own = getattr(torch, choose_precision("auto", device))
        return [*eager, Mode(own, compiled=True)] if row.whole else eager
    return [*eager, *(mode._replace(compiled=True) for mode in eager)]


def groups(found: Sequence[Row], device: torch.device, only: str) -> Iterator[Group]:
    """All that have cells whose names hold these words, with those cells."""
    words = only.lower().split()
    for row in found:
        for kind in KINDS:
            names = {mode: f"{row.name}, {kind}, {mode}".lower() for mode in all_modes(row, device)}
            if chosen := [mode for mode, name in names.items() if all(word in name for word in words)]:
                yield Group(row, kind, chosen)


def contenders(group: Group, device: torch.device) -> Iterator[tuple[Who, Contender]]:
    """Everyone in every mode, with the same input; the modes of a library share its weights and its optimizer."""
    row, kind, modes = group
    train = kind == "training"
    batch, tokens = (row.training if train else row.inference), len(row.shape) == 2
    x = torch.randn(batch, *row.shape, device=device, requires_grad=train and tokens)  # images need no gradient
    if row.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for library, module in row.build().items():
        module.to(device)
        if row.channels_last:
            module.to(memory_format=torch.channels_last)
        optimizer = adamw(module) if train and row.whole else None
        for mode in modes:
            network = torch.compile(module) if mode.compiled and train else module
            if optimizer is not None:
                call = step(network, x, mode.dtype, optimizer)
            elif train:
                call = backward(network, x, mode.dtype)
            elif mode.compiled:
                call = partial(for_inference(module, mode.dtype), x)
            else:
                call = forward(module, x, mode.dtype)
            yield (library, mode), Contender(module, x, partial(passed, network, x, mode.dtype), call)


def passed(network: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The output in one mode."""
    with autocast(x, dtype):
        return network(x)


def measured_alone(group: Group, device: torch.device, seconds: float, fewest: int) -> list[dict[str, Any]]:
    """Measure in a new process: compiled networks are never quite forgotten, and would fill the memory in time."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=begin) as process:
        return process.submit(measure, group, device, seconds, fewest).result()


def begin() -> None:
    """What a process does before it measures: one whose parent was killed would spoil the next measurement."""

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    keep_freed_memory()


def measure(group: Group, device: torch.device, seconds: float, fewest: int) -> list[dict[str, Any]]:
    """Check all outputs, then time all calls in turn; a record for each mode."""
    torch.manual_seed(0)
    disable_progress_bar()
    everyone = dict(contenders(group, device))
    ours = everyone[KIT, group.modes[0]]
    with torch.no_grad():
        expected = ours.module(ours.x)
    for (_, mode), each in everyone.items():
        check(each.call(), expected, mode.dtype)
    # who is compared comes one after another: all libraries in one mode, then in the next
    calls = {who: everyone[who].call for who in sorted(everyone, key=lambda who: group.modes.index(who[1]))}
    rounds = affordable(seconds, sum(max(LEAST, sample(call)) for call in calls.values()), fewest=fewest)
    times = interleaved(calls, rounds)
    work = {"row": group.row.name, "kind": group.kind, "batch": len(ours.x), "rounds": rounds}
    records = []
    for mode in group.modes:
        used = {library: taken(each, group.kind) for (library, how), each in everyone.items() if how == mode}
        records.append(work | {"mode": str(mode), "bytes": used} | compared(times, mode))
    if group.modes == all_modes(group.row, device):
        own = own_mode(group.row, group.kind, device)
        best, against = over_best(times, own, [who for who in times if who[0] != KIT])
        records[group.modes.index(own)] |= {"best_anywhere": f"{best[0]}, {best[1]}", "ratio_anywhere": against}
    return records


def compared(times: Mapping[Who, Sequence[float]], mode: Mode) -> dict[str, Any]:
    """The kit and its peers in one mode."""
    best, against = over_best(times, mode, [who for who in times if who[0] != KIT and who[1] == mode])
    seconds = {library: quartiles(values) for (library, how), values in times.items() if how == mode}
    return {"seconds": seconds, "best_peer": best[0], "ratio": against}


def over_best(times: Mapping[Who, Sequence[float]], mode: Mode, peers: Sequence[Who]) -> tuple[Who, Interval]:
    """The fastest of these, and the speed of the kit in one mode over its speed.

    Each half of the rounds is compared with whoever was the fastest in the other half: what is the fastest of several
    in some rounds was also lucky in them.
    """

    def fastest(rounds: slice) -> Who:
        return min(peers, key=lambda who: statistics.median(times[who][rounds]))

    even, odd = slice(0, None, 2), slice(1, None, 2)
    rival = [*times[fastest(odd)]]
    rival[odd] = times[fastest(even)][odd]
    return fastest(slice(None)), ratio(rival, times[KIT, mode])


def taken(each: Contender, kind: str) -> int | None:
    """Bytes at the peak of a call on a GPU; on a CPU those that the forward pass keeps, if there is a backward pass."""
    if each.x.device.type == "cuda":
        each.module.zero_grad()
        return peak_bytes(each.call, each.x.device)
    return kept_bytes(each.forward, each.module) if kind == "training" else None


def main(options: Options) -> None:
    """Measure group by group, and write everything after each.

    Raises:
        InputError: If a name is not there.
    """
    device = choose_device(options.device)
    out = target(options.out, options.smoke or bool(options.only or options.batch), device, "peers")
    everything = rows(small=options.smoke, batch=options.batch)
    found = list(groups(everything, device, options.only))
    if not found:
        names = ", ".join(row.name for row in everything)
        raise InputError(f"--only ({options.only}) must be words of one cell's name, made of {names}")
    content: dict[str, Any] = {"machine": description(device), "small": options.smoke, "cells": []}
    for group in found:
        seconds, fewest = (0.0, 2) if options.smoke else (60 * options.minutes / len(found), 9)
        records = (measure if options.smoke else measured_alone)(group, device, seconds, fewest)
        content["cells"] += records
        write(out, content)
        for record in records:
            print(" | ".join(cells(record)), flush=True)
    page = markdown(content)
    print(page)
    if out is not None:
        write_whole(out.with_suffix(".md"), lambda file: file.write(page.encode()))
        draw(content, out.with_suffix(".png"))


if __name__ == "__main__":
    run(lambda: main(parse(Options, "bench_peers")), "bench_peers")
