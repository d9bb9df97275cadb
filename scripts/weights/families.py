"""The weights of a Vision Transformer as one family of code bases has them, and back.

The table of ``weight_names.py`` says what is renamed and laid out anew. No number is computed, so that there and back
gives the same bits. One exception: big_vision has no position for the class token.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.weights.names import FAMILIES, OTHER_SPELLINGS, entries

CLASS, POSITIONS = "embeddings.cls_token", "embeddings.pos_embed"
PATCHES = "embeddings.proj.weight"
HEAD = ("head.weight", "head.bias")
BLOCKS = "params/Transformer/encoderblock/"  # where big_vision keeps all blocks as one array
SHOWN = 3  # names in a message
DEEPEST = 1000  # blocks in one array


class Weights(NamedTuple):
    """What a file holds."""

    state: dict[str, Tensor]  # as VisionTransformer names it; without a head where the file has none
    family: str
    num_heads: int | None  # None where the family does not say it
    pre_logits: tuple[str, ...]  # names of a layer that some old files have in front of the head
    pooler: tuple[str, ...]  # names of a layer of Hugging Face's that no classifier has


def to_family(state: Mapping[str, Tensor], family: str, num_heads: int | None) -> dict[str, Tensor]:
    """Rename and lay out the ``state_dict`` of a VisionTransformer as a family has it; Flax needs to know the heads.

    Most arrays share memory with ``state``.
    """
    state, arrays = dict(state), {}
    if FAMILIES[family].column == "big_vision":
        state[CLASS] = state[CLASS] + state[POSITIONS][:, :1]
        state[POSITIONS] = state[POSITIONS][:, 1:]
    for kit, names, layout in entries(family, sizes(state)["depth"]):
        if kit in state:  # a file may lack the head
            for name, array in zip(names, state[kit].chunk(len(names)), strict=True):
                heads = {"heads": num_heads} if "heads" in layout else {}
                arrays[name] = rearrange(array, layout, **heads) if layout else array
    return _stack_blocks(arrays) if family == "big-vision-stacked" else arrays


def from_family(arrays: Mapping[str, Tensor], source: str) -> Weights:
    """The inverse of ``to_family``, for a family that the names tell; ``source`` is named in errors."""
    arrays = _common_spelling(arrays, source)
    stacked = any(name.startswith(BLOCKS) for name in arrays)
    arrays = _split_blocks(arrays) if stacked else arrays
    family = _family(arrays, source)
    pre_logits = _take(arrays, f"{FAMILIES[family].prefix}pre_logits")
    pooler = _take(arrays, "vit.pooler.")
    _check_names(arrays, family, source)
    num_heads = _check_shapes(arrays, family, source)
    state = {}
    for kit, names, layout in entries(family, _depth(arrays, family)):
        if names[0] in arrays:
            state[kit] = torch.cat([_as_in_torch(arrays[name], layout) for name in names])
    if FAMILIES[family].column == "big_vision":
        nothing = torch.full_like(state[CLASS], -0.0)  # the zero that leaves every other number as it is, 0.0 included
        state[POSITIONS] = torch.cat([nothing, state[POSITIONS]], 1)
    return Weights(state, f"{family}-stacked" if stacked else family, num_heads, pre_logits, pooler)


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The options of the VisionTransformer that has this ``state_dict``, as far as shapes say them."""
    dim, in_channels, patch_size, _ = state[PATCHES].shape
    depth = len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})
    mlp_dim = state["encoder.blocks.0.mlp.fc1.bias"].numel()
    return {"patch_size": patch_size, "dim": dim, "depth": depth, "mlp_dim": mlp_dim, "in_channels": in_channels}


def _check_names(arrays: Mapping[str, Tensor], family: str, source: str) -> None:
    """Refuse a name that is missing, and one too many; the head may be missing as a whole."""
    found = list(entries(family, _depth(arrays, family)))
    head = [name for kit, names, _ in found if kit in HEAD for name in names]
    wanted = {name: None for _, names, _ in found for name in names}  # in their order
    for name in wanted:
        if name not in arrays and (name not in head or any(other in arrays for other in head)):
            raise InputError(f"{source} must hold {name}, as {family} files do; it is missing")
    if unknown := [name for name in arrays if name not in wanted]:
        raise InputError(f"{source} must hold a Vision Transformer and nothing else; unknown are {_some(unknown)}")


