"""Whatever happens to a run, in any order, its folder goes on to the same end or says in one line why it cannot.

A state machine of Hypothesis starts, kills, resumes, evaluates and reports a run, damages and deletes its files, and
starts a second process beside it. The run is real, from flags to report, of a small network on small images; only the
figures are not drawn. A kill is one of the process alone: nothing that would clean up after an error runs.
"""

import json
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from torch import Tensor, nn

from scripts import experiment, report
from scripts.data.datasets import Dataset
from scripts.data.mixing import Mix
from scripts.data.transforms import Augment
from scripts.recipes.options import RunOptions
from scripts.run import environment, page
from scripts.run.folder import read_metrics
from scripts.subjects.subject import Subject
from scripts.system.command_line import as_flags, parse
from scripts.system.errors import InputError, Stopped
from scripts.system.files import is_part, read_json
from scripts.training.plan import Plan, Recipe
from scripts.training.schedule import Schedule
from tests.scripts.run.interruptions import Death, Killed
from tests.support.runs import at_step, dots, log_without_times, without_times

pytestmark = pytest.mark.numerics

RECIPES = {
    "toy": Recipe(
        lr=0.05, batch_size=8, epochs=2, schedule=Schedule("linear", warm_up=0.3), averaged=0.7,
        augment=Augment(mirror=True, shift=1), mix=Mix(mixup=0.3, cutmix=0.3),
    )
}  # fmt: skip
STEPS, FILES = 6, 44  # of a run that nothing interrupts; every file is synced and renamed once
DATA = Dataset("toy", "dots", ("dark", "bright"), dots(24, seed=1), dots(10, seed=2))
FLAGS = {"recipe": "toy", "data": "toy", "device": "cpu", "precision": "float32", "save_minutes": 1e-9}
CHECKPOINTS = ("last.pt", "previous.pt")


def build(options: RunOptions, plan: Plan, device: torch.device) -> Subject:
    """A network with dropout, whose optimizer has moments."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Dropout(0.3), nn.ReLU(), nn.Linear(5, 2))
    optimizers = [torch.optim.AdamW(network.parameters(), lr=plan.lr)]
    return Subject(network=network, optimizers=optimizers, findings=lambda *given: {})


def train(given: Sequence[str]) -> None:
    """Type a training command."""
    experiment.train(parse(RunOptions, "toy", given), RECIPES, build)


at_any_step = st.tuples(st.sampled_from(("killed", "terminated", "second process")), st.integers(1, STEPS))
at_any_file = st.tuples(st.sampled_from(("half a file", "sync", "rename", "full disk")), st.integers(1, FILES))
interruptions = st.one_of(st.just(("none", 0)), at_any_step, at_any_file)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, without the lock that whoever looks inside may create."""
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.name != ".lock"}


