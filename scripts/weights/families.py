"""Convert Vision Transformer weights between the kit and other families of code bases.

Arrays are renamed and rearranged as the tables in ``names.py`` and ``hybrid.py`` say. No number is computed, so that a
round trip gives the same bits. There are two exceptions: big_vision has no position for the class token, and DINOv2 has
LayerScale.

    LayerScale(W x + b) = factors * (W x + b) = (diag(factors) W) x + factors * b
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from scripts.models.resnet import stride_of
from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.weights import hybrid, kit
from scripts.weights.names import FAMILIES, STACK, Entry, entries, layer_scales
from scripts.weights.search import some

CLASS, POSITIONS = "embeddings.cls_token", "embeddings.pos_embed"
PATCHES = "embeddings.proj.weight"
PIXELS, FRONT = "resnet.stem.conv.weight", "stem.first.weight"  # what pixels go through in front of the patches
HEAD = ("head.weight", "head.bias")
DEEPEST = 1000  # most blocks in one array


class Weights(NamedTuple):
    """The content of a file of weights."""

    state: dict[str, Tensor]  # a state_dict of VisionTransformer, without the head if the file has none
    family: str
    num_heads: int | None  # None if the file does not tell
    pre_logits: tuple[str, ...]  # names of a layer that some old files have before the head
    grid: tuple[int, int] | None = None  # rows and columns of patches; None if the file does not tell
    notes: tuple[str, ...] = ()  # on what else the file holds


def to_family(state: Mapping[str, Tensor], family: str, num_heads: int | None) -> dict[str, Tensor]:
    """Convert the ``state_dict`` of a VisionTransformer to a family; the layout of Flax depends on the heads.

    Most arrays share memory with ``state``.
    """
    state, arrays = dict(state), {}
    if FAMILIES[family].column == "big_vision":
        state[CLASS] = state[CLASS] + state[POSITIONS][:, :1]
        state[POSITIONS] = state[POSITIONS][:, 1:]
    for own, names, layout in _network(state, "kit", family):
        if own in state:  # the head may be missing
            for name, array in zip(names, state[own].chunk(len(names)), strict=True):
                heads = {"heads": num_heads} if "heads" in layout else {}
                arrays[name] = rearrange(array, layout, **heads) if layout else array
    return _stack_blocks(arrays) if family == "big-vision-stacked" else arrays


def from_family(arrays: Mapping[str, Tensor], family: str, source: str) -> Weights:
    """Invert ``to_family``; errors name ``source``."""
    pre_logits = tuple(name for name in arrays if name.startswith(f"{FAMILIES[family].prefix}pre_logits"))
    arrays = _split_blocks({name: array for name, array in arrays.items() if name not in pre_logits})
    _check_names(arrays, family, source)
    arrays = hybrid.with_four_axes(arrays, family, hybrid.units_of(arrays, family))
    num_heads = _check_shapes(arrays, family, source)
    state = {}
    for own, names, layout in _network(arrays, family, family):
        if names[0] in arrays:
            state[own] = torch.cat([_as_in_torch(arrays[name], layout) for name in names])
    if FAMILIES[family].column == "big_vision":
        zero = torch.full_like(state[CLASS], -0.0)  # adding -0.0 keeps the bits of every number, 0.0 included
        state[POSITIONS] = torch.cat([zero, state[POSITIONS]], 1)
    for layer, name in layer_scales(family, _depth(arrays, family)):
        weight, bias, factors = (
            _exact(array) for array in (state[f"{layer}.weight"], state[f"{layer}.bias"], arrays[name])
        )
        folded = {f"{layer}.weight": factors[:, None] * weight, f"{layer}.bias": factors * bias}
        if not all(array.isfinite().all() for array in folded.values()):
            wanted = f"must be small enough that its products with {layer.split('.', 3)[3]} are finite"
            raise InputError(f"{source}: {name} {tuple(factors.shape)} {wanted}")
        state |= folded
    return Weights(state, family, num_heads, pre_logits)


def sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options of VisionTransformer that the shapes of a ``state_dict`` determine."""
    dim, in_channels, patch_size, _ = state[PATCHES].shape
    if resnet := hybrid.units_of(state, "kit"):
        in_channels, patch_size = state[PIXELS].shape[1], patch_size * stride_of(resnet)
    own = kit.options_of(state)
    if stem := own.get("stem", ()):
        in_channels, patch_size = state[FRONT].shape[1], patch_size * 2 ** len(stem)
    depth = len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})
    mlp_dim = state["encoder.blocks.0.mlp.fc1.bias"].numel()
    return {
        "patch_size": patch_size, "dim": dim, "depth": depth, "mlp_dim": mlp_dim, "in_channels": in_channels,
        "resnet": resnet, "stem": stem, "pool": own.get("pool"),
    }  # fmt: skip


