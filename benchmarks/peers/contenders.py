"""Who is compared, how each is called, and how far the kit is ahead of the fastest of the others."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure.modes import adamw, autocast, backward, forward, step
from benchmarks.measure.timing import Call, Interval, ratio
from benchmarks.peers.rows import KIT, Row
from scripts.system.machine import Machine
from scripts.training.compiled import for_inference


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


def own_mode(row: Row, kind: str, machine: Machine) -> Mode:
    """What the kit chooses by itself."""
    precision = "float32" if row.float32 else machine.precision("auto")
    compiled = kind in row.compiled and machine.compiles and (kind == "inference" or not machine.accelerated)
    return Mode(getattr(torch, precision), compiled)


def all_modes(row: Row, machine: Machine) -> list[Mode]:
    """float32 and the type of 16 bits that the machine is fast at, eager and compiled, where it has them.

    On a CPU, where compiling takes longest, only whole models are compiled, and in one type.
    """
    types = machine.types[: 1 if row.float32 else 2]
    eager = [Mode(getattr(torch, name), compiled=False) for name in types]
    if not machine.compiles:
        return eager
    if not machine.accelerated:
        own = getattr(torch, machine.precision("auto"))
        return [*eager, Mode(own, compiled=True)] if row.whole else eager
    return [*eager, *(mode._replace(compiled=True) for mode in eager)]


def contenders(group: Group, device: torch.device, *, alike: bool = True) -> Iterator[tuple[Who, Contender]]:
    """Everyone in every mode, with the same input; the modes of a library share its weights and its optimizer.

    Args:
        group: What they do.
        device: Where.
        alike: Whether the kit's ``for_inference`` compiles the others too; else ``torch.compile`` does.
    """
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
            frozen = mode.compiled and not train and (alike or library == KIT)
            network = torch.compile(module) if mode.compiled and not frozen else module
            if optimizer is not None:
                call = step(network, x, mode.dtype, optimizer)
            elif train:
                call = backward(network, x, mode.dtype)
            elif frozen:
                call = partial(for_inference(module, mode.dtype), x)
            else:
                call = forward(network, x, mode.dtype)
            yield (library, mode), Contender(module, x, partial(passed, network, x, mode.dtype), call)


def passed(network: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The output in one mode."""
    with autocast(x, dtype):
        return network(x)


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
