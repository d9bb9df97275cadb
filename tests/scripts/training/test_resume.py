"""A run may be stopped at any instant: resumed from its folder, it ends as if it had never been stopped."""

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts.run.folder import RunFolder, digest, read_metrics
from scripts.system.errors import InputError, Stopped
from tests.support.runs import at_step, log_without_times, run, without_times
from tests.support.sources import ROOT

pytestmark = pytest.mark.numerics


class Killed(BaseException):
    """Stands in for SIGKILL: no code of the run handles it."""


def die() -> None:
    raise Killed


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = run(tmp_path_factory.mktemp("whole") / "run")
    whole.fit()
    return whole.folder.path


def assert_same_after_resuming(folder: RunFolder, uninterrupted: Path) -> None:
    """Resume the run in another state of the random generators, and compare everything that it leaves."""
    random.seed(99)
    checkpoint = folder.last_checkpoint()
    if checkpoint is None:
        folder.rewind(0, [])
    resumed = run(folder, seed=0 if checkpoint is None else 7)
    if checkpoint is not None:
        torch.manual_seed(99)
    resumed.fit(checkpoint)
    mine, theirs = resumed.folder.path, uninterrupted
    assert without_times(read_metrics(mine)) == without_times(read_metrics(theirs))
    assert log_without_times(mine) == log_without_times(theirs)
    for name in ("last.pt", "best.pt"):
        one, other = (torch.load(path / name, weights_only=True) for path in (mine, theirs))
        assert one["epoch"] == other["epoch"]
        for weights in ("model", "trained"):
            assert all(torch.equal(one[weights][key], value) for key, value in other[weights].items())


@pytest.mark.parametrize("steps", range(1, 11))
@pytest.mark.parametrize("moment", ["before the step", "after it"])
def test_killed_at_any_step_it_ends_with_the_same_bits(steps: int, moment: str, tmp_path: Path, uninterrupted) -> None:
    """The last epoch is shorter, batches have unequal sizes, and every step is saved."""
    first = run(tmp_path / "run")
    with at_step(steps, die, after=moment == "after it"), pytest.raises(Killed):
        first.fit()
    assert_same_after_resuming(first.folder, uninterrupted)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 14, 20])
