"""The workloads: every component and both models, in common sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import flops
from benchmarks.measure.flops import Work
from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings, SpatialTransformer
from scripts.models.stn import STNClassifier
from scripts.models.vit import PRESETS, VisionTransformer

VITS = {"b16-32px": ("b16", 32), "b16-224px": ("b16", 224), "lite-32px": ("lite", 32)}  # name -> preset, pixels
TRANSFORMS = {"Similarity": (2, 3), "Projective": (3, 3), "ThinPlateSpline": (2, 16)}  # besides affine; shape of theta
STNS = {f"{side}px": side for side in (32, 64, 224)}


class Fixed(nn.Module):
    """A localization module that costs nothing: the parameters of the transform, near its identity, are its own."""

    def __init__(self, batch: int, identity: Sequence[float] = (1, 0, 0, 0, 1, 0)) -> None:
        super().__init__()
        self.params = nn.Parameter(torch.tensor(identity) + 0.1 * torch.randn(batch, len(identity)))

    def forward(self, x: Tensor) -> Tensor:
        return self.params[: x.shape[0]]


def warp(batch: int, transform: str, *, align_corners: bool = False) -> SpatialTransformer:
    """A warp by one of ``components.transforms``."""
    from components import transforms  # here, because a tree to compare with may be older than they are

    chosen = getattr(transforms, transform)()
    return SpatialTransformer(Fixed(batch, chosen.identity), transform=chosen, align_corners=align_corners)


def channels_last(network: nn.Module) -> nn.Module:
    """The same network with its kernels as in a run."""
    return network.to(memory_format=torch.channels_last)


def nowhere_zero(module: nn.Module) -> nn.Module:
    """Draw the weights that start at zero: behind a head of zeros, no error would show."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return module


@dataclass(frozen=True)
class Workload:
    """A component or model of one size.

    Args:
        build: Builds the module for a batch of this size.
        shape: Shape of one image, or of its tokens, which need a gradient.
        work: FLOPs and memory traffic for a batch of this size.
    """

    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    work: Callable[[int], Work]


def workloads() -> dict[str, Workload]:
    """All workloads by name."""
    found: dict[str, Workload] = {}
    for name, side in STNS.items():
        parts = {
            "LocalizationNet": (lambda _: channels_last(LocalizationNet()), flops.localization_net),
            "SpatialTransformer": (lambda batch: SpatialTransformer(Fixed(batch)), flops.warp),
            "STNClassifier": (lambda _: channels_last(STNClassifier(dropout=0.0)), flops.stn_classifier),
        }
        for kind, (build, work) in parts.items():
            found[f"{kind}-{name}"] = Workload(build, (3, side, side), partial(work, side=side))
    for transform, size in TRANSFORMS.items():
        work = partial(flops.warp, side=32, theta=size)
        found[f"SpatialTransformer-{transform}-32px"] = Workload(partial(warp, transform=transform), (3, 32, 32), work)
    for name, (preset, side) in VITS.items():
        found |= {f"{kind}-{name}": each for kind, each in vision_transformer_workloads(preset, side).items()}
    return found


def vision_transformer_workloads(preset: str, side: int) -> dict[str, Workload]:
    """A Vision Transformer and its parts, at one image size."""
    patch, dim, heads, mlp_dim, depth = (
        PRESETS[preset][key] for key in ("patch_size", "dim", "num_heads", "mlp_dim", "depth")
    )
    image, tokens = (3, side, side), (1 + (side // patch) ** 2, dim)
    wide: dict[str, Any] = {"tokens": tokens[0], "dim": dim}
    inner: dict[str, Any] = wide | {"mlp_dim": mlp_dim}
    whole: dict[str, Any] = {"side": side, "patch": patch, "dim": dim, "mlp_dim": mlp_dim, "depth": depth}
    encoder = partial(Encoder, dim, depth, num_heads=heads, mlp_dim=mlp_dim)
    network = partial(VisionTransformer.from_preset, preset, image_size=side, dropout=0.0)
    embedding = partial(flops.patch_embeddings, side=side, patch=patch, dim=dim)
    return {
        "PatchEmbeddings": Workload(lambda _: PatchEmbeddings(side, patch, dim=dim), image, embedding),
        "Attention": Workload(lambda _: Attention(dim, heads), tokens, partial(flops.attention, **wide)),
        "MLP": Workload(lambda _: MLP(dim, mlp_dim), tokens, partial(flops.mlp, **inner)),
        "Block": Workload(lambda _: Block(dim, heads, mlp_dim=mlp_dim), tokens, partial(flops.block, **inner)),
        "Encoder": Workload(lambda _: encoder(), tokens, partial(flops.encoder, **inner, depth=depth)),
        "VisionTransformer": Workload(lambda _: network(), image, partial(flops.vision_transformer, **whole)),
    }


WORKLOADS = workloads()
