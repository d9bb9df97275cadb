"""The device, and what every process that measures does before anything else."""

import torch

from scripts.system.devices import choose_device, keep_freed_memory


def ready(name: str, *, keeping: bool = True) -> torch.device:
    """The device of that name, with float32 as it should be.

    Args:
        name: ``auto`` is the accelerator, where there is one.
        keeping: Whether the memory of freed tensors serves the next ones, as in the kit's runs.
    """
    if keeping:
        keep_freed_memory()
    full_float32()
    return choose_device(name)


def full_float32() -> None:
    """Turn TF32 off, for products and for convolutions.

    It keeps 10 bits of 23. torch has it on for convolutions alone, so that whoever convolves would do less work than
    who multiplies, and would be further off than our check allows.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