def _check_shapes(arrays: Mapping[str, Tensor], family: str, source: str) -> int | None:
    """Compare all shapes with those of the network that a few of them tell; return its heads if they are told too."""
    names = {kit: names[0] for kit, names, _ in entries(family, 1)}

    def shape(kit: str, axes: int) -> torch.Size:
        found = arrays[names[kit]].shape
        if len(found) != axes:
            raise InputError(f"{source}: {names[kit]} {tuple(found)} must have {axes} axes")
        return found

    flax, patches = FAMILIES[family].flax, shape(PATCHES, 4)
    dim, in_channels, side = (patches[axis] for axis in ((3, 2, 0) if flax else (0, 1, 2)))
    tokens = shape(POSITIONS, 3)[1] + (FAMILIES[family].column == "big_vision")
    num_heads = shape("encoder.blocks.0.attn.qkv.bias", 2)[0] if flax else None
    try:
        model = VisionTransformer(
            shape("head.bias", 1)[0] if names["head.bias"] in arrays else 1,
            image_size=(side, side * (tokens - 1)), patch_size=side, dim=dim, depth=_depth(arrays, family),
            num_heads=num_heads or 1, mlp_dim=shape("encoder.blocks.0.mlp.fc1.bias", 1)[0], in_channels=in_channels,
            device="meta",
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{source} must hold a Vision Transformer; by its shapes, {error}") from None
    for name, array in to_family(model.state_dict(), family, num_heads).items():
        if name in arrays and arrays[name].shape != array.shape:
            raise InputError(f"{source}: {name} {tuple(arrays[name].shape)} must be {tuple(array.shape)}")
    return num_heads


def _family(arrays: Mapping[str, Tensor], source: str) -> str:
    """The family with the most names in common; other networks share less than half."""

    def share(family: str) -> float:
        names = [name for entry in entries(family, 1) for name in entry.names]
        return sum(name in arrays for name in names) / len(names)

    family = max(FAMILIES, key=share)
    if share(family) < 0.5:
        raise InputError(f"{source} must hold a Vision Transformer of a known family; it holds {_some(arrays)}")
    return family


def _depth(arrays: Mapping[str, Tensor], family: str) -> int:
    """The number of blocks of which anything is there."""
    found = (kit for kit, names, _ in entries(family, len(arrays)) if any(name in arrays for name in names))
    return len({kit.split(".")[2] for kit in found if kit.startswith("encoder.blocks.")})


def _common_spelling(arrays: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The names of the table where other versions of a family have others."""
    renamed: dict[str, Tensor] = {}
    for given, array in arrays.items():
        name = given
        for pattern, usual in OTHER_SPELLINGS.items():
            name = re.sub(pattern, usual, name)
        if name in renamed:
            raise InputError(f"{source} must hold {name} once; {given} is the same")
        renamed[name] = array
    if "embeddings.position_embeddings" in renamed:  # Hugging Face's encoder without a classifier around it
        return _common_spelling({f"vit.{name}": array for name, array in renamed.items()}, source)
    return renamed


def _take(arrays: dict[str, Tensor], prefix: str) -> tuple[str, ...]:
    """Remove the arrays whose names start like that, and return the names."""
    taken = tuple(name for name in arrays if name.startswith(prefix))
    for name in taken:
        del arrays[name]
    return taken


def _split_blocks(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One array a block where one holds all of them."""
    split: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if name.startswith(BLOCKS) and array.ndim and len(array) <= DEEPEST:
            split |= {name.replace("block/", f"block_{i}/", 1): block for i, block in enumerate(array)}
        else:
            split[name] = array
    return split


def _stack_blocks(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stacked: dict[str, list[Tensor]] = {}
    for name, array in arrays.items():
        stacked.setdefault(re.sub(r"block_\d+/", "block/", name), []).append(array)
    return {name: torch.stack(blocks) if name.startswith(BLOCKS) else blocks[0] for name, blocks in stacked.items()}


def _as_in_torch(array: Tensor, layout: str) -> Tensor:
    torch_layout, _, theirs = layout.partition(" -> ")
    return rearrange(array, f"{theirs} -> {torch_layout}") if layout else array


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    shown = list(names)
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
