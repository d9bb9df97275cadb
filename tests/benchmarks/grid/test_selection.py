"""Cells are selected by the machine's description and its peaks, and each one left out has a reason."""

import dataclasses
from collections import Counter

import pytest
import torch

from benchmarks.grid.cells import Cell, grid
from benchmarks.grid.selection import COMPILED_ON_CPU, obstacle, seconds_of_calls, select, time_for_all
from benchmarks.grid.workloads import WORKLOADS
from benchmarks.measure.calls import CALLS
from benchmarks.measure.flops import Work
from benchmarks.measure.memory import kept_bytes
from scripts.system.machine import Machine
from tests.support.machines import BARE_CPU, EVERY, EVERY_CPU, FAST_CPU, GIB, H100, MACHINES, PLAIN_CPU, T4

GRID = grid()
MEASURED = {  # peaks, measured or from data sheets
    "fast cpu": {"matmul_float32": 190e9, "matmul_bfloat16": 420e9, "copy": 33e9},
    "plain cpu": {"matmul_float32": 69e9, "copy": 14e9},
    "bare cpu": {"matmul_float32": 10e9, "copy": 5e9},
    "apple": {"matmul_float32": 3e12, "copy": 90e9},
    "t4": {"matmul_float32": 4e12, "matmul_float16": 25e12, "copy": 250e9},
    "h100": {"matmul_float32": 50e12, "matmul_bfloat16": 700e12, "matmul_float16": 700e12, "copy": 2.5e12},
    "mi300": {"matmul_float32": 100e12, "matmul_bfloat16": 700e12, "matmul_float16": 700e12, "copy": 4e12},
}


def peaks(machine: Machine, times: float = 1.0) -> dict[str, float]:
    (name,) = (name for name, each in MACHINES.items() if each is machine)
    return {what: times * rate for what, rate in MEASURED[name].items()}


@pytest.mark.parametrize("machine", EVERY, ids=MACHINES)
def test_a_machine_measures_what_suits_it(machine: Machine) -> None:
    found = select(GRID, machine, peaks(machine)).cells
    compiled = [cell for cell in found if cell.compiled]
    assert {cell.dtype for cell in found} == {*machine.types}
    assert bool(compiled) == machine.compiles
    assert machine is BARE_CPU or {cell.row for cell in found} == {*WORKLOADS}
    if machine in EVERY_CPU:
        assert max(cell.batch for cell in found) == 64
        assert {cell.row for cell in compiled} <= COMPILED_ON_CPU
        assert {cell.dtype for cell in compiled} <= {machine.precision("auto")}
        assert not any(cell.mode == "backward" for cell in compiled)


@pytest.mark.parametrize(("machine", "fast"), [(T4, "float16"), (H100, "bfloat16")], ids=("T4", "H100"))
def test_a_gpu_compiles_one_type_of_16_bits(machine: Machine, fast: str) -> None:
    assert {cell.dtype for cell in GRID if cell.compiled and not obstacle(cell, machine)} == {"float32", fast}


def test_a_large_gpu_measures_all_other_cells() -> None:
    found = select(GRID, H100, peaks(H100))
    assert {(cell.dtype, cell.compiled) for cell in found.left_out} == {("float16", True)}
    assert found.summary() == f"{len(found.left_out)} compiled in a second type of 16 bits"


@pytest.mark.parametrize("machine", EVERY, ids=MACHINES)
@pytest.mark.parametrize("times", [0.01, 0.1, 1, 10])
def test_all_cells_together_keep_the_time_limit(machine: Machine, times: float) -> None:
    found = select(GRID, machine, peaks(machine, times))
    assert found.seconds <= time_for_all(machine) <= (2700 if machine.accelerated else 660)
    assert found.cells
    assert {*found.cells} | {*found.left_out} == {*GRID}


def test_the_slowest_are_left_out_first_with_their_time() -> None:
    found = select(GRID, PLAIN_CPU, peaks(PLAIN_CPU))
    slow = {cell: reason for cell, reason in found.left_out.items() if reason.startswith("too slow")}
    rates = peaks(PLAIN_CPU)
    assert min(seconds_of_calls(cell, rates) for cell in slow) >= max(
        seconds_of_calls(cell, rates) for cell in found.cells
    )
    dear = Cell("VisionTransformer-b16-224px", 64, "step", "float32", compiled=False)  # 6.7 TFLOP at 69 GFLOP/s
    assert slow[dear] == "too slow on this machine: an estimated 1951 s"