def _network(arrays: Mapping[str, Tensor], family: str, other: str) -> list[Entry]:
    """Return every entry of the network that arrays of a family belong to, with the names of another family."""
    front = [*hybrid.entries(other, hybrid.units_of(arrays, family))]
    if family == other == "kit":
        front += kit.entries(arrays)
    return [*front, *entries(other, _depth(arrays, family))]


def _check_names(arrays: Mapping[str, Tensor], family: str, source: str) -> None:
    """Raise InputError for missing and unknown names; the whole head may be missing."""
    found = _network(arrays, family, family)
    head = [name for own, names, _ in found if own in HEAD for name in names]
    wanted = {name: None for _, names, _ in found for name in names}  # in their order
    wanted |= {name: None for _, name in layer_scales(family, _depth(arrays, family))}
    for name in wanted:
        if name not in arrays and (name not in head or any(other in arrays for other in head)):
            raise InputError(f"{source} must hold {name}, as {family} files do; it is missing")
    unknown = [name for name in arrays if name not in wanted]
    if registers := [name for name in unknown if name.endswith("register_tokens")]:
        raise InputError(
            f"{source} must hold no register tokens, which the kit has no place for; it has {registers[0]}"
        )
    if unknown:
        raise InputError(f"{source} must hold only a Vision Transformer; unknown names: {some(unknown)}")


def _check_shapes(arrays: Mapping[str, Tensor], family: str, source: str) -> int | None:
    """Derive the network from a few shapes and check all others; return its number of heads if the file has it."""
    names = {own: names[0] for own, names, _ in _network(arrays, family, family)}

    def shape(own: str, axes: int) -> torch.Size:
        found = arrays[names[own]].shape
        if len(found) != axes:
            raise InputError(f"{source}: {names[own]} {tuple(found)} must have {axes} axes")
        return found

    flax, patches = FAMILIES[family].flax, shape(PATCHES, 4)
    dim, in_channels, side = (patches[axis] for axis in ((3, 2, 0) if flax else (0, 1, 2)))
    if resnet := hybrid.units_of(arrays, family):
        in_channels, side = shape(PIXELS, 4)[2 if flax else 1], side * stride_of(resnet)
    own = kit.options_of(arrays) if family == "kit" else {}
    if stem := own.get("stem"):
        in_channels, side = shape(FRONT, 4)[1], side * 2 ** len(stem)
    tokens = shape(POSITIONS, 3)[1] + (FAMILIES[family].column == "big_vision")
    num_heads = shape("encoder.blocks.0.attn.qkv.bias", 2)[0] if flax else None
    try:
        model = VisionTransformer(
            shape("head.bias", 1)[0] if names.get("head.bias") in arrays else 1,
            image_size=(side, side * (tokens - 1)), patch_size=side, dim=dim, depth=_depth(arrays, family),
            num_heads=num_heads or 1, mlp_dim=shape("encoder.blocks.0.mlp.fc1.bias", 1)[0], in_channels=in_channels,
            resnet=resnet, device="meta", **own,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{source} must hold the shapes of a Vision Transformer; {error}") from None
    wanted = _split_blocks(to_family(model.state_dict(), family, num_heads))
    shapes = {name: tuple(array.shape) for name, array in wanted.items()}
    shapes |= {name: (dim,) for _, name in layer_scales(family, _depth(arrays, family))}
    for name, wanted_shape in shapes.items():
        if name in arrays and arrays[name].shape != wanted_shape:
            raise InputError(f"{source}: {name} {tuple(arrays[name].shape)} must be {wanted_shape}")
    return num_heads


def _depth(arrays: Mapping[str, Tensor], family: str) -> int:
    """Return the number of blocks of which any array exists."""
    found = (own for own, names, _ in entries(family, len(arrays)) if any(name in arrays for name in names))
    return len({own.split(".")[2] for own in found if own.startswith("encoder.blocks.")})


def _split_blocks(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split arrays of all blocks into one array a block."""
    split: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if STACK in name and array.ndim and len(array) <= DEEPEST:
            split |= {name.replace("block/", f"block_{i}/", 1): block for i, block in enumerate(array)}
        else:
            split[name] = array
    return split


def _stack_blocks(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stacked: dict[str, list[Tensor]] = {}
    for name, array in arrays.items():
        stacked.setdefault(re.sub(r"block_\d+/", "block/", name), []).append(array)
    return {name: torch.stack(blocks) if STACK in name else blocks[0] for name, blocks in stacked.items()}


def _exact(array: Tensor) -> Tensor:
    """Half precision as float32: factors may be so small that a product is 0 in float16."""
    return array.to(torch.promote_types(array.dtype, torch.float32))


def _as_in_torch(array: Tensor, layout: str) -> Tensor:
    torch_layout, _, theirs = layout.partition(" -> ")
    return rearrange(array, f"{theirs} -> {torch_layout}") if layout else array
