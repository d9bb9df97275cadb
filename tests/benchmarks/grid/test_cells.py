"""The grid: all that was promised is in it, outputs are checked, and every row runs."""

import itertools
from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import components
from benchmarks.grid import cells
from benchmarks.grid.cells import BATCHES, DTYPES, Cell, grid, prepared
from benchmarks.grid.workloads import WORKLOADS
from benchmarks.measure.calls import CALLS
from components import MLP
from tests.support import fake_cuda
from tests.support.machines import CPU, CUDA
from tests.support.marks import pretends_cuda

TINY = Cell("MLP-lite-32px", 1, "forward", "float32", compiled=False)


def test_every_component_and_both_models_have_three_sizes() -> None:
    kinds = Counter(name.split("-")[0] for name in WORKLOADS)
    assert kinds == dict.fromkeys((*components.__all__, "STNClassifier", "VisionTransformer"), 3)


def test_the_grid_has_everything_eager_and_each_row_in_each_mode_and_type_compiled() -> None:
    warps = {row for row in WORKLOADS if row.startswith("SpatialTransformer")}
    everything = [
        cell for cell in itertools.product(WORKLOADS, BATCHES, CALLS, DTYPES)
        if cell[0] not in warps or cell[3] == "float32"
    ]  # fmt: skip
    found = [(cell.row, cell.batch, cell.mode, cell.dtype, cell.compiled) for cell in grid()]
    assert sorted(found) == sorted(
        [*((*each, False) for each in everything), *((*each, True) for each in everything if each[1] == 64)]
    )
    assert len({str(cell) for cell in grid()}) == len(found)


def test_a_wrong_output_is_refused_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(TINY, CPU)
    right = MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda self, x: right(self, x) * (1.2 if x.dtype == torch.float32 else 1))
    with pytest.raises(AssertionError, match="not close"):
        prepared(TINY, CPU)


def test_a_component_that_keeps_its_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right, kept = MLP.forward, {}
    monkeypatch.setattr(MLP, "forward", lambda self, x: kept.setdefault(x.dtype, right(self, x)))
    cells.built.cache_clear()
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        prepared(TINY, CPU)


def test_a_network_whose_head_starts_at_zero_computes_something() -> None:
    _, x, oracle = cells.built("LocalizationNet-32px", 2, CPU)
    for _, expected in oracle.cases:
        assert expected.shape == (2, 6)
        assert not torch.equal(expected[0], expected[1])
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not x.requires_grad
    assert cells.built("MLP-lite-32px", 2, CPU)[1].requires_grad


@pretends_cuda
@pytest.mark.parametrize("row", [row for row in WORKLOADS if row.endswith("-32px") and "b16" not in row])
def test_every_row_runs_on_a_gpu_that_is_not_there(row: str) -> None:
    """In float32: without a driver torch has no autocast for it."""
    with FakeTensorMode():
        with CUDA:
            module, x = WORKLOADS[row].build(2), torch.empty(2, *WORKLOADS[row].shape)
        gradients = fake_cuda.backward(module(x))
    assert {str(parameter.device) for parameter in gradients} == {"cuda:0"}
    assert {*gradients} >= {*module.parameters()}
