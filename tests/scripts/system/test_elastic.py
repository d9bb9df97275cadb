"""A run goes on with the processes that are left, from its last checkpoint, to the same end."""

import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from shutil import copytree

import pytest
import torch
from torch.distributed.run import get_args_parser

from scripts import experiment, resuming
from scripts.run import page
from scripts.run.folder import RunFolder, read_metrics
from scripts.system import locks, processes
from scripts.system.command_line import parse, run
from scripts.system.errors import InputError
from scripts.system.processes import Processes
from scripts.train_stn import Options, main
from tests.scripts.system import elastic
from tests.support.runs import PRELOADED, at_step
from tests.support.trees import write_tree

pytestmark = pytest.mark.numerics

ERROR = 1e-3  # of losses and weights after 9 small steps: Muon amplifies that sums of float32 have another order
# without batch norm, which depends on the number of processes
COMMAND = ["--out", "run", "--resume", "auto", "--data", "photos", "--recipe", "tuned", "--epochs", "3",
           "--batch-size", "5", "--lr", "0.002", "--limit-train", "15", "--device", "cpu",
           "--precision", "float32"]  # fmt: skip
STOPPED = (
    r"train_stn: stopped by SIGTERM after 0 epochs and 2 steps; to resume: \S+ -m scripts.train_stn --resume=run\n"
)
GONE = r"train_stn: error: another process of this run has ended or does not answer: .+\n"

KEPT = ExitStack()
Act = Callable[[], object]


def nothing() -> None:
    """What most processes do beside their work."""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(step: int, act: Act) -> None:
    """Act before that step."""
    KEPT.enter_context(at_step(step, act))


def drawn(path: Path) -> Path:
    """Drawing takes a second."""
    (path / "report.html").touch()
    return path / "report.html"


def instead_of_the_summary() -> None:
    experiment.finish = lambda *_: kill()


def instead_of_the_report() -> None:
    page.write_report = lambda _: kill()


def quick_to_refuse() -> None:
    resuming.VISIBLE = 0.1


def soon_tired() -> None:
    processes.MEETING = timedelta(seconds=0.5)


def impatient() -> None:
    processes.ANSWER = timedelta(seconds=1)


def silent() -> None:
    """As a machine without power: its connections stay open."""
    impatient()
    at(2, partial(time.sleep, 2))


def together(barrier: Barrier) -> None:
    """Open the folder at the same time as another process."""
    opened = experiment.open_folder
    experiment.open_folder = lambda *given: (barrier.wait(60), opened(*given))[1]


def one(environment: dict[str, str], folder: Path, output: Path, act: Act) -> None:
    """What torchrun starts, without the import of torch."""
    os.environ |= environment
    os.chdir(folder)
    torch.set_num_threads(1)
    page.write_report = drawn
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)
    act()
    run(lambda: main(parse(Options, "train_stn", COMMAND)), "train_stn")


def start(
    acts: Sequence[Act], folders: Sequence[Path], root: Path, count: int | None = None
) -> list[tuple[int | None, str]]:
    """Run the command in processes of one run, or of several if there is no count; return exit codes and outputs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = [root / f"{rank}.txt" for rank in range(len(acts))]
    started = []
    for rank, (act, folder, output) in enumerate(zip(acts, folders, outputs, strict=True)):
        environment = {} if count is None else {
            "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_MAX_RESTARTS": "3", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
        }  # fmt: skip
        started.append(context.Process(target=one, args=(environment, folder, output, act)))
        started[-1].start()
    for process in started:
        process.join(120)
    return [(process.exitcode, output.read_text()) for process, output in zip(started, outputs, strict=True)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, left alone."""
    root = tmp_path_factory.mktemp("whole")
    write_tree(root / "photos")
    ((code, _),) = start([nothing], [root], root)
    assert code == 0
    return root / "run"


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[tuple[int | None, str]]]]:
    """The folder of a run whose processes end one after the other, and what each of them printed."""
    root = tmp_path_factory.mktemp("elastic")
    write_tree(root / "photos")
    stopped = partial(at, 2, partial(signal.raise_signal, signal.SIGTERM))
    acts: list[list[Act]] = [
        [nothing, nothing, stopped],  # its machine is needed for something else
        [partial(at, 4, kill), nothing, nothing],
        [instead_of_the_summary, nothing],
        [instead_of_the_report],
        [nothing],
    ]
    return root, [start(each, [root] * len(each), root, len(each)) for each in acts]


def test_a_signal_to_one_stops_all_and_none_looks_finished(rounds: tuple[Path, list]) -> None:
    """An exit code of 0 would tell torchrun that there is nothing to go on with."""
    (first, *others), *_ = rounds[1]
    assert [code for code, _ in (first, *others)] == [128 + signal.SIGTERM] * 3
    assert re.search(f"{STOPPED}$", first[1])
    assert [printed for _, printed in others] == ["", ""]


def test_if_the_first_dies_the_others_say_so_in_one_line(rounds: tuple[Path, list]) -> None:
    in_training, at_the_end = rounds[1][1:3]
    assert [code for code, _ in in_training] == [-signal.SIGKILL, 2, 2]
    assert [code for code, _ in at_the_end] == [-signal.SIGKILL, 2]
    assert all(re.fullmatch(GONE, printed) for _, printed in (*in_training[1:], *at_the_end[1:]))