def same(one: object, other: object) -> bool:
    """Whether all that two checkpoints hold is equal to the bit, but for times, and generators that no run uses."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        names = [name for name in one if not re.search("second|memory|log_size|python|numpy", str(name))]
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[n], other[n]) for n in names)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[float | None, Path]]:
    """A finished run that nothing happens to, with and without images held out; no run asks git or draws figures."""
    root = tmp_path_factory.mktemp("wholes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load", lambda source: DATA)
        patch.setattr(environment, "revision", lambda: (None, None))
        patch.setattr(page, "_figures", lambda *found: [])
        for validation in (None, 0.25):
            with Death().awaited():
                train(as_flags({**FLAGS, "validation": validation, "out": root / str(validation)}))
        yield {validation: root / str(validation) for validation in (None, 0.25)}


class RunInAnyOrder(RuleBasedStateMachine):
    """One run folder, and what may happen to it."""

    def __init__(self, wholes: dict[float | None, Path], root: Path) -> None:
        super().__init__()
        self.wholes, self.folder = wholes, Path(tempfile.mkdtemp(dir=root)) / "run"

    @initialize(validation=st.sampled_from((None, 0.25)), interruption=st.one_of(at_any_step, at_any_file))
    def begin(self, validation: float | None, interruption: tuple[str, int]) -> None:
        self.whole = self.wholes[validation]
        self.flags = {**FLAGS, "validation": validation, "out": self.folder}
        self.spoiled: set[bytes] = set()  # contents that damage has left
        self.lost: set[str] = set()  # files that were deleted
        self.start(interruption)

    def teardown(self) -> None:
        """In the end the run goes on, if anything of it is left to go on from."""
        if hasattr(self, "flags"):
            self.resume_auto(("none", 0))
        shutil.rmtree(self.folder.parent)

    # what is true of the folder

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def is_spoiled(self, name: str) -> bool:
        return self.has(name) and (self.folder / name).read_bytes() in self.spoiled

    def goes_on(self) -> bool | None:
        """Whether a run can go on from here; None where that depends on what the damage hit."""
        checkpoints = [name for name in CHECKPOINTS if self.has(name)]
        if self.is_spoiled("config.json"):
            return False
        if checkpoints and (self.is_spoiled("checkpoints.json") or not self.has("checkpoints.json")):
            return None
        return not checkpoints or not all(map(self.is_spoiled, checkpoints))

    def can_be_drawn(self) -> bool | None:
        """Whether the run is finished and its report can be drawn; None where numbers may be read that were cut."""
        files = ("config.json", "summary.json", "metrics.csv")
        found = [self.has(name) and not self.is_spoiled(name) for name in files]
        return None if found == [True, True, False] and self.has("metrics.csv") else all(found)

    # what is done to it

    def attempt(self, given: dict[str, object], interruption: tuple[str, int], allowed: bool | None = True) -> None:
        """Type a command that is interrupted, and check how it ends."""
        kind, count = interruption
        death, before, finished = Death(kind, count), contents(self.folder), self.has("summary.json")
        act = {"killed": death, "terminated": self.terminate, "second process": self.second_process}.get(kind, int)
        try:
            with death.awaited(), at_step(count, act):
                train(as_flags(given))
        except InputError as refusal:
            said = str(refusal)
            assert not allowed, f"it must go on, but: {said}"
            self.refused(said, before)
            return
        except (Killed, Stopped):
            return
        except OSError as error:
            said = str(error)
            assert re.fullmatch(r"cannot write \S+: No space left on device", said)
            return
        assert allowed is not False, "it must be refused"
        if finished:
            whole = {name: content for name, content in before.items() if not is_part(name)}
            after = contents(self.folder)
            assert after == {"report.html": after["report.html"], **whole}
        self.check_end()

    def refused(self, said: str, before: dict[str, bytes]) -> None:
        assert "must" in said
        assert "\n" not in said
        assert contents(self.folder) == before, f"a refusal must change no file, but: {said}"

    @staticmethod
    def terminate() -> None:
        signal.raise_signal(signal.SIGTERM)

    def second_process(self) -> None:
        for given in ({"resume": self.folder}, {**self.flags, "resume": "auto"}, self.flags):
            before = contents(self.folder)
            own_generators = torch.random.fork_rng(devices=())
            with own_generators, pytest.raises(InputError, match=r"must (not be in use|be a new or empty)") as refusal:
                train(as_flags(given))
            self.refused(str(refusal.value), before)
        self.report()

    @rule(interruption=interruptions)
    def start(self, interruption: tuple[str, int]) -> None:
        left = {path.name for path in self.folder.glob("*") if not path.name.endswith(".part")}
        self.attempt(self.flags, interruption, allowed=left <= {".lock", "environment.json"})

    @rule(interruption=interruptions)
    def resume(self, interruption: tuple[str, int]) -> None:
        allowed = self.has("config.json") and not self.has("summary.json") and self.goes_on()
        self.attempt({"resume": self.folder}, interruption, allowed)

    @rule(interruption=interruptions)
    def resume_auto(self, interruption: tuple[str, int]) -> None:
        """The command that a cluster types again and again: it needs no help, whenever it was killed."""
        allowed: bool | None = self.goes_on()
        if self.has("summary.json"):
            drawn = self.has("report.html") and not self.is_spoiled("config.json")
            allowed = drawn or self.can_be_drawn()
        if "config.json" in self.lost and not self.has("config.json"):
            allowed = None
        self.attempt({**self.flags, "resume": "auto"}, interruption, allowed)

    @precondition(lambda self: self.has("config.json"))
    @rule()
    def resume_auto_with_another_flag(self) -> None:
        self.attempt({**self.flags, "resume": "auto", "seed": 2}, ("none", 0), allowed=False)

    @rule()
    def report(self) -> None:
        allowed, before = self.can_be_drawn(), contents(self.folder)
        try:
            report.main(report.Options(str(self.folder)))
        except InputError as refusal:
            said = str(refusal)
            assert not allowed, said
            self.refused(said, before)
        else:
            assert allowed is not False
            before.pop("report.html", None)
            assert contents(self.folder).items() >= before.items()

    @precondition(lambda self: any(self.has(name) and not self.is_spoiled(name) for name in ("last.pt", "best.pt")))
    @rule()
    def evaluate(self) -> None:
        """A checkpoint has the accuracy that its own row says."""
        for name in ("last.pt", "best.pt"):
            if not self.has(name) or self.is_spoiled(name):
                continue
            saved = torch.load(self.folder / name, weights_only=True)
            if saved["metrics"] and saved["progress"]["step"] == 0:
                accuracy = "validation_accuracy" if self.flags["validation"] else "test_accuracy"
                expected = [row for row in read_metrics(self.whole) if row["epoch"] == saved["epoch"]]
                assert [saved["metrics"][accuracy]] == pytest.approx([row[accuracy] for row in expected])

    @rule(name=st.sampled_from((*CHECKPOINTS, "checkpoints.json", "config.json", "metrics.csv", "summary.json")),
          how=st.sampled_from(("cut", "flip", "delete")), place=st.integers(0, 99))  # fmt: skip
    def damage(self, name: str, how: str, place: int) -> None:
        path = self.folder / name
        if not path.exists():
            return
        content = bytearray(path.read_bytes())
        if how == "delete":
            self.lost.add(name)
            path.unlink()
        elif content:
            at = len(content) * place // 100
            content[at:] = b"" if how == "cut" else bytes([content[at] ^ 0xFF]) + content[at + 1 :]
            path.write_bytes(content)
            self.spoiled.add(bytes(content))

    # what is always true

    @invariant()
    def every_file_is_whole_and_no_epoch_is_doubled_or_missing(self) -> None:
        for path in self.folder.glob("[!.]*"):
            if self.is_spoiled(path.name):
                continue
            if path.suffix == ".json":
                json.loads(path.read_text())
            if path.suffix == ".pt":
                torch.load(path, weights_only=True)
            if path.name == "metrics.csv":
                rows = without_times(read_metrics(self.folder))
                assert rows == without_times(read_metrics(self.whole))[: len(rows)]

    def check_end(self) -> None:
        """A run that ended is the one that nothing happened to, to the bit."""
        one, other = self.folder, self.whole
        names = [{path.name for path in folder.iterdir()} for folder in (one, other)]
        assert names[0] ^ names[1] <= {"previous.pt", *self.lost}
        if self.is_spoiled("summary.json") or self.is_spoiled("metrics.csv") or not self.has("metrics.csv"):
            return
        assert without_times(read_metrics(one)) == without_times(read_metrics(other))
        assert log_without_times(one) == log_without_times(other)
        for name in ("last.pt", "best.pt", "findings.pt"):
            if self.has(name) and not self.is_spoiled(name):
                assert same(*(torch.load(folder / name, weights_only=True) for folder in (one, other))), name
        summaries = [read_json(folder / "summary.json") for folder in (one, other)]
        for summary in summaries:
            for name in ("seconds", "images_per_second", "peak_memory_mib", "run_folder"):
                del summary[name]
        assert summaries[0] == summaries[1]


@pytest.mark.hypothesis
def test_whatever_happens_to_a_run_it_goes_on_to_the_same_end_or_says_in_one_line_why_not(
    wholes: dict[float | None, Path], tmp_path: Path
) -> None:
    few = settings(settings.default, max_examples=-(-settings.default.max_examples // 2), stateful_step_count=8)
    run_state_machine_as_test(lambda: RunInAnyOrder(wholes, tmp_path), settings=few)
