"""Several processes train as one: the same curve and weights, each image once, one writer, and one end."""

import gc
import json
import math
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scripts.data.datasets import Split
from scripts.data.mixing import UNMIXED
from scripts.data.poses import UPRIGHT
from scripts.data.transforms import Augment
from scripts.models.stn import STNClassifier
from scripts.run.folder import ReadOnlyFolder, RunFolder, read_metrics
from scripts.system.command_line import parse
from scripts.system.devices import choose_device
from scripts.system.errors import InputError, Stopped
from scripts.system.processes import Processes
from scripts.train_stn import Options, main
from scripts.training.range_test import range_test
from scripts.training.trainer import Trainer
from tests.support.runs import PRELOADED, at_step, dots, terminated, without_times
from tests.support.runs import run as small_run
from tests.support.sources import ROOT
from tests.support.strategies import generator, random_pixels

pytestmark = pytest.mark.numerics

TOLERANCE = 1e-5  # of losses and weights: sums of float32 in another order


# the work of every process


def run(folder: Path, processes: Processes, **changes: object) -> Trainer:
    """25 images in batches of 8: the last batch has a single image, which only one process gets."""
    if not processes.first:
        opened: RunFolder = ReadOnlyFolder(folder)
    else:
        opened = RunFolder(folder) if folder.exists() else RunFolder.create(folder)
    settings: dict[str, Any] = {
        "train": dots(25, seed=1), "clip": 0.5, "steps": 12, "at_once": 3, "save_minutes": 60.0, "processes": processes,
    }  # fmt: skip
    return small_run(opened, dropout=0.0, **(settings | changes))


def fitted_stn(folder: Path, processes: Processes) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Train the network of train-stn for 6 steps of 10, 10 and 1 images.

    In float64: in one float32 run of twelve a sample rounds across a pixel's centre, where the gradient jumps.
    """
    torch.manual_seed(0)
    model = STNClassifier(dropout=0.0).double()
    split = Split(random_pixels(3, 21, 32, 32), torch.arange(21) % 10)
    made = run(
        folder, processes, model=model, predict=lambda x: (model(x), None), train=split, held_out=split, batch_size=10,
        optimizers=[torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)], steps=6,
        normalise=lambda pixels: pixels.double() / 127.5 - 1, image_size=(32, 32), classes=(*"0123456789",),
    )  # fmt: skip
    return made.fit(), model.state_dict()


def normed(folder: Path, processes: Processes) -> Trainer:
    """A run with batch norm, whose running statistics come from the share of each process."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05)]
    return run(folder, processes, model=model, predict=lambda x: (model(x), None), optimizers=optimizers)


def stopped(made: Trainer, step: int, here: bool = True) -> str:
    """Terminate the run within that step by a signal to this process or another, and return where it stopped."""
    terminate = at_step(step, lambda: signal.raise_signal(signal.SIGTERM) if here else None)
    with terminate, pytest.raises(Stopped) as caught:
        made.fit()
    return str(caught.value)


def seen_images(made: Trainer) -> dict[str, list[float]]:
    """Collect the sum of every image that the network sees in training and in evaluation."""
    seen: dict[str, list[float]] = {"train": [], "test": []}
    made.model.register_forward_pre_hook(
        lambda model, given: seen["train" if model.training else "test"].extend(given[0].flatten(1).sum(1).tolist())
    )
    return seen


def whole_runs(processes: Processes, root: Path) -> dict[str, Any]:
    """What must be the same for any number of processes."""
    whole = run(root / "whole", processes)
    found: dict[str, Any] = {"rows": whole.fit(), "weights": whole.model.state_dict()}
    result = whole.evaluate(whole.held_out)
    found["logits"], found["extra"] = result.logits, result.extra
    found["stn rows"], found["stn weights"] = fitted_stn(root / "stn", processes)
    tested = range_test(run(root / "range", processes))
    found["range"] = tested.rates, tested.losses
    return found