def test_a_selection_has_all_the_time_for_itself() -> None:
    dear = [cell for cell in GRID if str(cell) == "Block-b16-224px-batch64-step-float32-eager"]
    assert select(GRID, PLAIN_CPU, peaks(PLAIN_CPU)).left_out.keys() >= {*dear}
    assert select(dear, PLAIN_CPU, peaks(PLAIN_CPU)).cells == dear


def test_no_cell_starts_once_the_time_is_over() -> None:
    found = select(GRID, PLAIN_CPU, peaks(PLAIN_CPU))
    assert found.overdue(1.1 * 660, PLAIN_CPU) == ""
    reason = "out of time: the machine was slower than its peaks, after 792 s"
    assert found.overdue(1.2 * 660, PLAIN_CPU) == reason
    assert found.overdue(1.2 * 660, H100) == ""


def test_a_small_cell_has_a_minimum_time() -> None:
    tiny = Cell("MLP-lite-32px", 1, "forward", "float32", compiled=False)
    assert seconds_of_calls(tiny, peaks(H100)) == seconds_of_calls(tiny, peaks(FAST_CPU)) > 0.5


@pytest.mark.parametrize(("gibibytes", "lost"), [(79, 0), (22.5, 4), (15, 12)])
def test_a_cell_that_does_not_fit_in_memory_is_left_out_with_its_size(gibibytes: float, lost: int) -> None:
    machine = dataclasses.replace(H100, memory=int(gibibytes * GIB))
    reasons = [reason for cell in GRID if (reason := obstacle(cell, machine)).startswith("too large")]
    large = Cell("VisionTransformer-b16-224px", 256, "step", "float32", compiled=False)
    assert len(reasons) == lost
    if lost:
        assert obstacle(large, machine) == f"too large for the memory: 36.5 GiB of {gibibytes:.1f}"


def test_two_processes_need_twice_the_memory_and_unknown_memory_is_enough() -> None:
    large = Cell("VisionTransformer-b16-224px", 256, "step", "float32", compiled=False)
    half = dataclasses.replace(H100, memory=int(60 * GIB))
    assert obstacle(large, half) == ""
    assert obstacle(large, half, copies=2).startswith("too large for the memory: 73.0 GiB of 60.0")
    assert obstacle(large, dataclasses.replace(H100, memory=0)) == ""


@pytest.mark.parametrize("row", [row for row in WORKLOADS if "b16" not in row])
def test_a_forward_pass_keeps_about_as_much_as_the_closed_form(row: str) -> None:
    """For 16 images, without weights. A patch embedding keeps only its input, and needs little anyway."""
    module, work = WORKLOADS[row].build(16), WORKLOADS[row].work(16)
    x = torch.randn(16, *WORKLOADS[row].shape)
    x.requires_grad_(x.ndim == 3)
    estimate = work.held("backward", 4) - 2 * 4 * work.parameters
    kept = kept_bytes(lambda: module(x), module)
    assert kept < 1.6 * estimate
    assert kept > 0.4 * estimate or row.startswith("PatchEmbeddings")


def test_weights_gradients_and_moments_need_memory() -> None:
    work = Work(0, 0, moved=100, moved_back=0, parameters=10)
    assert [work.held(mode, 2) for mode in CALLS] == [40, 80 + 200, 160 + 200]


def test_each_cell_left_out_has_its_reason_and_the_summary_counts_them() -> None:
    found = select(GRID, BARE_CPU, peaks(BARE_CPU))
    reasons = Counter(reason.split(":")[0] for reason in found.left_out.values())
    assert reasons.keys() == {
        "in an emulated type", "compiled, without a compiler", "in batches for a GPU", "too slow on this machine",
        "too large for the memory",
    }  # fmt: skip
    assert found.summary().startswith(f"{reasons['in an emulated type']} in an emulated type, ")
    emulated = next(cell for cell in GRID if cell.dtype == "bfloat16")
    assert found.left_out[emulated] == "in an emulated type: bfloat16"
