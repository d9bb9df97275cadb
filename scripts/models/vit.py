"""The Vision Transformer, put together from the components."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

import torch
from torch import Tensor, nn

from components import Encoder, PatchEmbeddings
from components.attention import joined, parted, rate, whole
from scripts.models.conv_stem import ConvStem
from scripts.models.resnet import ResNet
from scripts.models.sizes import size

# The sizes in table 1 of the paper, and the dropout of its pretraining on ImageNet-21k; ``lite`` is ViT-Lite-7/4 of
# "Escaping the Big Data Paradigm with Compact Transformers" (https://arxiv.org/abs/2104.05704)
PRESETS: dict[str, dict[str, Any]] = {
    "b16": {"patch_size": 16, "dim": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072, "dropout": 0.1},
    "b32": {"patch_size": 32, "dim": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072, "dropout": 0.1},
    "l16": {"patch_size": 16, "dim": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096, "dropout": 0.1},
    "l32": {"patch_size": 32, "dim": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096, "dropout": 0.1},
    "h14": {"patch_size": 14, "dim": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120, "dropout": 0.1},
    "s14": {  # DINOv2's small network
        "image_size": 518, "patch_size": 14, "dim": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536,
        "interpolation": "bicubic",
    },
    "lite": {"image_size": 32, "patch_size": 4, "dim": 256, "depth": 7, "num_heads": 4, "mlp_dim": 512},
    "compact": {
        "image_size": 32, "patch_size": 8, "stem": (64, 256, 256), "dim": 256, "depth": 4, "num_heads": 4,
        "mlp_dim": 512,
    },
}  # fmt: skip
PRESETS["r50-b16"] = PRESETS["b16"] | {"resnet": (3, 4, 9)}  # the paper's R50+ViT-B/16


def heads_of_width(dim: int) -> int | None:
    """Return the number of attention heads of the presets with this width, None if there is none."""
    return next((preset["num_heads"] for preset in PRESETS.values() if preset["dim"] == dim), None)


FEWEST_PATCHES = 16  # with fewer, most of the structure lies within patches, where attention cannot see it


def few_patches_warning(patches: int, size: Sequence[int], *, convolutions: bool = False) -> str:
    """Return a warning if there are too few patches, else an empty string; without convolutions also what to do."""
    if patches >= FEWEST_PATCHES:
        return ""
    warning = f"an image of {size[0]}x{size[1]} pixels is only {patches} patches, too few for attention to work with"
    better = "recipe compact, with convolutions in front of its patches, learns far more from images as small as these"
    return warning if convolutions else f"{warning}; {better}"


def on_map(name: str, pixels: SupportsIndex, stride: int) -> int:
    """Return a length in cells of a feature map with this stride."""
    pixels = whole(f"VisionTransformer: {name}", pixels)
    if pixels % stride:
        raise ValueError(
            f"VisionTransformer: {name} ({pixels}) must be a multiple of {stride}, the stride in front of the patches"
        )
    return pixels // stride


def drop_patches(tokens: Tensor, share: float) -> Tensor:
    """Drop a random share of each image's patches: (B, 1 + N, D) -> (B, 1 + (1 - share) N, D)."""
    batch, count, dim = tokens.shape[0], tokens.shape[1] - 1, tokens.shape[2]
    kept = torch.rand(batch, count, device=tokens.device).argsort(1)[:, : max(1, round((1 - share) * count))]
    patches = tokens[:, 1:].gather(1, kept[..., None].expand(-1, -1, dim))
    return torch.cat([tokens[:, :1], patches], 1)


def pooled(tokens: Tensor, score: nn.Module) -> Tensor:
    """Return the mean of all tokens, weighted by a softmax of their scores: (B, N, D) -> (B, D)."""
    return (score(tokens).softmax(1) * tokens).sum(1)


for _name in ("drop_patches", "joined", "parted"):  # torch.fx, which follows no branch, calls them as they are
    torch.fx.wrap(_name)


