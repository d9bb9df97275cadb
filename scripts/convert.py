"""Rewrite Vision Transformer weights for another code base.

python -m scripts.convert ViT-B_16.npz model.safetensors --family huggingface
"""

from dataclasses import dataclass
from pathlib import Path

from scripts.system.command_line import argument, option, parse, run, whole
from scripts.system.errors import InputError
from scripts.weights.names import FAMILIES


@dataclass
class Options:
    """Rewrite Vision Transformer weights for another code base."""

    source: str = argument("a file of any family; which one, its names say")
    target: str = argument("the new file: .npz, .safetensors, .pt, .pth or .bin")
    family: str = option("kit", "whose names and layout the new file has", choices=tuple(FAMILIES))
    num_heads: int | None = option(
        None, "attention heads, where the source does not say it and no preset is as wide", type=whole(1)
    )
    no_head: bool = option(False, "leave out the classifier", type=bool)


def main(options: Options) -> None:
    """Read the source, and write the target.

    Raises:
        InputError: If something is at the target already, or the source cannot be read or written that way.
    """
    # here, since these import torch, and the flags were to be read before
    from scripts.models.vit import heads_of_width
    from scripts.weights.families import HEAD, sizes
    from scripts.weights.files import check_suffix
    from scripts.weights.pretrained import read_weights, write_weights

    source, target = Path(options.source), Path(options.target)
    check_suffix(target)
    if target.exists():
        raise InputError(f"target ({target}) must be a new file; something is there already")
    state, family, num_heads, pre_logits, pooler = read_weights(source)
    if options.no_head:
        state = {name: array for name, array in state.items() if name not in HEAD}
    elif pre_logits:
        layer = ", ".join(pre_logits)
        raise InputError(f"{source} must have the head right behind the encoder; {layer} lie between: --no-head")
    shape = sizes(state)
    heads, dim = None, shape["dim"]
    if FAMILIES[options.family].flax:
        heads = _num_heads(options, num_heads, dim, heads_of_width(dim))
    write_weights(target, state, options.family, heads)
    print(f"{source}: {family}, " + ", ".join(f"{name} {value}" for name, value in shape.items()))
    for left_out in (*(pre_logits if options.no_head else ()), *pooler):
        print(f"left out: {left_out}")
    print(f"{target}: {options.family}" + (f", num_heads {heads}" if heads else ""))


def _num_heads(options: Options, said: int | None, dim: int, usual: int | None) -> int:
    """What the source says, or else the command line, or else the preset of that width: Flax has an axis of heads."""
    asked = options.num_heads
    if said and asked not in (None, said):
        raise InputError(f"--num-heads ({asked}) must be {said}, as {options.source} says, or not given")
    heads = said or asked or usual
    if not heads:
        raise InputError(f"--num-heads must be given: {options.source} does not say it, and no preset is {dim} wide")
    if dim % heads:
        raise InputError(f"--num-heads ({heads}) must divide {dim}, the width of {options.source}")
    return heads


if __name__ == "__main__":
    run(lambda: main(parse(Options, "convert")), "convert")