def test_those_that_are_left_end_the_run_as_if_none_had_died(rounds: tuple[Path, list], whole: Path) -> None:
    root, (*_, ((before, went_on),), ((code, printed),)) = rounds
    assert went_on.startswith("run goes on after 3 epochs and 0 steps, processes: 1\n")
    assert (before, code) == (-signal.SIGKILL, 0)
    assert printed == "the run in run is finished\nReport: run/report.html\n"
    assert elastic.faults(root / "run", whole) == []
    assert max(elastic.distances(root / "run", whole)) < ERROR


def doubled(folder: Path) -> None:
    rows = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join([*rows, rows[-1]]))


def missing(folder: Path) -> None:
    rows = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(rows[:-1]))


def logged_twice(folder: Path) -> None:
    with (folder / "train.log").open("a") as file:
        file.write("Epoch 3/3, learning rate 1\n")


def broken(folder: Path) -> None:
    content = bytearray((folder / "last.pt").read_bytes())
    content[-1] ^= 1
    (folder / "last.pt").write_bytes(content)


def unfinished(folder: Path) -> None:
    (folder / "summary.json").unlink()


def a_step_more(folder: Path) -> None:
    state = torch.load(folder / "last.pt", weights_only=True)
    state["schedulers"][0]["last_epoch"] += 1
    RunFolder(folder).keep(state)


def a_batch_less(folder: Path) -> None:
    state = torch.load(folder / "last.pt", weights_only=True)
    state["generator"] = torch.Generator().get_state()
    RunFolder(folder).keep(state)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (doubled, "in metrics.csv"), (missing, "in metrics.csv"), (logged_twice, "in train.log"), (broken, "damaged"),
        (unfinished, "no summary.json"), (a_step_more, "another number of steps"), (a_batch_less, "other images"),
    ],
)  # fmt: skip
def test_what_a_killed_machine_may_spoil_is_found(
    harm: Callable[[Path], None], said: str, whole: Path, tmp_path: Path
) -> None:
    """Else `make torture-elastic` would show nothing."""
    copied = copytree(whole, tmp_path / "run")
    assert elastic.faults(copied, whole) == []
    harm(copied)
    (found,) = elastic.faults(copied, whole)
    assert said in found


def test_the_command_on_the_page_is_one_that_torchrun_and_the_script_take() -> None:
    variables, given = elastic.documented()
    asked = get_args_parser().parse_args(given)
    assert (asked.nnodes, asked.rdzv_backend, asked.module) == ("1:3", "c10d", True)
    assert asked.training_script == "scripts.train_stn"
    options = parse(Options, "train_stn", asked.training_script_args)
    assert (options.resume, options.out) == ("auto", "runs/first")
    assert variables == {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def test_a_process_that_does_not_see_the_run_folder_says_so(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first machine", "other machine")]
    for folder in folders:
        write_tree(folder / "photos")
    wanted = "must be one folder that the machines of all processes share"
    first, other = start([quick_to_refuse] * 2, folders, tmp_path, 2)
    assert other == (2, f"train_stn: error: run folder (run) {wanted}; for process 1 it has no config.json\n")
    assert first[0] == 2
    assert re.search(rf"{GONE}\Z", first[1])
    (folders[1] / "run").mkdir()
    (folders[1] / "run" / "config.json").write_bytes((folders[0] / "run" / "config.json").read_bytes())
    (folders[1] / "run" / "checkpoints.json").write_text("{}")
    _, other = start([quick_to_refuse] * 2, folders, tmp_path, 2)
    assert other == (
        2, f"train_stn: error: run folder (run) {wanted}; for process 1 it holds another run or checkpoint\n"
    )  # fmt: skip


def test_processes_wait_only_for_a_while_for_one_that_never_comes(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos")
    ((code, printed),) = start([soon_tired], [tmp_path], tmp_path, 2)
    assert code == 2
    assert re.fullmatch(GONE, printed)
    _, (code, printed) = start([kill, soon_tired], [tmp_path] * 2, tmp_path, 2)
    assert code == 2
    assert re.fullmatch(GONE.replace(": .+", ""), printed), "the first one never comes"
    assert not (tmp_path / "run").exists()


def test_one_that_is_silent_is_taken_for_dead_after_a_while(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos")
    (waiting, printed), _ = start([impatient, silent], [tmp_path] * 2, tmp_path, 2)
    assert waiting == 2
    assert re.search(rf"^Epoch 1/3, learning rate \S+\n{GONE}\Z", printed, re.MULTILINE)


def test_of_two_runs_that_start_at_once_one_has_the_folder(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos")
    act = partial(together, multiprocessing.get_context("forkserver").Barrier(2))
    winner, loser = sorted(start([act] * 2, [tmp_path] * 2, tmp_path), key=lambda end: end[0] or 0)
    assert (winner[0], loser[0]) == (0, 2)
    assert re.search("(must not be in use|must be a new or empty folder)[^\n]*\n$", loser[1])
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(("restarts", "seconds"), [(3, 0.2), (3, 60.0), (0, 0.2)])
def test_a_lock_that_is_released_late_is_waited_for_where_torchrun_restarts(
    restarts: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the files holds the lock of a machine that died for a while."""
    monkeypatch.setattr(experiment, "UNLOCKED", 0.6)
    handle = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    locks.lock(handle)
    release = threading.Timer(seconds, os.close, [handle])
    release.start()
    waited = restarts and seconds < 1
    with nullcontext() if waited else pytest.raises(InputError, match="must not be in use"):
        experiment.open_folder(Options(resume=str(tmp_path)), "", Processes(restarts=restarts))
    release.cancel()