def all_laws(processes: Processes, root: Path) -> dict[str, Any]:
    """Everything that the tests below read of one process."""
    found = whole_runs(processes, root)

    plain = run(root / "plain", processes, augment=Augment(), poses=UPRIGHT, mix=UNMIXED, steps=4)
    found["seen"] = seen_images(plain)
    plain.fit()

    with_norm = normed(root / "normed", processes)
    with_norm.fit()
    found["normed logits"] = with_norm.evaluate(with_norm.held_out).logits
    found["normed state"] = with_norm.model.state_dict()

    last = processes.rank == processes.count - 1
    found["stopped"] = stopped(run(root / "stopped", processes), step=6, here=last)

    resumed = run(root / "from one process", processes)
    found["resumed rows"] = resumed.fit(resumed.folder.last_checkpoint())
    found["resumed weights"] = resumed.model.state_dict()

    zeros = Split(dots(25, seed=1).images, torch.zeros(25, dtype=torch.long))
    poisoned = run(root / "poisoned", processes, train=zeros, steps=4)
    if last:  # its loss is infinite, all gradients are finite
        impossible = torch.tensor([-math.inf, 0.0])
        poisoned.model.register_forward_hook(lambda model, given, out: out + impossible if model.training else None)
    poisoned.fit()
    found["weights after no step"] = poisoned.model.state_dict()

    processes.draw_apart(seed=0, step=0)
    found["drawn"] = torch.rand(4)
    found["broadcast"] = processes.broadcast(f"rank {processes.rank}")
    return found


def one_dies(processes: Processes, root: Path) -> dict[str, Any]:
    """The last process is killed in the middle of the second epoch."""
    made = run(root / "killed", processes)
    last = processes.rank == processes.count - 1
    with at_step(6, lambda: os.kill(os.getpid(), signal.SIGKILL) if last else None):
        made.fit()
    return {}


def one_of_many(processes: Processes, port: int, work: Callable[..., dict[str, Any]], root: Path) -> None:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= address | {"RANK": str(processes.rank), "WORLD_SIZE": str(processes.count)}
    try:
        with processes.connected(torch.device("cpu")):
            found = work(processes, root)
    except ConnectionError as error:
        found = {"error": str(error)}
    torch.save(found, root / f"{processes.rank}.pt")


def in_processes(count: int, work: Callable[..., dict[str, Any]], root: Path) -> list[int | None]:
    """Run ``work`` in several processes, each of which writes a file, and return their exit codes."""
    context = multiprocessing.get_context("forkserver")  # imports torch only once
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=one_of_many, args=(Processes(count, rank, rank), port, work, root))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


# several processes, started once for all tests


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a single process."""
    return whole_runs(Processes(), tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=(2, 3))
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder and the results of each of 2 or 3 processes."""
    root = tmp_path_factory.mktemp("several")
    stopped(run(root / "from one process", Processes()), step=6)
    gc.collect()  # releases its lock on the folder
    assert in_processes(request.param, all_laws, root) == [0] * request.param
    return root, [torch.load(root / f"{rank}.pt") for rank in range(request.param)]


