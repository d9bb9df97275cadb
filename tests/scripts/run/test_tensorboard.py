"""The event file of a run: every epoch of metrics.csv once, also where the run was killed, and every figure."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.run import page
from scripts.run.folder import RunFolder, read_metrics
from scripts.run.tensorboard import EVENT_FILES, Events
from scripts.system.command_line import command
from scripts.system.errors import InputError
from scripts.train_stn import Options, main
from tests.support.marks import reads_events
from tests.support.runs import at_step, flags, run


class Killed(BaseException):
    """Stands in for SIGKILL: no code of the run handles it."""


def die(*_: object) -> None:
    raise Killed


def events(folder: Path) -> Any:
    """All events in a folder, as TensorBoard reads them, but none forgotten."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0}, purge_orphaned_data=False)
    return found.Reload()


def assert_every_row_is_there_once(folder: Path) -> None:
    found, rows = events(folder), read_metrics(folder)
    tags = found.Tags()["scalars"]
    assert {*tags} == {f"metrics/{name}" for name in rows[0] if name != "epoch"}
    for tag in tags:
        scalars = found.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [row["epoch"] for row in rows], tag
        values = [row[tag.removeprefix("metrics/")] for row in rows]
        assert [scalar.value for scalar in scalars] == pytest.approx(values, rel=1e-5)


def begun(path: Path) -> RunFolder:
    folder = RunFolder.create(path)
    folder.events = Events(path)
    return folder


def before_the_second(method: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Be killed just before a method of the run folder, or of its events, is called a second time."""
    owner = RunFolder if hasattr(RunFolder, method) else Events

    def patch(patches: pytest.MonkeyPatch) -> None:
        calls, original = [], getattr(owner, method)
        patches.setattr(owner, method, lambda *given: die() if calls else (calls.append(1), original(*given)))

    return patch


@reads_events
@pytest.mark.parametrize("moment", ["in the first epoch", "in the second", "keep", "metrics", "rows", "not at all"])
def test_every_epoch_is_there_once_whenever_the_run_was_killed(moment: str, tmp_path: Path) -> None:
    """``keep`` writes last.pt, ``metrics`` the table, and ``rows`` the events."""
    folder, steps = begun(tmp_path / "run"), {"in the first epoch": 2, "in the second": 7}
    with pytest.MonkeyPatch.context() as patches:
        if moment in steps:
            with at_step(steps[moment], die), pytest.raises(Killed):
                run(folder, save_minutes=60.0).fit()
        elif moment != "not at all":
            before_the_second(moment)(patches)
            with pytest.raises(Killed):
                run(folder, save_minutes=60.0).fit()
    folder.events = Events(folder.path)  # another process goes on
    checkpoint = folder.last_checkpoint()
    run(folder, save_minutes=60.0).fit(checkpoint)
    assert len(read_metrics(folder.path)) == 3
    assert_every_row_is_there_once(folder.path)


@reads_events
def test_events_of_an_epoch_that_is_trained_again_are_forgotten(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    run(folder).fit()
    checkpoint = folder.last_checkpoint()
    folder.events = Events(folder.path)
    folder.rewind(checkpoint["log_size"], checkpoint["progress"]["rows"][:1])
    assert_every_row_is_there_once(folder.path)
    assert len(read_metrics(folder.path)) == 1
    assert len([*folder.path.glob(EVENT_FILES)]) == 1


@reads_events
def test_a_run_with_the_flag_has_its_metrics_and_figures_as_events(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(folder: Path) -> Path:
        Image.fromarray(np.full((5, 7, 3), 200, dtype=np.uint8)).save(folder / "curves.png")
        return folder / "report.html"

    monkeypatch.setattr(page, "write_report", drawn)  # drawing takes a second
    main(flags(Options, data=str(tree), epochs=2, out="run", tensorboard=True))
    assert_every_row_is_there_once(tmp_path / "run")
    found = events(tmp_path / "run")
    assert found.Tags()["images"] == ["figures/curves"]
    (image,) = found.Images("figures/curves")
    assert (image.step, image.width, image.height) == (2, 7, 5)


@pytest.mark.usefixtures("_no_report")
def test_a_run_without_the_flag_writes_no_events(tree: Path, tmp_path: Path) -> None:
    main(flags(Options, data=str(tree), epochs=1, out="run"))
    assert not [*(tmp_path / "run").glob(EVENT_FILES)]


def test_where_tensorboard_is_missing_the_run_ends_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main(flags(Options, data="nowhere", out="run", tensorboard=True))
    installs = command("-m", "pip", "install", "tensorboard")
    assert str(error.value) == f"tensorboard must be installed for --tensorboard: {installs}"
    assert not [*tmp_path.iterdir()]
