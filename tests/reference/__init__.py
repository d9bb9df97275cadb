"""The components once more, in float64, slowly and another way: loops and einsum instead of torch's layers."""

from tests.reference.localization_net import localization_net
from tests.reference.spatial_transformer import spatial_transformer, warp

__all__ = ["localization_net", "spatial_transformer", "warp"]
