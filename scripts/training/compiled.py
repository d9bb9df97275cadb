"""A network through ``torch.compile``: for training, and for inference alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scripts.system.machine import this_machine


class Compiled(nn.Module):
    """A network for training, with a graph for whole batches alone.

    A second one, for what is left at the end of an epoch, would take longer to compile than it saves. And which way a
    batch goes, and so its bits, must not depend on those before it: a run may go on from any of them.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        super().__init__()
        self.network = network
        self.batch = batch
        self.graph = torch.compile(network, dynamic=False)

    def forward(self, images: Tensor) -> Tensor:
        """What the network returns."""
        output: Tensor = self.graph(images) if 0 < len(images) == self.batch else self.network(images)
        return output


def for_inference(network: nn.Module, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """Compile a network with its weights as constants, which are cast and packed once instead of in every call.

    The first call takes up to a minute, and so does the first one with another batch size. What becomes of the weights
    after it is not seen.

    Args:
        network: On its device; it is put into evaluation mode.
        dtype: Of the computation, under autocast; by default what the runs choose on that device.

    Returns:
        From images to what the network returns, without gradients.
    """
    from torch._inductor import config as inductor  # as much as torch itself, which runs that compile nothing need not

    device = next(network.parameters()).device
    dtype = dtype or this_machine(device).dtype
    compiled = torch.compile(network.eval())

    def ask(images: Tensor) -> Tensor:
        # torch.compile's own option "freezing" comes too late: weights would still be arguments, and nothing is packed
        freezing = inductor.patch(freezing=True)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32), freezing:
            output: Tensor = compiled(images)
        return output

    return ask
