"""Find the network among the names in a file: trainers wrap it, and keep averages and optimizers beside it."""

import re
from bisect import bisect, bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from os.path import commonprefix
from typing import NamedTuple

from scripts.system.errors import InputError
from scripts.weights.names import FAMILIES, OTHER_SPELLINGS, STACK, TABLE, entries, layer_scales

CLASS_TOKENS = set(TABLE[0][:-2])
OPTIMIZER = re.compile(r"opt(imizers?)?(_states?)?/(?!target/)")  # its moments have the names of the network
COPY = re.compile(r"(^|[./_])ema([./_]|$)|^trained/")  # an average of the weights; those that a run of the kit trains
COUNTER = ".num_batches_tracked"  # of a norm: how many batches it has seen, which nothing depends on
SHOWN = 3  # names listed in a message


class Found(NamedTuple):
    """Where a file holds a network."""

    family: str
    names: dict[str, str]  # name in the family -> name in the file
    prefix: str  # of every name in the file, but not in the family
    rest: tuple[str, ...]  # what else is in the file: where its names begin to differ


def find(names: Sequence[str], source: str) -> Found:
    """Find the only network; a copy of it, such as an average of its weights, may stand beside it.

    Raises:
        InputError: If there is no network or more than one; the message names ``source``.
    """
    names = [name for name in names if not name.endswith(COUNTER)]
    weights = [name for name in names if not OPTIMIZER.match(name)]
    place, ordered = {name: number for number, name in enumerate(weights)}, sorted(weights)
    networks: dict[str, tuple[str, dict[str, str]]] = {}
    for prefix in _prefixes(weights):
        if not any(prefix.startswith(outer) for outer in networks):
            inside = _usual(sorted(_under(prefix, ordered), key=place.__getitem__), prefix, source)
            if family := _family(inside, prefix):
                networks[prefix] = family, inside
    if not networks:
        raise InputError(f"{source} must hold a Vision Transformer of a known family; it holds {some(names)}")
    prefix, *others = [prefix for prefix in networks if not COPY.search(prefix)] or networks
    if others:
        raise InputError(f"{source} must hold one Vision Transformer; it holds several: {some([prefix, *others])}")
    family, inside = networks[prefix]
    own, ignored = FAMILIES[family].prefix, FAMILIES[family].ignored
    inside = {own + name: given for name, given in inside.items() if not name.startswith(ignored)}
    return Found(family, inside, prefix.removesuffix(own), _rest(names, sorted(inside.values())))


def some(names: Iterable[str]) -> str:
    """List the first names, and the number of others."""
    shown = list(names)
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return what stands before a class token, and what families put before every name; the shortest first."""
    before = [name.removesuffix(token) for name in names for token in CLASS_TOKENS if name.endswith(token)]
    before += [family.prefix for family in FAMILIES.values()]
    return sorted((prefix for prefix in dict.fromkeys(before) if prefix[-1:] in ("", ".", "/")), key=len)


def _under(prefix: str, names: Sequence[str]) -> Sequence[str]:
    """Return the names with the prefix, of names in order: a hostile file has thousands of prefixes."""

    def start(name: str) -> str:
        return name[: len(prefix)]

    return names[bisect_left(names, prefix, key=start) : bisect_right(names, prefix, key=start)]


def _usual(names: Sequence[str], prefix: str, source: str) -> dict[str, str]:
    """Map the names of the table to those in the file, which have the prefix and may be of another version."""
    body = ""
    if f"{prefix}embeddings.position_embeddings" in names:  # Hugging Face's without a classifier
        body = "dinov2." if f"{prefix}encoder.layer.0.layer_scale1.lambda1" in names else "vit."
    usual: dict[str, str] = {}
    for given in names:
        name = body + given.removeprefix(prefix)
        for pattern, replacement in OTHER_SPELLINGS.items():
            name = re.sub(pattern, replacement, name)
        if name in usual:
            raise InputError(f"{source} must hold {name} once; {given} is another name of it")
        usual[name] = given
    return usual


def _family(names: Iterable[str], prefix: str) -> str | None:
    """Return the family with the most names in common, None if it is less than half, as in other networks."""
    stacked = any(name.startswith(STACK) for name in names)
    present = {name.replace(STACK, f"{STACK[:-1]}_0/") for name in names}

    def share(family: str) -> float:
        return len(present & _of_one_block(family)) / len(_of_one_block(family))

    def fit(family: str) -> tuple[bool, int, int]:
        own, shared = FAMILIES[family].prefix, len(present & _of_one_block(family))  # more with LayerScale
        return family.endswith("-stacked") == stacked, shared, len(own) if prefix.endswith(own) else 0

    likely = max(FAMILIES, key=share)
    same = [family for family in FAMILIES if FAMILIES[family].column == FAMILIES[likely].column]
    return max(same, key=fit) if share(likely) >= 0.5 else None


@cache  # a hostile file has thousands of prefixes
def _of_one_block(family: str) -> set[str]:
    """Return the names of a network with one block, without the prefix of the family."""
    names = {name.removeprefix(FAMILIES[family].prefix) for entry in entries(family, 1) for name in entry.names}
    return names | {name for _, name in layer_scales(family, 1)}


def _rest(names: Sequence[str], network: Sequence[str]) -> tuple[str, ...]:
    """Return the other names, each up to the dot or slash after what it shares with the network, which is sorted."""
    rest: dict[str, None] = {}  # in their order
    for name in names:
        at = bisect(network, name)
        near = network[max(at - 1, 0) : at + 1]
        if name not in near:
            shared = max(len(commonprefix([name, other])) for other in near)  # noqa: RUF071  # characters are meant
            rest[name[:shared] + re.split("[./]", name[shared:])[0]] = None
    return tuple(rest)
