"""The tasks of the comparison: the same work in every library, with the same sizes, weights and inputs.

A task has a module of every library, the kit's first. Where a peer does more work than the others, that part is
removed, and its docstring says so. jeonsworld's ViT-pytorch is on no package index, so it is missing.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import timm
import torch
import torchvision
import transformers
from einops import rearrange
from torch import nn
from torchvision.models.vision_transformer import EncoderBlock
from transformers.models.vit.modeling_vit import ViTEmbeddings
from transformers.utils.logging import disable_progress_bar
from vit_pytorch import vit as vit_pytorch

from benchmarks.grid.workloads import warp
from benchmarks.peers import modules as wrapped
from benchmarks.peers.modules import CLASSES, NORM
from benchmarks.peers.warps import PEERS
from benchmarks.peers.weights import as_ours, drawn, loaded, renamed
from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings
from scripts.models.stn import STNClassifier
from scripts.models.vit import PRESETS, VisionTransformer
from scripts.system.machine import COMPILING_PAYS
from scripts.train_vit import RECIPES
from scripts.weights.families import to_family

KIT = "kit"
INFERENCE = frozenset({"inference"})
# parts of our parameter names -> theirs, in a block and in the tutorial's localization network
TORCH = {"attn.qkv.": "self_attn.in_proj_", "attn.proj.": "self_attn.out_proj.", "mlp.fc": "linear"}
TORCHVISION = {
    "norm": "ln_", "attn.qkv.": "self_attention.in_proj_", "attn.proj.": "self_attention.out_proj.",
    "mlp.fc1.": "mlp.0.", "mlp.fc2.": "mlp.3.",
}  # fmt: skip
VIT_PYTORCH = {
    "norm1.": "0.norm.", "attn.qkv.": "0.to_qkv.", "attn.proj.": "0.to_out.0.",
    "norm2.": "1.net.0.", "mlp.fc1.": "1.net.1.", "mlp.fc2.": "1.net.4.",
}  # fmt: skip
TUTORIAL_LOCALIZATION = {"conv1.": "0.", "conv2.": "3.", "fc1.": "7.", "fc2.": "9."}

Modules = dict[str, nn.Module]  # library -> module, the kit's first


class Task(NamedTuple):
    """One task.

    Args:
        name: The module and its size.
        build: Builds the modules of all libraries, with the same weights.
        shape: Shape of one sample.
        inference: Batch size in inference.
        training: Batch size in training.
        whole: Whether it is a whole model, trained with an optimizer; a component ends with its backward pass.
        float32: Whether it is compared in float32 only: autocast rounds the peers' grids to bfloat16, off by pixels.
        compiled: What the kit compiles by default: inference by ``for_inference``, training by its recipe on a CPU.
        features: Whether images are feature maps, which need a gradient.
        channels_last: Whether images and kernels are channels last, as in the kit's own run.
    """

    name: str
    build: Callable[[], Modules]
    shape: tuple[int, ...]
    inference: int
    training: int
    whole: bool = False
    float32: bool = False
    compiled: frozenset[str] = frozenset()
    features: bool = False
    channels_last: bool = False


def tasks(*, small: bool = False, batch: int | None = None) -> list[Task]:
    """All tasks, with their own batch sizes or a given one; ``small`` shrinks every size for a trial."""
    narrow = {"dim": 24, "num_heads": 2, "mlp_dim": 48}
    width = narrow if small else {key: PRESETS["b16"][key] for key in narrow}
    sizes = narrow | {"depth": 2} if small else {}
    batch = batch or (4 if small else None)
    few, many = (32, batch or 128, batch or 64), (224, batch or 8, batch or 4)  # pixels, images in inference, training
    found = []
    models = (("ViT-B/16", "b16", few), ("ViT-B/16", "b16-finetune", many), ("ViT-Lite-7/4", "lite", few))
    for title, recipe, (side, *batches) in models:
        model = partial(vision_transformers, RECIPES[recipe].network["preset"], side, **sizes)
        plan = RECIPES[recipe]
        steps = plan.steps or plan.epochs * -(-50_000 // plan.batch_size)  # on CIFAR-10
        pays = plan.compiled and steps >= COMPILING_PAYS
        compiled = INFERENCE | ({"training"} if pays else set())
        found.append(Task(f"{title}, {side} pixels", model, (3, side, side), *batches, whole=True, compiled=compiled))
    for side, *batches in (few, many):
        tokens = 1 + (side // 16) ** 2
        works = {"Attention": attentions, "MLP": mlps, "Block": blocks, "Encoder of 4": encoders}
        for title, build in works.items():
            component = partial(build, **width)
            found.append(Task(f"{title}, {tokens} tokens", component, (tokens, width["dim"]), *batches))
        embeddings = partial(patch_embeddings, side, width["dim"])
        found.append(Task(f"PatchEmbeddings, {side} pixels", embeddings, (3, side, side), *batches))
    for tokens, most in ((197, 8), (1024, 2)):
        masked = partial(masked_attentions, tokens, **width)
        images = batch or most
        found.append(Task(f"Attention with padding, {tokens} tokens", masked, (tokens, width["dim"]), images, images))
    for side, most in ((32, 256), (64, 256), (224, 64)):
        images = batch or most
        build = partial(warps, "Affine", images, side)
        name = f"SpatialTransformer's warp, {side} pixels"
        found.append(Task(name, build, (3, side, side), images, images, float32=True))
    for transform in PEERS:
        images = batch or 256
        build = partial(warps, transform, images, 32)
        name = f"SpatialTransformer's warp of features, {transform}, 32 pixels"
        found.append(Task(name, build, (3, 32, 32), images, images, float32=True, features=True))
    convolutions = ((3, 32, 32), batch or 256, batch or 256)
    found.append(Task("LocalizationNet, 32 pixels", localization_nets, *convolutions, channels_last=True))
    stn = Task("STN classifier, 32 pixels", stn_classifiers, *convolutions, channels_last=True)
    return [*found, stn._replace(whole=True, compiled=INFERENCE)]


def vision_transformers(preset: str, side: int, **options: int) -> Modules:
    """Classifiers; vit-pytorch's without the two norms around its patches, which no other library has."""
    size = PRESETS[preset] | options | {"dropout": 0.0, "image_size": side}
    patch, dim, depth, heads, mlp_dim = (size[key] for key in ("patch_size", "dim", "depth", "num_heads", "mlp_dim"))
    ours = drawn(VisionTransformer(CLASSES, **size))
    state = ours.state_dict()
    config = transformers.ViTConfig(
        image_size=side, patch_size=patch, hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=mlp_dim, num_labels=CLASSES, layer_norm_eps=1e-6, attn_implementation="sdpa",
    )  # fmt: skip
    disable_progress_bar()  # while weights are loaded
    hugging_face = transformers.ViTForImageClassification.from_pretrained(
        None, config=config, state_dict=to_family(state, "huggingface", None)
    )

    in_torchvision = partial(
        torchvision.models.VisionTransformer, side, patch, depth, heads, dim, mlp_dim, num_classes=CLASSES
    )
    in_timm = partial(
        timm.models.VisionTransformer, side, patch, embed_dim=dim, depth=depth, num_heads=heads,
        mlp_ratio=mlp_dim / dim, num_classes=CLASSES,
    )  # fmt: skip

    def vit_pytorchs() -> nn.Module:
        peer = vit_pytorch.ViT(
            image_size=side, patch_size=patch, num_classes=CLASSES, dim=dim, depth=depth, heads=heads, mlp_dim=mlp_dim,
            dim_head=dim // heads,
        )  # fmt: skip
        peer.to_patch_embedding[1] = peer.to_patch_embedding[3] = nn.Identity()
        return as_ours(peer)

    names = VIT_PYTORCH | {
        "encoder.": "transformer.", "blocks.": "layers.", "head.": "mlp_head.", "embeddings.cls_token": "cls_token",
        "embeddings.pos_embed": "pos_embedding", "embeddings.proj.": "to_patch_embedding.2.",
    }  # fmt: skip
    theirs = renamed(state, names)
    theirs |= {name: theirs[name][0] for name in ("cls_token", "pos_embedding")}
    patches = "to_patch_embedding.2.weight"
    theirs[patches] = rearrange(theirs[patches], "dim c p1 p2 -> dim (p1 p2 c)")
    return {
        KIT: ours,
        "torchvision": loaded(in_torchvision, to_family(state, "torchvision", None)),
        "timm": loaded(in_timm, to_family(state, "timm", None)),
        "vit-pytorch": loaded(vit_pytorchs, theirs),
        "transformers": wrapped.Logits(hugging_face),
    }


