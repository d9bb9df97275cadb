"""What a record says of its machine, and the peaks that figures are held against: measured in bounded time."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks.describe import DescribeOptions, main
from benchmarks.measure import devices, machine
from scripts.system.machine import this_machine
from tests.support.machines import CPU, CUDA, EVERY, MACHINES, T4
from tests.support.sources import modules


class Processor:
    """One whose every product takes as long as it is told; its clock moves by what is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
        self.rate, self.spent, self.sides = rate, 0.0, []
        monkeypatch.setattr(machine, "products", self.products)
        monkeypatch.setattr(machine, "warm_up", lambda call, device, calls: self.compute(call))
        monkeypatch.setattr(machine, "sample", lambda call, device: self.compute(call))

    def products(self, device: torch.device, dtype: torch.dtype, side: int) -> list[Callable[[], float]]:
        self.sides.append(side)
        return [lambda: 2 * side**3 / self.rate, lambda: 4 * side**3 / self.rate]  # the second way takes twice as long

    def compute(self, call: Callable[[], float]) -> float:
        self.spent += call()
        return call()


@pytest.mark.parametrize(("rate", "side"), [(0.2e9, 192), (0.9e9, 384), (69e9, 1536), (190e9, 1536), (50e12, 1536)])
def test_a_peak_is_measured_in_bounded_time_whatever_the_speed(
    rate: float, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.9 GFLOP/s is bfloat16 where it is emulated: its peak took four minutes."""
    processor = Processor(monkeypatch, rate)
    assert machine.matmul_peak(CPU, torch.bfloat16) == pytest.approx(rate)
    assert processor.sides[-1] == side
    assert processor.spent < 10


def test_a_gpu_gets_larger_products(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = Processor(monkeypatch, 50e12)
    assert machine.matmul_peak(CUDA, torch.float32) == pytest.approx(50e12)
    assert processor.sides[-1] == machine.LARGEST_SIDE_ON_GPU


def test_a_peak_is_the_rate_of_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.cycle((0.4, 0.2, 0.8))
    monkeypatch.setattr(machine, "sample", lambda call, device: next(seconds))
    calls: list[int] = []

    def call() -> Tensor:
        calls.append(0)
        return torch.zeros(1)

    assert machine.best_rate(call, 10.0, CPU) == pytest.approx(50.0)
    assert calls, "it was warm"


def test_a_matrix_product_does_the_flops_it_is_counted_for() -> None:
    ways, work = machine.large_products(CPU, torch.float32)
    assert len(ways) == 2, "as a product, and as a convolution with a kernel of one pixel"
    for way in ways:
        side = math.isqrt(way().numel())
        assert work == 2 * side**3


@pytest.mark.parametrize("described", EVERY, ids=MACHINES)
def test_peaks_are_those_of_the_types_that_the_machine_is_fast_at(described, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda device: described)
    monkeypatch.setattr(machine, "matmul_peak", lambda device, dtype: 1.0)
    monkeypatch.setattr(machine, "copy_peak", lambda device: 2.0)
    found = machine.peaks(described.device)
    assert found.keys() == {"copy", *(f"matmul_{name}" for name in described.types)}
    assert ("matmul_bfloat16" in found) == described.fast_at_bfloat16
    assert described is not T4 or "matmul_float16" in found


def test_what_a_record_says_of_its_machine() -> None:
    about = machine.description(CPU)
    assert {"identity", "commit", "uncommitted_changes", "torch", "graphics", "float32_products"} <= {*about}
    assert about["backend"] == "CPU"


@pytest.fixture
def tf32() -> Iterator[None]:
    """On, as it is for convolutions unless it is turned off."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = True
    yield
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value


@pytest.mark.usefixtures("tf32")
def test_tf32_is_off_once_a_device_is_ready_and_the_record_says_so() -> None:
    assert machine.description(CPU)["tf32"] == {"products": True, "convolutions": True}
    devices.ready("cpu", keeping=False)
    assert machine.description(CPU)["tf32"] == {"products": False, "convolutions": False}


def test_the_device_is_chosen_in_one_place_alone() -> None:
    """So that no process can measure without what is done there: TF32 off, freed memory kept."""
    choosing = re.compile(r"choose_device|mallopt|allow_tf32 *=")
    sources = modules("benchmarks")
    found = {path.name for path in sources if choosing.search(path.read_text("utf-8"))}
    assert found == {"devices.py"}


class Gpus:
    """What nvidia-smi is asked, and what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        line = "NVIDIA H100, 560.35, 1755 MHz, 1980 MHz, 2619 MHz, 700.00 W\n"
        monkeypatch.setattr(
            machine.subprocess, "run", lambda command, **_: self.asked.extend(command) or SimpleNamespace(stdout=line)
        )
        chips = {torch.device("cuda:0"): "aaaa-0", torch.device("cuda:1"): "bbbb-1"}
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=chips[torch.device(device)])
        )
        self.line = line


def test_a_gpu_is_asked_for_by_what_is_written_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch)
    assert machine.graphics(torch.device("cuda:1")) == dict(
        zip(machine.SMI, gpus.line.strip().split(", "), strict=True)
    )
    assert "--id=GPU-bbbb-1" in gpus.asked


def test_nothing_is_known_of_a_gpu_without_its_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    run = machine.subprocess.run
    Gpus(monkeypatch)
    monkeypatch.setattr(machine.subprocess, "run", run)
    monkeypatch.setenv("PATH", "")
    assert machine.graphics(CUDA) == {}


def test_the_way_to_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert machine.backend(CUDA) == "CUDA 13.0"
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert machine.backend(CUDA) == "HIP 7.1"
    monkeypatch.setattr(machine.platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    assert machine.backend(torch.device("mps")) == "MPS, macOS 15.5"


def test_a_machine_describes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "peaks", lambda device: {"copy": 2.0})
    main(DescribeOptions(device="cpu", out=str(tmp_path / "machine.json")))
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "machine.json").read_text())
    assert said["identity"] == this_machine(CPU).identity
    assert said["peaks"] == {"copy": 2.0}
