"""How much memory a call takes beyond its weights."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure.timing import Call


def peak_bytes(call: Call, module: nn.Module, x: Tensor) -> int | None:
    """Peak memory of one call in bytes, beyond what was allocated before it. The call must be warm.

    None where torch does not tell: on other devices than CPUs and CUDA GPUs.

    Gradients of the previous call are freed first: this call allocates its own, which count.
    """
    forget_gradients(module, x)
    device = x.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        call()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    steps = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(steps, initial=0))


def forget_gradients(module: nn.Module, x: Tensor) -> None:
    """Free the gradients of the parameters and of the input."""
    module.zero_grad(set_to_none=True)
    x.grad = None


def kept_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the parameters: the same on every device."""
    storages: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        output = forward()
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    del output  # only now: until then no address is used twice
    return sum(size for place, size in storages.items() if place not in own)
