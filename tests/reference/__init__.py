"""Independent implementations of the components in float64: slow, with loops and einsum instead of torch's layers."""

from tests.reference.attention import attention
from tests.reference.block import block, layer_norm
from tests.reference.encoder import encoder
from tests.reference.localization_net import localization_net
from tests.reference.mlp import mlp
from tests.reference.patch_embeddings import patch_embeddings, resize
from tests.reference.spatial_transformer import spatial_transformer, warp

__all__ = [
    "attention", "block", "encoder", "layer_norm", "localization_net", "mlp", "patch_embeddings", "resize",
    "spatial_transformer", "warp",
]  # fmt: skip
