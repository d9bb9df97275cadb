"""Load and save Vision Transformer weights as files of any family."""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor

from components import Attention
from components.patch_embeddings import resize_pos_embed
from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.weights.families import HEAD, POSITIONS, Weights, from_family, sizes, to_family
from scripts.weights.files import read_arrays, write_arrays


def read_weights(path: Path) -> Weights:
    """Read a file of any family, which is recognised by its names.

    Raises:
        InputError: If the file is damaged or holds no Vision Transformer: a name or shape is wrong, missing or unknown.
    """
    return from_family(read_arrays(path), str(path))


def write_weights(path: Path, state: Mapping[str, Tensor], family: str, num_heads: int | None) -> None:
    """Write the ``state_dict`` of a VisionTransformer as a file of a family, of the kind that the suffix says."""
    write_arrays(path, to_family(state, family, num_heads))


def load_weights(model: VisionTransformer, path: Path) -> list[str]:
    """Copy a file of any family into ``model``, and return notes on what was done, a line each.

    If the file has another number of classes or no head, the head is zero, as in a new network. Positions of another
    grid are resampled with the interpolation of ``model``.

    Raises:
        InputError: If the file cannot be read or belongs to another network.
    """
    state, family, num_heads, pre_logits, pooler = read_weights(path)
    own, heads = model.state_dict(), next(part.num_heads for part in model.modules() if isinstance(part, Attention))
    theirs, ours = sizes(state) | {"num_heads": num_heads or heads}, sizes(own) | {"num_heads": heads}
    if other := [name for name in theirs if theirs[name] != ours[name]]:
        found, wanted = (", ".join(f"{name} {values[name]}" for name in other) for values in (theirs, ours))
        raise InputError(f"{path} must hold the weights of the model ({wanted}); it has {found}")
    notes = [f"{path}: {family} weights, {len(state)} arrays"]
    if pooler:
        notes.append(f"{path}: ignored {', '.join(pooler)}, which a classifier does not use")
    classes, held = own["head.bias"].numel(), state["head.bias"].numel() if "head.bias" in state else 0
    if held == classes and pre_logits:
        raise InputError(f"{path} must have no layer between encoder and head; it has {', '.join(pre_logits)}")
    if held != classes:
        why = f"the file has {held} classes, the model {classes}" if held else "the file has none"
        without = f"; dropped {', '.join(pre_logits)}" if pre_logits else ""
        notes.append(f"{path}: the head is zero: {why}{without}")
        state |= {name: torch.zeros_like(own[name]) for name in HEAD}
    old, new = _grid(state[POSITIONS], family, model, path), model.embeddings.grid
    if old != new:
        how = model.embeddings.interpolation
        notes.append(f"{path}: positions resampled from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches, {how}")
        state[POSITIONS] = resize_pos_embed(state[POSITIONS], old, new, interpolation=how)
    model.load_state_dict(state)
    return notes


def _grid(positions: Tensor, family: str, model: VisionTransformer, source: Path) -> tuple[int, int]:
    """Return rows and columns of the grid of positions: files do not store them, and published grids are square."""
    count, own = positions.shape[1] - 1, model.embeddings.grid
    side = isqrt(count)
    if count == own[0] * own[1] and (family == "kit" or side * side != count):
        return own
    if side * side != count:
        raise InputError(f"{source} must have positions of a square grid; it has {count} patches")
    return side, side
