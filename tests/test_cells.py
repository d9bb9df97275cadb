"""The grid: all that was promised is in it, small enough for the machine, and its outputs are checked."""

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import components
from benchmarks import cells as grid
from benchmarks import machine
from benchmarks.cells import BATCHES, CPU_LIMIT, DTYPES, Cell, cells, prepared
from benchmarks.modes import MODES
from benchmarks.workloads import ROWS
from components import MLP
from tests import fake_cuda
from tests.machines import CPU, CUDA, FAST_CPU, H100, PLAIN_CPU
from tests.marks import pretends_cuda

TINY = Cell("MLP-lite-32px", 1, "forward", "float32", compiled=False)


def test_every_component_and_both_models_have_three_sizes() -> None:
    kinds = Counter(name.split("-")[0] for name in ROWS)
    assert kinds == dict.fromkeys((*components.__all__, "STNClassifier", "VisionTransformer"), 3)


def test_a_gpu_times_everything_eager_and_compiles_each_row_in_each_mode() -> None:
    found = cells(H100)
    eager = {(cell.row, cell.batch, cell.mode, cell.dtype) for cell in found if not cell.compiled}
    warps = {row for row in ROWS if row.startswith("SpatialTransformer")}
    assert eager == {
        cell for cell in itertools.product(ROWS, BATCHES, MODES, DTYPES)
        if cell[0] not in warps or cell[3] == "float32"
    }  # fmt: skip
    assert {(cell.row, cell.mode) for cell in found if cell.compiled} == {*itertools.product(ROWS, MODES)}


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_times_what_it_can_afford(fast: bool) -> None:
    found = cells(FAST_CPU if fast else PLAIN_CPU)
    assert max(cell.work.flops(cell.mode) for cell in found) <= CPU_LIMIT
    assert {cell.row for cell in found} == {*ROWS}
    assert {cell.dtype for cell in found} == {"float32", "bfloat16"}
    compiled = Counter((cell.mode, cell.dtype) for cell in found if cell.compiled)
    own = "bfloat16" if fast else "float32"
    assert compiled == {("forward", own): 4, ("step", own): 4}
    assert len({str(cell) for cell in found}) == len(found)


def test_a_wrong_output_is_refused_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(TINY, CPU)
    right = MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda self, x: right(self, x) * (1.2 if x.dtype == torch.float32 else 1))
    with pytest.raises(AssertionError, match="not close"):
        prepared(TINY, CPU)


def test_a_network_whose_head_starts_at_zero_computes_something() -> None:
    _, x, expected = grid.built("LocalizationNet-32px", 2, CPU)
    assert expected.shape == (2, 6)
    assert not torch.equal(expected[0], expected[1])
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not x.requires_grad
    assert grid.built("MLP-lite-32px", 2, CPU)[1].requires_grad


@pretends_cuda
@pytest.mark.parametrize("row", [row for row in ROWS if row.endswith("-32px") and "b16" not in row])
def test_every_row_runs_on_a_gpu_that_is_not_there(row: str) -> None:
    """In float32: without a driver torch has no autocast for it."""
    with FakeTensorMode():
        with CUDA:
            module, x = ROWS[row].build(2), torch.empty(2, *ROWS[row].shape)
        gradients = fake_cuda.backward(module(x))
    assert {str(parameter.device) for parameter in gradients} == {"cuda:0"}
    assert {*gradients} >= {*module.parameters()}


def test_peaks_are_rates_of_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.cycle((0.4, 0.2, 0.8))
    monkeypatch.setattr(machine, "sample", lambda call: next(seconds))
    calls: list[int] = []

    def call() -> Tensor:
        calls.append(0)
        return torch.zeros(1)

    assert machine.best_rate(call, 10.0) == pytest.approx(50.0)
    assert calls, "it was warm"


def test_a_matrix_product_does_the_flops_it_is_counted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts: dict[tuple[int, ...], float] = {}
    monkeypatch.setattr(machine, "best_rate", lambda call, amount: amounts.setdefault((*call().shape,), amount))
    machine.matmul_peak(CPU, torch.float32)
    assert {2 * math.prod(shape) * 1536 for shape in amounts} == {*amounts.values()}
    assert len(amounts) == 2, "as a product, and as a convolution with a kernel of one pixel"


def test_what_a_record_says_of_its_machine() -> None:
    about = machine.description(CPU)
    assert {"identity", "commit", "uncommitted_changes", "torch", "graphics", "float32_products"} <= {*about}


def test_what_is_known_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H100, 560.35, 1755 MHz, 1980 MHz, 2619 MHz, 700.00 W\n"
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: type("Run", (), {"stdout": line}))
    assert machine.graphics() == dict(zip(machine.SMI, line.strip().split(", "), strict=True))


def test_nothing_is_known_of_a_gpu_without_its_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert machine.graphics() == {}
