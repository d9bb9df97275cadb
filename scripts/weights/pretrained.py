"""Vision Transformer weights from a file of any family into a network, and into a file of any family."""

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
    """Read a file of any family; which one, its names say.

    Raises:
        InputError: If the file is not whole, or no Vision Transformer: a name or a shape is wrong, missing or too many.
    """
    return from_family(read_arrays(path), str(path))


def write_weights(path: Path, state: Mapping[str, Tensor], family: str, num_heads: int | None) -> None:
    """Write the ``state_dict`` of a VisionTransformer as a file of a family; the suffix says which kind of file."""
    write_arrays(path, to_family(state, family, num_heads))


def load_weights(model: VisionTransformer, path: Path) -> list[str]:
    """Copy a file of any family into ``model``, and return what there is to say about it, a line each.

    Another number of classes, or a file without a head, leaves the head at zero, as in a new network. Positions of
    another grid are resampled as ``model`` does it.

    Raises:
        InputError: If the file cannot be read, or is that of another network.
    """
    state, family, num_heads, pre_logits, pooler = read_weights(path)
    own, heads = model.state_dict(), next(part.num_heads for part in model.modules() if isinstance(part, Attention))
    theirs, ours = sizes(state) | {"num_heads": num_heads or heads}, sizes(own) | {"num_heads": heads}
    if other := [name for name in theirs if theirs[name] != ours[name]]:
        found, wanted = (", ".join(f"{name} {values[name]}" for name in other) for values in (theirs, ours))
        raise InputError(f"{path} must hold the weights of the model ({wanted}); it has {found}")
    notes = [f"{path}: {family} weights, {len(state)} arrays"]
    if pooler:
        notes.append(f"{path}: ignored {', '.join(pooler)}, which no classifier has")
    classes, held = own["head.bias"].numel(), state["head.bias"].numel() if "head.bias" in state else 0
    if held == classes and pre_logits:
        raise InputError(f"{path} must have the head right behind the encoder; {', '.join(pre_logits)} lie between")
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
    """The rows and columns that positions are for: files do not say it, and all that are published are square."""
    count, own = positions.shape[1] - 1, model.embeddings.grid
    side = isqrt(count)
    if count == own[0] * own[1] and (family == "kit" or side * side != count):
        return own
    if side * side != count:
        raise InputError(f"{source} must have positions of a square grid; {count} patches are none")
    return side, side
