"""Small standalone vision modules: one file, one class."""

from components.attention import Attention
from components.block import Block
from components.encoder import Encoder
from components.localization_net import LocalizationNet
from components.mlp import MLP
from components.patch_embeddings import PatchEmbeddings
from components.spatial_transformer import SpatialTransformer

__all__ = ["MLP", "Attention", "Block", "Encoder", "LocalizationNet", "PatchEmbeddings", "SpatialTransformer"]
