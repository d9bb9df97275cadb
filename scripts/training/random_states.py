"""Save and restore every random number generator that a run may use."""

import random
from typing import Any

import numpy as np
import torch


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of all generators as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  # libraries use this one
    accelerator = torch.get_device_module(device).get_rng_state(device) if device.type not in ("cpu", "meta") else None
    return {
        "python": (version, numbers, gauss),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "accelerator": accelerator,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore the states of all generators."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["accelerator"] is not None and device.type not in ("cpu", "meta"):
        torch.get_device_module(device).set_rng_state(states["accelerator"], device)
