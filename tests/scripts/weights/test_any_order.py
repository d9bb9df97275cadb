"""Whatever happens to files of weights, in any order, one is read as it was written or refused in one line.

A state machine of Hypothesis writes, overwrites, converts, renames, damages and disguises a few files, kills writers
and fills the disk, and remembers what each file must hold. Whatever a reader returns is compared to the bit.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor

from scripts import convert as converting
from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.system.files import is_part
from scripts.weights.families import CLASS, HEAD, POSITIONS, to_family
from scripts.weights.files import SUFFIXES, write_arrays
from scripts.weights.names import FAMILIES, entries
from scripts.weights.pretrained import load_weights, read_weights, write_weights
from tests.support.networks import WRITTEN, bits, network

NAMES = ("one.npz", "two.safetensors", "three.pt", "four.bin", "five.npz", "six.safetensors")
READERS = {suffix: suffix if suffix in (".npz", ".safetensors") else "torch" for suffix in SUFFIXES}
SIZES = (  # no two axes of a network have one length
    {"image_size": 8, "patch_size": 4, "dim": 6, "depth": 2, "num_heads": 3, "mlp_dim": 7, "in_channels": 1},
    {"image_size": 6, "patch_size": 2, "dim": 10, "depth": 1, "num_heads": 2, "mlp_dim": 4, "in_channels": 3},
)

names = st.sampled_from(NAMES)
families = st.sampled_from(WRITTEN)
numbers = st.integers(0, len(NAMES) - 1)
places = st.integers(0, 2**31 - 1)


class Killed(BaseException):
    """Stands in for SIGKILL: no code of the writer handles it."""


@dataclass(frozen=True)
class Written:
    """A network, and the family under whose names it is written.

    Args:
        state: A state_dict of VisionTransformer, perhaps without its head.
    """

    state: dict[str, Tensor]
    family: str
    size: dict[str, int]


@dataclass(frozen=True)
class Held(Written):
    """What a file must hold.

    Args:
        heads: Whether the file tells their number.
        whole: Whether nothing was done to its bytes: then it must be read.
    """

    heads: bool = False
    whole: bool = True


def draw_network(family: str, size: dict[str, int], seed: int, head: bool) -> Written:
    state = network(4, seed, **size).state_dict()
    return Written({name: array for name, array in state.items() if head or name not in HEAD}, family, size)


networks = st.builds(draw_network, families, st.sampled_from(SIZES), st.integers(0, 9), st.booleans())


def as_read(state: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """What a family keeps of a network: big_vision adds the position of the class token to the token."""
    if FAMILIES[family].column != "big_vision":
        return dict(state)
    positions = state[POSITIONS].clone()
    positions[:, 0] = -0.0
    return state | {CLASS: state[CLASS] + state[POSITIONS][:, :1], POSITIONS: positions}


class FilesInAnyOrder(RuleBasedStateMachine):
    """A folder of weights, and what may happen to it."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=root))
        self.held: dict[str, Held] = {}
        self.checked: dict[str, tuple[bytes, Held]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def refused(self, call: Callable[[], object]) -> None:
        """It says why in one line, and changes nothing."""
        before = {path: path.read_bytes() for path in self.root.iterdir()}
        with pytest.raises(InputError, match="must") as refusal:
            call()
        assert "\n" not in str(refusal.value)
        assert {path: path.read_bytes() for path in self.root.iterdir()} == before

    def check(self, name: str) -> None:
        """A file that is there is read to the bit, or refused."""
        path, held = self.root / name, self.held[name]
        try:
            found = read_weights(path)
        except InputError as refusal:
            said = str(refusal)
            assert not held.whole, f"it must be read, but: {said}"
            assert "\n" not in said
            assert "must" in said
            return
        assert bits(found.state) == bits(held.state), f"silently another network, whole: {held.whole}"
        assert found.family == held.family
        assert found.num_heads == (held.size["num_heads"] if held.heads else None)

    @initialize(written=st.lists(networks, min_size=2, max_size=3))
    def begin(self, written: list[Written]) -> None:
        for name, each in zip(NAMES, written, strict=False):
            self.write(name, each)

    @rule(name=names, written=networks)
    def write(self, name: str, written: Written) -> None:
        """Write a file, new or over another one."""
        path, heads = self.root / name, written.size["num_heads"]
        write_weights(path, written.state, written.family, heads)
        held = Held(as_read(written.state, written.family), written.family, written.size)
        self.held[name] = replace(held, heads=FAMILIES[held.family].flax or path.suffix == ".safetensors")

    @rule(name=names, written=networks, end=st.sampled_from(("full disk", "sync", "rename")))
    def begin_to_write(self, name: str, written: Written, end: str) -> None:
        """A writer that does not come to its end leaves what was there, and a kill leaves what would be cleaned up."""

        def dying(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if end == "full disk" else Killed

        before = {path: path.read_bytes() for path in self.root.iterdir()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*((Path, "replace") if end == "rename" else (os, "fsync")), dying)
            if end != "full disk":
                patch.setattr(Path, "unlink", dying)
            with pytest.raises((OSError, Killed)):
                write_weights(self.root / name, written.state, written.family, written.size["num_heads"])
        now = {path: path.read_bytes() for path in self.root.iterdir() if not is_part(path.name) or path in before}
        assert now == before

    def pick(self, number: int) -> str:
        """One of the files that are there."""
        return sorted(self.held)[number % len(self.held)]

    @precondition(lambda self: self.held)
    @rule(number=numbers, new=names, family=st.sampled_from([*FAMILIES]), no_head=st.booleans())
    def convert(self, number: int, new: str, family: str, no_head: bool) -> None:
        name = self.pick(number)
        source, held = self.root / name, self.held[name]
        given = converting.Options(str(source), str(self.root / new), family=family, no_head=no_head)
        if new in self.held or FAMILIES[family].layer_scale:
            self.refused(lambda: converting.main(given))
            return
        try:
            needs = FAMILIES[family].flax and not held.heads
            given = replace(given, num_heads=held.size["num_heads"] if needs else None)
            converting.main(given)
        except InputError:
            assert not held.whole
            assert not (self.root / new).exists()
            return
        state = {name: array for name, array in held.state.items() if not (no_head and name in HEAD)}
        heads = held.heads or needs
        tells = FAMILIES[family].flax or (heads and new.endswith(".safetensors"))
        self.held[new] = Held(as_read(state, family), family, held.size, tells)

    @precondition(lambda self: self.held)
    @rule(number=numbers, new=names)
    def rename(self, number: int, new: str) -> None:
        """Also to the suffix of another kind of file, whose reader refuses it, and over another file."""
        name = self.pick(number)
        (self.root / name).replace(self.root / new)
        held = self.held.pop(name)
        kinds = [READERS[Path(each).suffix] for each in (name, new)]
        self.held[new] = replace(held, whole=held.whole and kinds[0] == kinds[1])

    @precondition(lambda self: self.held)
    @rule(number=numbers, place=places, bit=st.integers(0, 7))
    def flip(self, number: int, place: int, bit: int) -> None:
        """A bad disk."""
        content = self.content(number)
        content[place % len(content)] ^= 1 << bit
        self.damage(number, content)

    @precondition(lambda self: self.held)
    @rule(number=numbers, place=places, more=st.booleans())
    def cut_or_append(self, number: int, place: int, more: bool) -> None:
        """A bad download."""
        content = self.content(number)
        length = 1 + place % len(content)
        self.damage(number, content + content[:length] if more else content[: length - 1])

    def content(self, number: int) -> bytearray:
        return bytearray((self.root / self.pick(number)).read_bytes() or b"\0")

    def damage(self, number: int, content: bytes) -> None:
        name = self.pick(number)
        (self.root / name).write_bytes(content)
        self.held[name] = replace(self.held[name], whole=False)

    @precondition(lambda self: self.held)
    @rule(number=numbers, new=names, family=families)
    def disguise(self, number: int, new: str, family: str) -> None:
        """The arrays of one family under the names of another: equal layouts are the same network, others are none."""
        held = self.held[self.pick(number)]
        if not held.whole:
            return
        heads, depth, own = held.size["num_heads"], held.size["depth"], held.family
        if "big-vision-stacked" in (own, family):
            return
        arrays = to_family(held.state, own, heads)
        renamed = {}
        for mine, theirs in zip(entries(own, depth), entries(family, depth), strict=True):
            if mine.names[0] in arrays:
                renamed |= dict(zip(theirs.names, (arrays[each] for each in mine.names), strict=False))
        write_arrays(self.root / new, renamed)
        thirds = [len(next(e for e in entries(each, 1) if "qkv" in e.kit).names) for each in (own, family)]
        columns = [FAMILIES[each].column == "big_vision" for each in (own, family)]
        same = FAMILIES[own].flax == FAMILIES[family].flax and thirds[0] == thirds[1] and columns[0] == columns[1]
        if same:
            self.held[new] = Held(held.state, family, held.size, FAMILIES[family].flax)
            return
        self.refused(lambda: load_weights(network(4, 11, **held.size), self.root / new))
        (self.root / new).unlink()
        self.held.pop(new, None)

    @rule(name=names, other=st.booleans())
    def load(self, name: str, other: bool) -> None:
        """A network gets all of a file, or nothing."""
        path, held = self.root / name, self.held.get(name)
        size = SIZES[0] if held is None else held.size
        size = next(each for each in SIZES if each != size) if other else size
        model: VisionTransformer = network(4, 11, **size)
        before = bits(model.state_dict())
        try:
            load_weights(model, path)
        except InputError as refusal:
            said = str(refusal)
            assert other or held is None or not held.whole, f"it must be read, but: {said}"
            assert bits(model.state_dict()) == before, "a refusal must leave the network alone"
            return
        assert held is not None
        assert not other
        expected = {head: torch.zeros_like(model.state_dict()[head]) for head in HEAD} | held.state
        assert bits(model.state_dict()) == bits(expected)

    @invariant()
    def every_file_is_read_to_the_bit_or_refused(self) -> None:
        assert {path.name for path in self.root.iterdir() if path.suffix != ".part"} == self.held.keys()
        for name, held in self.held.items():
            content = (self.root / name).read_bytes()
            before, of = self.checked.get(name, (b"", None))
            if content != before or held is not of:  # the same bytes are read to the same end
                self.check(name)
                self.checked[name] = content, held


@pytest.mark.hypothesis
def test_whatever_happens_to_files_of_weights_they_are_read_to_the_bit_or_refused_in_one_line(tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: FilesInAnyOrder(tmp_path), settings=settings(settings.default, stateful_step_count=10)
    )
