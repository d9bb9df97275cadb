"""Wrappers to call modules of other libraries like the kit's, and the network of the PyTorch tutorial.

The tutorial is a web page, not a package, so its network is written out.
"""

from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10
NORM = partial(nn.LayerNorm, eps=1e-6)


def tutorial_localization() -> nn.Sequential:
    """Two convolutions and two linear layers, as in the PyTorch tutorial, for images of 32 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=7), nn.MaxPool2d(2, stride=2), nn.ReLU(True),
        nn.Conv2d(8, 10, kernel_size=5), nn.MaxPool2d(2, stride=2), nn.ReLU(True),
        nn.Flatten(), nn.Linear(10 * 4 * 4, 32), nn.ReLU(True), nn.Linear(32, 6),
    )  # fmt: skip


class TutorialNetwork(nn.Module):
    """The network of the PyTorch tutorial, for images of 32 pixels and three channels; its dropout is 0.5."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.localization = tutorial_localization()
        self.conv1 = nn.Conv2d(3, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.fc1 = nn.Linear(500, 50)
        self.fc2 = nn.Linear(50, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.localization(x).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.size()), align_corners=False), align_corners=False)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(F.dropout2d(self.conv2(x), self.dropout, self.training), 2))
        return self.fc2(F.dropout(F.relu(self.fc1(x.flatten(1))), self.dropout, self.training))


class Warp(nn.Module):
    """A function of images and of a matrix, which is the parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], parameters: Tensor) -> None:
        super().__init__()
        self.function, self.matrix = function, nn.Parameter(parameters.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.matrix[: len(x)])


class Logits(nn.Module):
    """A model of transformers that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of a sequence with itself."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        return self.attention(x, x, x, key_padding_mask, need_weights=False)[0]


class Masked(nn.Module):
    """Attention with a mask, under the name that its library has for it; every sample has its own rows of it."""

    def __init__(self, attention: nn.Module, name: str, mask: Tensor) -> None:
        super().__init__()
        self.attention, self.name = attention, name
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, **{self.name: self.mask.repeat(len(x), *(1,) * (self.mask.ndim - 1))})


class TimmEmbeddings(nn.Module):
    """timm's patch embedding, then class token and positions as its networks add them."""

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.patches = timm.layers.PatchEmbed(side, 16, embed_dim=dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patches.num_patches, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed


def torch_block(dim: int, num_heads: int, mlp_dim: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        dim, num_heads, mlp_dim, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
