"""The modules that are compared, the modes they run in, and the ratio of the kit to the fastest peer."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure.calls import adamw, autocast, backward, forward, step
from benchmarks.measure.timing import Call, Interval, ratio
from benchmarks.peers.tasks import KIT, Task
from scripts.system.machine import Machine
from scripts.training.compiled import for_inference


class Mode(NamedTuple):
    """How a module is run."""

    dtype: torch.dtype
    compiled: bool

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}, {'compiled' if self.compiled else 'eager'}"


class Group(NamedTuple):
    """Cells that are timed together: one task in inference or training, by every library, in several modes."""

    task: Task
    kind: str
    modes: list[Mode]


class Contender(NamedTuple):
    """One library in one mode."""

    module: nn.Module
    x: Tensor
    forward: Call
    call: Call  # the call that is timed


Variant = tuple[str, Mode]  # a library and its mode


def own_mode(task: Task, kind: str, machine: Machine) -> Mode:
    """The mode that the kit chooses by default."""
    precision = "float32" if task.float32 else machine.precision("auto")
    compiled = kind in task.compiled and machine.compiles and (kind == "inference" or not machine.accelerated)
    return Mode(getattr(torch, precision), compiled)


def all_modes(task: Task, machine: Machine) -> list[Mode]:
    """float32 and the fast 16-bit type of the machine, if it has one; eager, and compiled if it can compile.

    On a CPU, where compiling takes longest, only whole models are compiled, and in one type.
    """
    types = machine.types[: 1 if task.float32 else 2]
    eager = [Mode(getattr(torch, name), compiled=False) for name in types]
    if not machine.compiles:
        return eager
    if not machine.accelerated:
        own = getattr(torch, machine.precision("auto"))
        return [*eager, Mode(own, compiled=True)] if task.whole else eager
    return [*eager, *(mode._replace(compiled=True) for mode in eager)]


def contenders(group: Group, device: torch.device) -> Iterator[tuple[Variant, Contender]]:
    """Build every library's module in every mode, with the same input; its modes share weights and optimizer."""
    task, kind, modes = group
    train = kind == "training"
    batch, inner = (task.training if train else task.inference), task.features or len(task.shape) == 2
    x = torch.randn(batch, *task.shape, device=device, requires_grad=train and inner)  # images need no gradient
    if task.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for library, module in task.build().items():
        module.to(device)
        if task.channels_last:
            module.to(memory_format=torch.channels_last)
        optimizer = adamw(module) if train and task.whole else None
        for mode in modes:
            network = torch.compile(module) if mode.compiled and train else module
            if optimizer is not None:
                call = step(network, x, mode.dtype, optimizer)
            elif train:
                call = backward(network, x, mode.dtype)
            elif mode.compiled:
                call = partial(for_inference(module, mode.dtype), x)
            else:
                call = forward(network, x, mode.dtype)
            yield (library, mode), Contender(module, x, partial(passed, network, x, mode.dtype), call)


def passed(network: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The output of a forward pass with gradients."""
    with autocast(x, dtype):
        return network(x)


def over_best(
    times: Mapping[Variant, Sequence[float]], mode: Mode, peers: Sequence[Variant]
) -> tuple[Variant, Interval]:
    """Return the fastest peer, and the speed of the kit in this mode over that of the fastest peer.

    Each half of the rounds is compared with the peer that was fastest in the other half: the fastest of several in some
    rounds was also lucky in them.
    """

    def fastest(rounds: slice) -> Variant:
        return min(peers, key=lambda variant: statistics.median(times[variant][rounds]))

    even, odd = slice(0, None, 2), slice(1, None, 2)
    rival = [*times[fastest(odd)]]
    rival[odd] = times[fastest(even)][odd]
    return fastest(slice(None)), ratio(rival, times[KIT, mode])