def assert_close(rows: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    for one, other in zip(without_times(rows), without_times(expected), strict=True):
        assert one == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("network", ("", "stn "))
def test_curve_and_weights_are_those_of_one_process_and_weights_have_the_same_bits_in_all(
    network: str, several: tuple[Path, list[Any]], alone: dict[str, Any]
) -> None:
    rows, weights = f"{network}rows", f"{network}weights"
    for found in several[1]:
        assert_close(found[rows], alone[rows])
        torch.testing.assert_close(found[weights], alone[weights], atol=TOLERANCE, rtol=TOLERANCE)
        assert all(torch.equal(found[weights][name], weight) for name, weight in several[1][0][weights].items())


def test_the_range_test_is_that_of_one_process_and_the_same_in_all(
    several: tuple[Path, list[Any]], alone: dict[str, Any]
) -> None:
    """Where the loss is about to diverge every rounding error is amplified: all end after the same step, too."""
    rates, losses = alone["range"]
    assert len(rates) > 150
    for found in several[1]:
        assert found["range"] == several[1][0]["range"]
        assert found["range"][0][:150] == rates[:150]
        assert found["range"][1][:150] == pytest.approx(losses[:150], rel=TOLERANCE, abs=TOLERANCE)


def test_all_evaluate_with_the_running_statistics_that_the_checkpoint_has(several: tuple[Path, list[Any]]) -> None:
    root, all_found = several
    made = normed(root.with_name(f"{root.name}-normed"), Processes())
    made.model.load_state_dict(torch.load(root / "normed" / "last.pt", weights_only=True)["model"])
    expected = made.evaluate(made.held_out).logits
    for found in all_found:
        torch.testing.assert_close(found["normed logits"], expected, atol=TOLERANCE, rtol=TOLERANCE)
        assert all(torch.equal(found["normed state"][name], value) for name, value in made.model.state_dict().items())


def test_each_image_is_seen_once_an_epoch_and_evaluated_once(several: tuple[Path, list[Any]]) -> None:
    root, all_found = several
    plain = run(root.with_name(f"{root.name}-compare"), Processes(), augment=Augment(), poses=UPRIGHT, mix=UNMIXED)
    for name, split in (("train", plain.train), ("test", plain.held_out)):
        everything = [value for found in all_found for value in found["seen"][name]]
        expected = plain.prepare(split.images).flatten(1).sum(1).tolist()
        assert sorted(everything) == pytest.approx(sorted(expected), rel=TOLERANCE, abs=TOLERANCE)
        counts = [len(found["seen"][name]) for found in all_found]
        assert max(counts) - min(counts) <= 4, "shares of a batch differ by at most one image"


def test_every_process_has_the_evaluation_of_all_images_in_order(
    several: tuple[Path, list[Any]], alone: dict[str, Any]
) -> None:
    for found in several[1]:
        torch.testing.assert_close(found["logits"], alone["logits"], atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(found["extra"], alone["extra"])


def test_one_process_writes_and_files_have_no_names_of_a_wrapper(
    several: tuple[Path, list[Any]], alone: dict[str, Any]
) -> None:
    root, all_found = several
    assert (root / "whole" / "train.log").read_text().count("Train set: ") == len(alone["rows"])
    assert len(read_metrics(root / "whole")) == len(alone["rows"])
    for name in ("last.pt", "best.pt"):
        saved = torch.load(root / "whole" / name, weights_only=True)
        assert saved["model"].keys() == alone["weights"].keys()
    assert all(found["broadcast"] == "rank 0" for found in all_found)


def test_a_signal_to_one_process_stops_all_after_the_same_step(several: tuple[Path, list[Any]]) -> None:
    root, all_found = several
    where = "stopped by SIGTERM after 1 epochs and 2 steps"
    assert [found["stopped"] for found in all_found] == [where] * len(all_found)
    saved = torch.load(root / "stopped" / "last.pt", weights_only=True)
    assert (saved["epoch"], saved["progress"]["step"]) == (1, 2)


def test_a_run_resumes_with_another_number_of_processes(
    several: tuple[Path, list[Any]], alone: dict[str, Any], tmp_path: Path
) -> None:
    root, all_found = several
    less = run(copytree(root / "stopped", tmp_path / "stopped"), Processes())
    rows = less.fit(less.folder.last_checkpoint())
    ends = [(rows, less.model.state_dict())]
    ends += [(found["resumed rows"], found["resumed weights"]) for found in all_found]
    for resumed_rows, weights in ends:
        torch.testing.assert_close(weights, alone["weights"], atol=TOLERANCE, rtol=TOLERANCE)
        assert_close(resumed_rows, alone["rows"])


def test_a_loss_that_is_not_finite_in_one_process_skips_the_step_in_all(several: tuple[Path, list[Any]]) -> None:
    root, all_found = several
    assert (root / "poisoned" / "train.log").read_text().count("is skipped") == 4
    untouched = run(root / "untouched", Processes()).model.state_dict()
    for found in all_found:
        assert all(torch.equal(found["weights after no step"][name], weight) for name, weight in untouched.items())


def test_each_process_draws_its_own_dropout(several: tuple[Path, list[Any]]) -> None:
    drawn = [tuple(found["drawn"].tolist()) for found in several[1]]
    assert len(set(drawn)) == len(drawn)


def test_an_error_without_words_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "_met", lambda self: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    with (
        pytest.raises(ConnectionError, match=r"^another process of this run has ended or does not answer: DistError$"),
        Processes(2).connected(torch.device("cpu")),
    ):
        raise torch.distributed.DistError


def test_if_one_dies_the_others_end_with_an_error(tmp_path: Path) -> None:
    """Even while they wait for its gradients; torchrun then ends the rest and names the dead process."""
    assert in_processes(3, one_dies, tmp_path) == [0, 0, -signal.SIGKILL]
    errors = [torch.load(tmp_path / f"{rank}.pt")["error"] for rank in (0, 1)]
    assert all(re.match(r"another process of this run has ended or does not answer: .*gloo", one) for one in errors)
    saved = RunFolder(tmp_path / "killed").last_checkpoint()
    assert saved["epoch"] == 1


# without starting processes


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_cover_everything_once_and_have_equal_length(count: int, processes: int) -> None:
    shares = [list(range(count))[Processes(processes, rank).share(count)] for rank in range(processes)]
    assert [position for share in shares for position in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_a_share_of_a_batch_is_augmented_as_in_the_whole_batch(count: int, processes: int, crop: bool) -> None:
    images = random_pixels(count, count, 6, 7)
    augment = Augment(mirror=True, shift=2, crop=0.5 if crop else None)
    whole, after = generator(1), generator(1)
    expected = augment(images, count, whole)
    parts = []
    for rank in range(processes):
        after = generator(1)
        share = Processes(processes, rank).share(count)
        parts.append(augment(images[share], count, after, share))
        assert torch.equal(after.get_state(), whole.get_state()), "the next batch has the same draws"
    assert torch.equal(torch.cat(parts), expected)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # set by another program
    assert Processes.started() == Processes(1, 0, 0)
    for name, value in (("RUN_ID", "none"), ("MAX_RESTARTS", "5")):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert Processes.started() == Processes(4, 3, 1, 2, 5)


@pytest.mark.parametrize("name", ("cuda:1", "cuda:0", "mps"))
def test_a_device_that_processes_cannot_share_is_refused(name: str) -> None:
    assert choose_device("cpu", Processes(2, 1, 1)) == torch.device("cpu")
    with pytest.raises(InputError, match=rf"^--device \({name}\) must be cpu or cuda for 2 processes$"):
        choose_device(name, Processes(2, 1, 1))


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.device] = []
    monkeypatch.setattr(torch, "zeros", lambda size, device: tried.append(device) or torch.ones(size))
    assert choose_device("cuda", Processes(4, 3, 1)) == torch.device("cuda:1")
    assert choose_device("cuda:2") == torch.device("cuda:2")
    assert tried == [torch.device("cuda:1"), torch.device("cuda:2")]


WITHOUT_DISTRIBUTED = """
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "torch.distributed":
            import torch._C
            for part in ("_c10d_init", "_distributed_c10d", "_rpc_init", "_dist_autograd_init", "_faulty_agent_init"):
                vars(torch._C).pop(part, None)

sys.meta_path.insert(0, Finder())
import torch
from scripts.system.processes import Processes
import scripts.experiment
print(torch.distributed.is_available(), Processes.started())
"""


def test_a_torch_without_distributed_is_one_process() -> None:
    """As some builds for Windows, macOS and Jetson are."""
    command = [sys.executable, "-c", WITHOUT_DISTRIBUTED]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed == f"False {Processes()}\n"


# with torchrun


@pytest.mark.long
@pytest.mark.usefixtures("tree", "_no_report")
def test_a_run_of_torchrun_stops_with_one_message_and_resumes_alone(tmp_path: Path) -> None:
    """The command in the message resumes it, to the same end."""
    torchrun = ["torch.distributed.run", "--standalone", "--local-addr", "localhost", "--nproc-per-node", "2"]
    # small steps: at the recipe's learning rate, one run of ten differs by a hundredth of the loss
    flags = ["--data", "photos", "--recipe", "tuned", "--epochs", "6", "--batch-size", "5", "--precision", "float32",
             "--device", "cpu", "--lr", "0.002"]  # fmt: skip
    given = [*torchrun, "-m", "scripts.train_stn", *flags, "--out", "run"]
    log, errors, code = terminated(given, tmp_path, "Epoch 3/6")
    assert code != 0
    assert sum(line.startswith("Epoch 2/6") for line in log) == 1, "one process prints"
    (command,) = re.findall(r"^train_stn: stopped by SIGTERM after .*; to resume: \S+ -m scripts.train_stn (.*)$",
                            errors, re.MULTILINE)  # fmt: skip
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2
    main(parse(Options, "train_stn", command.split()))
    main(parse(Options, "train_stn", [*flags, "--out", "whole"]))
    shared, whole = (read_metrics(tmp_path / name) for name in ("run", "whole"))
    assert len(shared) == len(whole) == 6
    for one, other in zip(shared, whole, strict=True):  # an epoch lowers the loss by a hundredth
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.001)