def attentions(dim: int, num_heads: int, mlp_dim: int) -> Modules:
    """Self-attention; vit-pytorch's without the norm in front of it, which no other library includes."""
    ours = drawn(Attention(dim, num_heads))
    state = ours.state_dict()

    def vit_pytorchs() -> nn.Module:
        peer = vit_pytorch.Attention(dim, heads=num_heads, dim_head=dim // num_heads)
        peer.norm = nn.Identity()
        return as_ours(peer)

    names = {"qkv.": "in_proj_", "proj.": "out_proj."}
    in_torch = loaded(lambda: nn.MultiheadAttention(dim, num_heads, batch_first=True), renamed(state, names))
    return {
        KIT: ours,
        "torch": wrapped.SelfAttention(in_torch),
        "timm": loaded(lambda: timm.layers.Attention(dim, num_heads, qkv_bias=True), state),
        "vit-pytorch": loaded(vit_pytorchs, renamed(state, {"qkv.": "to_qkv.", "proj.": "to_out.0."})),
    }


def masked_attentions(tokens: int, dim: int, num_heads: int, mlp_dim: int) -> Modules:
    """Self-attention whose last tenth of tokens is hidden; vit-pytorch's takes no mask."""
    real = torch.arange(tokens) < tokens - tokens // 10
    modules = attentions(dim, num_heads, mlp_dim)
    kit, in_torch, in_timm = (modules[name] for name in (KIT, "torch", "timm"))
    return {
        KIT: wrapped.Masked(kit, "mask", real[None, None, None]),
        "torch": wrapped.Masked(in_torch, "key_padding_mask", ~real[None]),
        "timm": wrapped.Masked(in_timm, "attn_mask", real[None, None, None]),
    }


def mlps(dim: int, num_heads: int, mlp_dim: int) -> Modules:
    """Two linear layers and a GELU; vit-pytorch's without the norm in front of them."""
    ours = drawn(MLP(dim, mlp_dim))
    state = ours.state_dict()

    in_torchvision = partial(torchvision.ops.MLP, dim, [mlp_dim, dim], activation_layer=nn.GELU)

    def vit_pytorchs() -> nn.Module:
        peer = vit_pytorch.FeedForward(dim, mlp_dim)
        peer.net[0] = nn.Identity()
        return peer

    return {
        KIT: ours,
        "torchvision": loaded(in_torchvision, renamed(state, {"fc1.": "0.", "fc2.": "3."})),
        "timm": loaded(lambda: timm.layers.Mlp(dim, mlp_dim), state),
        "vit-pytorch": loaded(vit_pytorchs, renamed(state, {"fc1.": "net.1.", "fc2.": "net.4."})),
    }


def blocks(dim: int, num_heads: int, mlp_dim: int) -> Modules:
    """Attention and MLP, each with a norm before it and a residual connection."""
    ours = drawn(Block(dim, num_heads, mlp_dim=mlp_dim))
    state = ours.state_dict()
    in_timm = partial(timm.models.vision_transformer.Block, mlp_ratio=mlp_dim / dim, qkv_bias=True, norm_layer=NORM)
    return {
        KIT: ours,
        "torch": loaded(lambda: wrapped.torch_block(dim, num_heads, mlp_dim), renamed(state, TORCH)),
        "torchvision": loaded(lambda: EncoderBlock(num_heads, dim, mlp_dim, 0.0, 0.0), renamed(state, TORCHVISION)),
        "timm": loaded(lambda: in_timm(dim, num_heads), state),
    }


def encoders(dim: int, num_heads: int, mlp_dim: int) -> Modules:
    """Four blocks and a norm."""
    depth = 4
    ours = drawn(Encoder(dim, depth, num_heads=num_heads, mlp_dim=mlp_dim))
    state = ours.state_dict()

    def torchs() -> nn.Module:
        block = wrapped.torch_block(dim, num_heads, mlp_dim)
        return nn.TransformerEncoder(block, depth, norm=NORM(dim), enable_nested_tensor=False)

    def vit_pytorchs() -> nn.Module:
        return as_ours(vit_pytorch.Transformer(dim, depth, num_heads, dim // num_heads, mlp_dim))

    return {
        KIT: ours,
        "torch": loaded(torchs, renamed(state, TORCH | {"blocks.": "layers."})),
        "vit-pytorch": loaded(vit_pytorchs, renamed(state, VIT_PYTORCH | {"blocks.": "layers."})),
    }


def patch_embeddings(side: int, dim: int) -> Modules:
    """Patches as tokens after a class token, with positions; timm's module does the first step alone."""
    ours = drawn(PatchEmbeddings(side, 16, dim=dim))
    state = ours.state_dict()
    config = transformers.ViTConfig(image_size=side, patch_size=16, hidden_size=dim)
    in_transformers = {"pos_embed": "position_embeddings", "proj.": "patch_embeddings.projection."}
    return {
        KIT: ours,
        "timm": loaded(lambda: wrapped.TimmEmbeddings(side, dim), renamed(state, {"proj.": "patches.proj."})),
        "transformers": loaded(lambda: ViTEmbeddings(config), renamed(state, in_transformers)),
    }


def warps(transform: str, batch: int, side: int) -> Modules:
    """A warp with other parameters for every image."""
    ours = warp(batch, transform, align_corners=True)
    params = ours.localization.params.detach()
    in_torch, in_kornia, theirs = PEERS[transform](params, side)
    return {KIT: ours, "torch": wrapped.Warp(in_torch, params), "kornia": wrapped.Warp(in_kornia, theirs)}


def localization_nets() -> Modules:
    """The tutorial's layers for localization, in one module."""
    ours = drawn(LocalizationNet())
    state = renamed(ours.state_dict(), TUTORIAL_LOCALIZATION)
    return {KIT: ours, "torch": loaded(wrapped.tutorial_localization, state)}


def stn_classifiers(dropout: float = 0.0) -> Modules:
    """The tutorial's network for three channels; with dropout, each draws its own random numbers."""
    ours = drawn(STNClassifier(dropout=dropout))
    names = {f"transformer.localization.{name}": f"localization.{new}" for name, new in TUTORIAL_LOCALIZATION.items()}
    theirs = loaded(lambda: wrapped.TutorialNetwork(dropout), renamed(ours.state_dict(), names))
    return {KIT: ours, "torch": theirs}
