"""The description of a machine and its peaks, which are measured in bounded time."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.describe import DescribeOptions, main
from benchmarks.measure import devices, machine
from scripts.system.machine import this_machine
from tests.support.machines import CPU, CUDA, EVERY, MACHINES
from tests.support.sources import modules


class Processor:
    """A processor of a given speed, and the seconds that it has computed."""

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


@pytest.mark.parametrize(
    ("device", "rate", "side"),
    [(CPU, 0.2e9, 192), (CPU, 0.9e9, 384), (CPU, 69e9, 1536), (CPU, 50e12, 1536), (CUDA, 50e12, 12288)],
)
def test_a_peak_is_measured_in_bounded_time_at_any_speed(
    device: torch.device, rate: float, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.9 GFLOP/s is emulated bfloat16, whose peak once took four minutes."""
    processor = Processor(monkeypatch, rate)
    assert machine.matmul_peak(device, torch.bfloat16) == pytest.approx(rate)
    assert processor.sides[-1] == side
    assert processor.spent < 10


def test_a_peak_is_the_rate_of_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.cycle((0.4, 0.2, 0.8))
    monkeypatch.setattr(machine, "sample", lambda call, device: next(seconds))
    assert machine.best_rate(lambda: torch.zeros(1), 10.0, CPU) == pytest.approx(50.0)


def test_both_ways_of_a_product_have_its_flops() -> None:
    ways, work = machine.large_products(CPU, torch.float32)
    assert len(ways) == 2, "a product, and a convolution with a 1x1 kernel"
    for way in ways:
        side = math.isqrt(way().numel())
        assert work == 2 * side**3


@pytest.mark.parametrize("described", EVERY, ids=MACHINES)
def test_peaks_are_measured_in_the_fast_types_of_the_machine(described, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda device: described)
    monkeypatch.setattr(machine, "matmul_peak", lambda device, dtype: 1.0)
    monkeypatch.setattr(machine, "copy_peak", lambda device: 2.0)
    found = machine.peaks(described.device)
    assert found == {"copy": 2.0} | {f"matmul_{name}": 1.0 for name in described.types}


@pytest.fixture
def tf32() -> Iterator[None]:
    """Turn TF32 on, as torch does for convolutions."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = True
    yield
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value


@pytest.mark.usefixtures("tf32")
def test_tf32_is_off_once_a_device_is_ready_and_the_description_shows_it() -> None:
    assert machine.description(CPU)["tf32"] == {"products": True, "convolutions": True}
    devices.ready("cpu")
    assert machine.description(CPU)["tf32"] == {"products": False, "convolutions": False}


def test_the_device_is_chosen_in_one_place() -> None:
    """So that no process measures without the set-up there: TF32 off, freed memory kept."""
    choosing = re.compile(r"choose_device|mallopt|allow_tf32 *=")
    sources = modules("benchmarks")
    found = {path.name for path in sources if choosing.search(path.read_text("utf-8"))}
    assert found == {"devices.py"}


def test_a_gpu_is_queried_by_its_uuid_and_unknown_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    line = "NVIDIA H100, 560.35, 1755 MHz, 1980 MHz, 2619 MHz, 700.00 W"
    chips = {torch.device("cuda:0"): "aaaa-0", torch.device("cuda:1"): "bbbb-1"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=chips[device]))
    monkeypatch.setenv("PATH", "")
    assert machine.graphics(CUDA) == {}
    monkeypatch.setattr(
        machine.subprocess, "run", lambda command, **_: commands.extend(command) or SimpleNamespace(stdout=line + "\n")
    )
    assert machine.graphics(torch.device("cuda:1")) == dict(zip(machine.SMI, line.split(", "), strict=True))
    assert "--id=GPU-bbbb-1" in commands


def test_the_backend_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert machine.backend(CUDA) == "CUDA 13.0"
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert machine.backend(CUDA) == "HIP 7.1"
    monkeypatch.setattr(machine.platform, "mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    assert machine.backend(torch.device("mps")) == "MPS, macOS 15.5"


def test_describe_prints_and_writes_machine_and_peaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "peaks", lambda device: {"copy": 2.0})
    main(DescribeOptions(device="cpu", out=str(tmp_path / "machine.json")))
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "machine.json").read_text())
    assert printed.keys() >= {"commit", "uncommitted_changes", "torch", "graphics", "float32_products"}
    assert (printed["identity"], printed["backend"]) == (this_machine(CPU).identity, "CPU")
    assert printed["peaks"] == {"copy": 2.0}
