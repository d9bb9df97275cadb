"""Compile a network with ``torch.compile``, for training or for inference."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scripts.system.machine import this_machine


class Compiled(nn.Module):
    """A network for training that is compiled for full batches only.

    A second graph for the last batch of an epoch would take longer to compile than it saves. And whether a batch is
    compiled, which decides its bits, must not depend on the batches before it: a run may resume at any of them.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        super().__init__()
        self.network = network
        self.batch = batch
        self.graph = torch.compile(network, dynamic=False)

    def forward(self, images: Tensor, **options: Any) -> Any:
        """Return the output of the network, which gets the options as they are."""
        return (self.graph if 0 < len(images) == self.batch else self.network)(images, **options)


def for_inference(network: nn.Module, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """Compile a network with its weights as constants, which are cast and packed once rather than in every call.

    The first call takes up to a minute, and so does the first call with another batch size. Later changes of the
    weights have no effect.

    Args:
        network: On its device; it is put into evaluation mode.
        dtype: The autocast type; by default that of precision ``auto`` on the device.

    Returns:
        A function from images to the output of the network, without gradients.
    """
    from torch._inductor import config as inductor  # the import takes as long as that of torch

    device = next(network.parameters()).device
    dtype = dtype or this_machine(device).dtype
    compiled = torch.compile(network.eval())

    def ask(images: Tensor) -> Tensor:
        # the option "freezing" of torch.compile is applied too late: weights would still be arguments, and not packed
        freezing = inductor.patch(freezing=True)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32), freezing:
            output: Tensor = compiled(images)
        return output

    return ask
