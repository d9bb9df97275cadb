# SPDX-License-Identifier: MIT
"""Small standalone vision modules: one file, one class."""

from .attention import Attention
from .block import Block
from .encoder import Encoder
from .localization_net import LocalizationNet
from .mlp import MLP
from .patch_embeddings import PatchEmbeddings
from .spatial_transformer import SpatialTransformer

__all__ = ["MLP", "Attention", "Block", "Encoder", "LocalizationNet", "PatchEmbeddings", "SpatialTransformer"]
