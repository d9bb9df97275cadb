"""How much memory a call takes at its peak, beyond what was taken before it."""

import itertools

import torch

from benchmarks.timing import Call


def peak_bytes(call: Call, device: torch.device) -> int:
    """Bytes at the highest point of one call. The call is warm already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        call()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    steps = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(steps, initial=0))
