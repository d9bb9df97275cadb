"""The device, and what every measuring process sets up first."""

import torch

from scripts.system.devices import choose_device, keep_freed_memory


def ready(name: str, *, keeping: bool = True) -> torch.device:
    """Return the device of that name, with TF32 off.

    Args:
        name: ``auto`` is the accelerator if there is one.
        keeping: Whether memory of freed tensors is kept for the next ones, as in the kit's runs.
    """
    if keeping:
        keep_freed_memory()
    full_float32()
    return choose_device(name)


def full_float32() -> None:
    """Turn TF32 off, for matrix products and convolutions.

    It keeps 10 of 23 bits. torch turns it on for convolutions alone, so that a patch embedding by convolution would do
    less work than one by matrix product, and its output would be further off than the check allows.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
