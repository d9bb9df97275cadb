"""Parts of a network that only files of the kit have: convolutions in front of the patches, and a pooling of tokens."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from scripts.weights.names import Entry

FIRST = ("stem.first.weight", "stem.first.bias")
WIDEN = re.compile(r"stem\.stages\.(\d+)\.0\.weight")
NORM = ("weight", "bias", "running_mean", "running_var")
STAGE = ("0.weight", *(f"2.{name}" for name in NORM), "4.weight", *(f"5.{name}" for name in NORM))
POOL = ("pool.weight", "pool.bias")


def options_of(arrays: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options of VisionTransformer that these parts stand for, of a network that has them."""
    shapes = {int(found[1]): array.shape for name, array in arrays.items() if (found := WIDEN.fullmatch(name))}
    stem = tuple(shapes[i][0] for i in range(len(shapes)) if shapes.get(i))  # behind a gap, names are unknown
    return ({"stem": stem} if stem else {}) | ({} if arrays.keys().isdisjoint(POOL) else {"pool": "sequence"})


def entries(arrays: Mapping[str, Tensor]) -> Iterator[Entry]:
    """Yield an entry for every array of these parts, of the network that arrays belong to."""
    options = options_of(arrays)
    stages = [f"stem.stages.{i}.{name}" for i in range(len(options.get("stem", ()))) for name in STAGE]
    for name in (*(FIRST if stages else ()), *stages, *(POOL if "pool" in options else ())):
        yield Entry(name, (name,), "")
