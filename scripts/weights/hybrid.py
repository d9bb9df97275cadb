"""The name and the layout of every weight of a hybrid's ResNet, in the families that have hybrids.

In a name, ``{s}`` and ``{u}`` are the indices of a stage and of a unit in it, and ``{S}`` and ``{U}`` count from one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from scripts.system.errors import InputError
from scripts.weights.names import BIAS, FAMILIES, WEIGHT, Entry


class Part(NamedTuple):
    """A row of the table, as in ``names.py``."""

    kit: str
    google: str
    timm: str


STEM = (
    Part(
        kit="resnet.stem.conv.weight",
        google="conv_root/kernel",
        timm="patch_embed.backbone.stem.conv.weight",
    ),
    Part(
        kit="resnet.stem.norm.{weight}",
        google="gn_root/{scale}",
        timm="patch_embed.backbone.stem.norm.{weight}",
    ),
)
UNIT = tuple(
    part
    for n in (1, 2, 3)
    for part in (
        Part(
            kit=f"resnet.stages.{{s}}.{{u}}.conv{n}.weight",
            google=f"block{{S}}/unit{{U}}/conv{n}/kernel",
            timm=f"patch_embed.backbone.stages.{{s}}.blocks.{{u}}.conv{n}.weight",
        ),
        Part(
            kit=f"resnet.stages.{{s}}.{{u}}.norm{n}.{{weight}}",
            google=f"block{{S}}/unit{{U}}/gn{n}/{{scale}}",
            timm=f"patch_embed.backbone.stages.{{s}}.blocks.{{u}}.norm{n}.{{weight}}",
        ),
    )
)
DOWNSAMPLE = (  # of the first unit of a stage
    Part(
        kit="resnet.stages.{s}.{u}.downsample.conv.weight",
        google="block{S}/unit{U}/conv_proj/kernel",
        timm="patch_embed.backbone.stages.{s}.blocks.{u}.downsample.conv.weight",
    ),
    Part(
        kit="resnet.stages.{s}.{u}.downsample.norm.{weight}",
        google="block{S}/unit{U}/gn_proj/{scale}",
        timm="patch_embed.backbone.stages.{s}.blocks.{u}.downsample.norm.{weight}",
    ),
)
FILTERS, SCALES = "o i h w -> h w i o", "c -> 1 1 1 c"  # torch's layout -> Flax's, of a convolution and of a norm
MOST_STAGES = 4
HYBRIDS = ("kit", "google", "google-opt-target", "timm")  # families with names for a ResNet


def entries(family: str, units: Sequence[int]) -> Iterator[Entry]:
    """Yield every array of a ResNet with so many units in each stage, none without stages.

    Raises:
        InputError: If the family has no hybrids.
    """
    if not units:
        return
    if family not in HYBRIDS:
        raise InputError(f"family ({family}) must be one of {', '.join(HYBRIDS)} for a network with a ResNet")
    own = FAMILIES[family]
    places = [(part, 0, 0) for part in STEM]
    for s, count in enumerate(units):
        for u in range(count):
            places += [(part, s, u) for part in (*UNIT, *(DOWNSAMPLE if u == 0 else ()))]
    for part, s, u in places:
        norm = "{weight}" in part.kit
        for leaf in (WEIGHT, BIAS) if norm else (WEIGHT,):
            place = {"s": s, "u": u, "S": s + 1, "U": u + 1, **leaf}
            theirs = own.prefix + getattr(part, own.column).format(**place)
            yield Entry(part.kit.format(**place), (theirs,), (SCALES if norm else FILTERS) if own.flax else "")


def units_of(names: Iterable[str], family: str) -> tuple[int, ...]:
    """Return the number of units in each stage of which any array exists."""
    if family not in HYBRIDS:
        return ()
    own = FAMILIES[family]
    place = re.escape(own.prefix + getattr(UNIT[0], own.column).partition("conv")[0])  # up to the unit
    unit = re.compile(re.sub(r"\\\{[us]\\\}", r"(\\d+)", place, flags=re.IGNORECASE))
    stages = [str(s + (own.column == "google")) for s in range(MOST_STAGES)]
    found = {match.groups() for match in map(unit.match, names) if match}
    counts = [len({u for s, u in found if s == stage}) for stage in stages]
    return tuple(counts[: max((s for s, count in enumerate(counts, 1) if count), default=0)])


def with_four_axes(arrays: Mapping[str, Tensor], family: str, units: Sequence[int]) -> dict[str, Tensor]:
    """Give norms the four axes of Google's published files; its newer code writes one (google/flax issue 1721)."""
    norms = {name for _, (name,), layout in entries(family, units) if layout == SCALES}
    flat = {name: array[None, None, None] for name, array in arrays.items() if name in norms and array.ndim == 1}
    return {**arrays, **flat}
