"""Convert Vision Transformer weights for another code base.

python -m scripts.convert ViT-B_16.npz model.safetensors --family huggingface
"""

from dataclasses import dataclass
from pathlib import Path

from scripts.system.command_line import argument, option, parse, run, whole
from scripts.system.errors import InputError
from scripts.weights.names import FAMILIES


@dataclass
class Options:
    """Convert Vision Transformer weights for another code base."""

    source: str = argument("a file of any family, recognised by its names")
    target: str = argument("the new file: .npz, .safetensors, .pt, .pth, .bin, .ckpt or .tar")
    family: str = option("kit", "names and layout of the new file; dinov2 is only read", choices=tuple(FAMILIES))
    num_heads: int | None = option(
        None, "attention heads, if neither the source nor a preset of its width determines them", type=whole(1)
    )
    no_head: bool = option(False, "leave out the classifier", type=bool)


def main(options: Options) -> None:
    """Read the source and write the target.

    Raises:
        InputError: If the target exists, or the source cannot be read or converted.
    """
    # imported here: these load torch, and flags are read before that
    from scripts.models.vit import heads_of_width
    from scripts.weights.families import HEAD, sizes
    from scripts.weights.files import check_suffix
    from scripts.weights.pretrained import read_weights, write_weights

    source, target = Path(options.source), Path(options.target)
    check_suffix(target)
    if target.exists():
        raise InputError(f"target ({target}) must be a new file; it exists already")
    weights = read_weights(source)
    state, pre_logits = weights.state, weights.pre_logits
    if options.no_head:
        state = {name: array for name, array in state.items() if name not in HEAD}
    elif pre_logits:
        layer = ", ".join(pre_logits)
        raise InputError(f"{source} must have no layer between encoder and head; it has {layer}: use --no-head")
    shape = sizes(state)
    dim = shape["dim"]
    heads = _num_heads(options, weights.num_heads, dim)
    flax = FAMILIES[options.family].flax  # it has an axis of heads
    assumed = None if heads or not flax else heads_of_width(dim)
    if flax and not (heads or assumed):
        raise InputError(f"--num-heads must be given: {source} does not store it, no preset has width {dim}")
    write_weights(target, state, options.family, heads or assumed, weights.grid)
    print(f"{source}: {weights.family}, " + ", ".join(f"{name} {value}" for name, value in shape.items() if value))
    for note in (*weights.notes, *(f"left out: {name}" for name in pre_logits)):
        print(note)
    print(f"{target}: {options.family}" + (f", num_heads {heads or assumed}" if flax else ""))
    if assumed:
        print(f"{source}: num_heads {assumed} of the preset of width {dim} is assumed: the file does not tell")


def _num_heads(options: Options, stored: int | None, dim: int) -> int | None:
    """The heads of the source, else of the command line."""
    flag = options.num_heads
    if stored and flag not in (None, stored):
        raise InputError(f"--num-heads ({flag}) must be {stored}, as in {options.source}, or be left out")
    if flag and dim % flag:
        raise InputError(f"--num-heads ({flag}) must divide {dim}, the width of {options.source}")
    return stored or flag


if __name__ == "__main__":
    run(lambda: main(parse(Options, "convert")), "convert")
