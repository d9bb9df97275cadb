"""Load and save Vision Transformer weights as files of any family."""

import re
from collections.abc import Mapping
from contextlib import suppress
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components import Attention
from components.patch_embeddings import resize_pos_embed
from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.system.files import read_json
from scripts.weights import kit
from scripts.weights.families import HEAD, POSITIONS, Weights, from_family, sizes, to_family
from scripts.weights.files import check_arrays, flat, read_file, write_arrays
from scripts.weights.names import FAMILIES
from scripts.weights.search import COUNTER, find, some

NUM_HEADS = re.compile(r"(^|[./])num_(attention_)?heads$")  # names in checkpoints, metadata and config.json
IMAGE_SIZE = re.compile(r"(^|[./])image_size$")
SIDES = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")  # in metadata, which is text
COUNTS = {*range(1, 1000), *map(str, range(1, 1000))}  # metadata is text


def read_weights(path: Path) -> Weights:
    """Read a file of any family, which is recognised by its names.

    Raises:
        InputError: If the file is damaged or holds no Vision Transformer: a name or shape is wrong, missing or unknown.
    """
    arrays, facts = read_file(path)
    family, names, prefix, rest = find([*arrays], str(path))
    arrays = {name: arrays[given] for name, given in names.items()}
    check_arrays(arrays, str(path))
    weights = from_family(arrays, family, str(path))
    heads, dim = weights.num_heads or _num_heads(facts) or _num_heads(_config(path)), sizes(weights.state)["dim"]
    if heads and dim % heads:
        raise InputError(f"{path} must have a number of heads that divides its width ({dim}); it has {heads}")
    notes = [f"the prefix {prefix} of every name is removed"] if prefix else []
    notes += [f"the rest of the file is ignored: {some(rest)}"] if rest else []
    grid = _known_grid(facts, weights.state)
    return weights._replace(num_heads=heads, grid=grid, notes=tuple(f"{path}: {note}" for note in notes))


def _num_heads(facts: Mapping[str, Any]) -> int | None:
    """Return the only number of attention heads among facts, None if there is none or they differ."""
    named = (value for name, value in facts.items() if NUM_HEADS.search(name))
    found = {int(value) for value in named if type(value) in (int, str) and value in COUNTS}
    return found.pop() if len(found) == 1 else None


def _known_grid(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Return rows and columns of patches by the height and width among facts, None where these are not of positions."""
    named = (value for name, value in facts.items() if IMAGE_SIZE.search(name))
    found = {sides for value in named if (sides := _sides(value))}
    if len(found) != 1:
        return None
    rows, columns = (side // sizes(state)["patch_size"] for side in found.pop())
    return (rows, columns) if 1 + rows * columns == state[POSITIONS].shape[1] else None


def _sides(value: object) -> tuple[int, int] | None:
    """Return height and width, None of anything else."""
    if isinstance(value, str) and (text := SIDES.fullmatch(value)):
        return int(text[1]), int(text[2])
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
        return value[0], value[1]
    return None


def _config(path: Path) -> dict[str, Any]:
    """Return what a config.json beside the file says, as in folders of Hugging Face and runs of the kit."""
    config = path.with_name("config.json")
    with suppress(InputError, OSError):
        return flat(read_json(config)) if config.is_file() else {}
    return {}


def write_weights(
    path: Path, state: Mapping[str, Tensor], family: str, num_heads: int | None, grid: tuple[int, int] | None = None
) -> None:
    """Write the ``state_dict`` of a VisionTransformer as a file of a family, of the kind that the suffix says.

    Number of heads and grid of patches go to files that have a place for them.

    Raises:
        InputError: If the family has LayerScale, no names for a part of the network, or heads whose number is missing.
    """
    if family != "kit" and (own := kit.options_of(state)):
        parts = " and ".join(f"{name} {value}" for name, value in own.items())
        raise InputError(f"family ({family}) must be kit to write a network with {parts}: no other has names for that")
    if FAMILIES[family].layer_scale:
        raise InputError(
            f"family ({family}) must be another one to write: it has LayerScale, which reading folds into the layers "
            "before it, and which cannot be recovered from them"
        )
    if FAMILIES[family].flax and not num_heads:
        raise InputError(f"num_heads ({num_heads}) must be given for family {family}, which has an axis of heads")
    facts: dict[str, Any] = {"num_heads": num_heads} if num_heads else {}
    if grid:
        height, width = (side * sizes(state)["patch_size"] for side in grid)
        facts["image_size"] = f"{height}x{width}"
    write_arrays(path, to_family(state, family, num_heads), **facts)


def load_weights(model: VisionTransformer, path: Path) -> list[str]:
    """Copy a file of any family into ``model``, and return notes on what was done, a line each.

    If the file has another number of classes or no head, the head is zero, as in a new network. Positions of another
    grid are resampled with the interpolation of ``model``.

    Raises:
        InputError: If the file cannot be read or belongs to another network.
    """
    weights = read_weights(path)
    state, num_heads, pre_logits = dict(weights.state), weights.num_heads, weights.pre_logits
    own, heads = model.state_dict(), next(part.num_heads for part in model.modules() if isinstance(part, Attention))
    theirs, ours = sizes(state) | {"num_heads": num_heads or heads}, sizes(own) | {"num_heads": heads}
    if other := [name for name in theirs if theirs[name] != ours[name]]:
        found, wanted = (", ".join(f"{name} {values[name]}" for name in other) for values in (theirs, ours))
        raise InputError(f"{path} must hold the weights of the model ({wanted}); it has {found}")
    notes = [f"{path}: {weights.family} weights, {len(state)} arrays", *weights.notes]
    if not num_heads:
        notes.append(f"{path}: num_heads {heads} of the model is assumed: the file does not tell")
    classes, held = own["head.bias"].numel(), state["head.bias"].numel() if "head.bias" in state else 0
    if held == classes and pre_logits:
        raise InputError(f"{path} must have no layer between encoder and head; it has {', '.join(pre_logits)}")
    if held != classes:
        why = f"the file has {held} classes, the model {classes}" if held else "the file has none"
        without = f"; dropped {', '.join(pre_logits)}" if pre_logits else ""
        notes.append(f"{path}: the head is zero: {why}{without}")
        state |= {name: torch.zeros_like(own[name]) for name in HEAD}
    old, new = weights.grid or _grid(state[POSITIONS], weights.family, model, path), model.embeddings.grid
    if old != new:
        how = model.embeddings.interpolation
        notes.append(f"{path}: positions resampled from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches, {how}")
        state[POSITIONS] = resize_pos_embed(state[POSITIONS], old, new, interpolation=how)
    model.load_state_dict({name: own[name] for name in own if name.endswith(COUNTER)} | state)
    return notes


def _grid(positions: Tensor, family: str, model: VisionTransformer, source: Path) -> tuple[int, int]:
    """Return rows and columns of a grid that the file does not tell: those that are published are square."""
    count, own = positions.shape[1] - 1, model.embeddings.grid
    side = isqrt(count)
    if count == own[0] * own[1] and (family == "kit" or side * side != count):
        return own
    if side * side != count:
        raise InputError(f"{source} must have positions of a square grid; it has {count} patches")
    return side, side