@pytest.mark.parametrize(("owner", "name"), [(Path, "replace"), (os, "fsync")], ids=("replace", "fsync"))
def test_killed_while_a_file_is_written_it_ends_with_the_same_bits(
    count: int, owner: Any, name: str, tmp_path: Path, uninterrupted
) -> None:
    """At every sync and every renaming a complete checkpoint exists."""
    first = run(tmp_path / "run")
    calls, original = 0, getattr(owner, name)

    def dying(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise Killed
        return original(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            first.fit()
    checkpoint, best = first.folder.last_checkpoint(), tmp_path / "run" / "best.pt"
    done = 0 if checkpoint is None else checkpoint["epoch"]
    if best.exists():  # a repeated epoch may end with other numbers on another machine
        assert torch.load(best, weights_only=True)["epoch"] <= done, "of an epoch that need not be repeated"
    assert_same_after_resuming(first.folder, uninterrupted)


class FullDisk:
    """Accepts so many bytes over all files that are written, then fails."""

    def __init__(self, left: int) -> None:
        self.left, self.open = left, Path.open

    def __call__(self, path: Path, mode: str = "r", **how: Any) -> Any:
        file = self.open(path, mode, **how)
        return file if "r" in mode else Filling(file, self)


class Filling:
    """A file on that disk."""

    def __init__(self, file: Any, disk: FullDisk) -> None:
        self.file, self.disk = file, disk

    def write(self, content: Any) -> int:
        fits = min(len(content), self.disk.left)
        self.disk.left -= fits
        self.file.write(content[:fits])
        if fits < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Filling":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("eighth", range(8))
def test_a_full_disk_stops_the_run_which_resumes_with_the_same_bits(
    eighth: int, tmp_path: Path, uninterrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "run")
    disk = FullDisk(20_000 + 23_457 * eighth)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *given, **how: disk(path, *given, **how))
        with pytest.raises(OSError, match=r"^cannot write \S+/run/[\w.]+: No space left on device$"):
            first.fit()
    assert disk.left == 0
    assert not list((tmp_path / "run").glob("*.part"))
    assert_same_after_resuming(first.folder, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_the_step_and_saves_it(number: signal.Signals, tmp_path: Path, uninterrupted) -> None:
    first = run(tmp_path / "run", save_minutes=60.0)
    before = signal.getsignal(number)
    terminate = at_step(6, lambda: signal.raise_signal(number))
    with terminate, pytest.raises(Stopped, match="after 1 epochs and 2 steps") as stopped:
        first.fit()
    assert (stopped.value.by, stopped.value.folder) == (number, str(tmp_path / "run"))
    assert signal.getsignal(number) is before, "handlers are restored"
    assert_same_after_resuming(first.folder, uninterrupted)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_gives_a_warning_and_the_one_before_is_used(
    damage: str, tmp_path: Path, uninterrupted, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path / "run")
    first.model.register_forward_pre_hook(
        lambda module, given: signal.raise_signal(signal.SIGTERM) if first.folder.log_size > 300 else None
    )
    with pytest.raises(Stopped):
        first.fit()
    last = tmp_path / "run" / "last.pt"
    content = bytearray(last.read_bytes())
    if damage == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    else:
        last.unlink()
    assert_same_after_resuming(first.folder, uninterrupted)
    assert ("last.pt is damaged" in capsys.readouterr().err) == (damage != "gone")


def interrupted(folder: RunFolder, saves: int, **changes: Any) -> None:
    """Begin or resume a run, and kill it after so many checkpoints."""
    checkpoint = folder.last_checkpoint()
    going_on = run(folder, **changes)
    keep, left = RunFolder.keep, saves

    def counted(*given: Any) -> None:
        nonlocal left
        keep(*given)
        left -= 1
        if left == 0:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "keep", counted)
        with pytest.raises(Killed):
            going_on.fit(checkpoint)


def spoil(path: Path) -> None:
    """Flip a bit in the middle, where the weights are."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_never_takes_the_place_of_the_one_before(tmp_path: Path, uninterrupted) -> None:
    """Its hash would become that of a good one, and its weights those of the run."""
    folder = run(tmp_path / "run").folder
    interrupted(folder, saves=4)
    spoil(tmp_path / "run" / "last.pt")
    spoilt = digest(tmp_path / "run" / "last.pt")
    interrupted(folder, saves=1)
    assert digest(tmp_path / "run" / "previous.pt") != spoilt
    (tmp_path / "run" / "last.pt").unlink()
    assert_same_after_resuming(folder, uninterrupted)


def test_killed_between_two_renamings_it_still_knows_the_hash_of_the_checkpoint_before(
    tmp_path: Path, uninterrupted
) -> None:
    folder = run(tmp_path / "run").folder
    interrupted(folder, saves=3)
    (tmp_path / "run" / "last.pt").replace(tmp_path / "run" / "previous.pt")  # and there it died
    interrupted(folder, saves=1)
    spoil(tmp_path / "run" / "last.pt")
    assert_same_after_resuming(folder, uninterrupted)


def test_every_generator_is_restored_from_the_checkpoint(tmp_path: Path) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    state = run(tmp_path / "run", seed=1).begin()
    saved = state.saved()
    expected = draws()
    draws()
    state.restore(saved)
    assert draws() == expected


def test_two_processes_never_write_to_one_folder_and_a_dead_one_releases_its_lock(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from scripts.run.folder import RunFolder;"
        "folder = RunFolder.create(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        (tmp_path / "run" / "config.json").write_text("{}")
        with pytest.raises(InputError, match="must not be in use"):
            RunFolder.reopen(tmp_path / "run")
        other.kill()
    RunFolder.reopen(tmp_path / "run")
