"""One block after the other."""

from torch import Tensor, nn

from tests.reference.block import block, layer_norm


def encoder(module: nn.Module, x: Tensor) -> Tensor:
    """Every block, then the final norm."""
    for layer in module.blocks:
        x = block(layer, x)
    return layer_norm(module.norm, x)
