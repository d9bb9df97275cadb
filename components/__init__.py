"""Small standalone vision modules: one file, one class."""

from components.localization_net import LocalizationNet
from components.spatial_transformer import SpatialTransformer

__all__ = ["LocalizationNet", "SpatialTransformer"]