class VisionTransformer(nn.Module):
    """Patches, encoder and a linear head, as in "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).

    The class is read from the class token. The head starts at zero, so that the first prediction is uniform.

    Args:
        num_classes: Length of the output.
        image_size: Height and width in pixels that the positions are learned for; other sizes resample them.
        patch_size: Side of a patch in pixels.
        dim: Width of a token.
        depth: Number of blocks.
        num_heads: Number of attention heads in each block.
        mlp_dim: Hidden width of each MLP.
        in_channels: Channels of the image.
        resnet: Number of units in each stage of a ``ResNet`` in front of the patches, which are then cut from its
            feature map; empty for none.
        stem: Widths of the stages of a ``ConvStem`` in front of the patches instead; empty for none.
        pool: What the head reads: the class ``token``, or the ``sequence``, which is a mean of all patches with learned
            weights, as in Compact Transformers (https://arxiv.org/abs/2104.05704).
        qkv_bias: Whether q, k and v have a bias.
        dropout: Probability of dropping an element of the tokens, of any branch and of any MLP's hidden layer.
        attn_dropout: Probability of dropping an attention weight.
        stochastic_depth: Probability that a sample skips a branch of the last block; linear in depth before it.
        patch_dropout: Share of the patches that training drops, drawn for each image, which makes a step faster by
            about that share (https://arxiv.org/abs/2208.07220).
        interpolation: How positions are resampled for another image size.
        checkpointing: Compute the inside of every block once more in the backward pass instead of keeping it.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (B, in_channels, H, W), any H and W that ``patch_size`` divides.
        - Output: (B, num_classes) logits; with ``return_weights=True`` also the attention weights of every layer
          (B, depth, num_heads, 1 + N, 1 + N), N patches behind the class token.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        in_channels: int = 3,
        resnet: Sequence[int] = (),
        stem: Sequence[int] = (),
        pool: str = "token",
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        patch_dropout: float = 0.0,
        interpolation: str = "bicubic-antialias",
        checkpointing: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_classes = size("VisionTransformer: num_classes", num_classes)
        self.patch_dropout = rate("VisionTransformer: patch_dropout", patch_dropout)
        if resnet and stem:
            raise ValueError(f"VisionTransformer: stem ({stem}) must be empty with a resnet ({resnet})")
        if pool not in ("token", "sequence"):
            raise ValueError(f"VisionTransformer: pool ({pool!r}) must be token or sequence")
        self.resnet = ResNet(resnet, in_channels=in_channels, device=device, dtype=dtype) if resnet else None
        self.stem = ConvStem(stem, in_channels=in_channels, device=device, dtype=dtype) if stem else None
        if (front := self.resnet or self.stem) is not None:
            sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
            image_size = tuple(on_map("image_size", side, front.stride) for side in sides)  # type: ignore[assignment]
            patch_size = on_map("patch_size", patch_size, front.stride)
            in_channels = front.out_channels
        self.embeddings = PatchEmbeddings(
            image_size, patch_size, dim=dim, in_channels=in_channels, dropout=dropout, interpolation=interpolation,
            device=device, dtype=dtype,
        )  # fmt: skip
        self.encoder = Encoder(
            dim, depth, num_heads=num_heads, mlp_dim=mlp_dim, qkv_bias=qkv_bias, dropout=dropout,
            attn_dropout=attn_dropout, stochastic_depth=stochastic_depth, checkpointing=checkpointing,
            device=device, dtype=dtype,
        )  # fmt: skip
        self.pool = nn.Linear(self.encoder.dim, 1, device=device, dtype=dtype) if pool == "sequence" else None
        self.head = nn.Linear(self.encoder.dim, num_classes, device=device, dtype=dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_preset(cls, preset: str, num_classes: int = 10, **options: Any) -> "VisionTransformer":
        """Build one of ``PRESETS``; ``options`` override its values."""
        if preset not in (*PRESETS,):  # a list cannot be looked up in a dict
            raise ValueError(f"VisionTransformer: preset ({preset!r}) must be one of {(*PRESETS,)}")
        return cls(num_classes, **(PRESETS[preset] | options))

    @overload
    def forward(self, x: Tensor, return_weights: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_weights: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(self, x: Tensor, return_weights: bool) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, return_weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits, and the attention weights of every layer where they are asked for."""
        if self.resnet is not None:
            x = self.resnet(x)  # (B, C, H / S, W / S)
        if self.stem is not None:
            x = self.stem(x)  # (B, C, H / S, W / S)
        x = self.embeddings(x)  # (B, 1 + N, D)
        if self.training and self.patch_dropout:
            x = drop_patches(x, self.patch_dropout)
        first = 1 if self.pool is None else None  # the head reads the class token alone
        x, weights = parted(self.encoder(x, return_weights=return_weights, first=first))
        x = x[:, 0] if self.pool is None else pooled(x[:, 1:], self.pool)  # (B, D)
        return joined(self.head(x), weights)  # (B, classes), (B, L, heads, 1 + N, 1 + N)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own returns Any
