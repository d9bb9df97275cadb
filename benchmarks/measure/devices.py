"""The device, and what every measuring process sets up first."""

import torch

from scripts.system.devices import choose_device, keep_freed_memory


def ready(name: str) -> torch.device:
    """Return the device of that name, ``auto`` for the accelerator if there is one.

    Freed memory is kept, as in the kit's runs, and TF32 is off, for matrix products and convolutions: it keeps 10 of 23
    bits. torch turns it on for convolutions alone, so that a patch embedding by convolution would do less work than one
    by matrix product, and its output would be further off than the check allows.
    """
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return choose_device(name)
