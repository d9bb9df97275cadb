"""The grid is complete, and outputs are checked."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import components
from benchmarks.grid import cells
from benchmarks.grid.cells import BATCHES, DTYPES, Cell, grid, prepared
from benchmarks.grid.workloads import TRANSFORMS, WORKLOADS
from benchmarks.measure.calls import CALLS
from components import MLP
from tests.support.machines import CPU

TRANSFORMED = {f"SpatialTransformer-{transform}-32px" for transform in TRANSFORMS}
TINY = Cell("MLP-lite-32px", 1, "forward", "float32", compiled=False)


def test_every_component_and_both_models_have_three_sizes() -> None:
    kinds = Counter(name.split("-")[0] for name in WORKLOADS if name not in TRANSFORMED)
    wanted = dict.fromkeys((*components.__all__, "STNClassifier", "VisionTransformer"), 3)
    assert kinds == wanted, "benchmarks/grid/workloads.py has three sizes of each"


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_has_the_theta_that_its_flops_count(transform: str) -> None:
    workload = WORKLOADS[f"SpatialTransformer-{transform}-32px"]
    _, theta = workload.build(2)(torch.rand(2, *workload.shape), return_theta=True)
    assert sorted(theta.shape) == sorted((2, *TRANSFORMS[transform]))


def test_the_grid_is_complete() -> None:
    everything = [
        Cell(*each)
        for each in itertools.product(WORKLOADS, BATCHES, CALLS, DTYPES, (False, True))
        if (each[3] == "float32" or not each[0].startswith("SpatialTransformer")) and (each[1] == 64 or not each[4])
    ]
    assert {*grid()} == {*everything}
    assert len({str(cell) for cell in grid()}) == len(grid()) == len(everything)


def cached(right: Callable[..., Tensor]) -> Callable[..., Tensor]:
    kept = {}
    return lambda self, x: kept.setdefault(x.dtype, right(self, x))


def wrong(right: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda self, x: right(self, x) * (1.2 if x.dtype == torch.float32 else 1)


@pytest.mark.parametrize("spoil", [wrong, cached])
def test_a_wrong_or_cached_output_is_refused_before_it_is_timed(spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(TINY, CPU)
    monkeypatch.setattr(MLP, "forward", spoil(MLP.forward))
    cells.built.cache_clear()
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        prepared(TINY, CPU)


def test_a_head_of_zeros_is_drawn_and_images_and_kernels_are_channels_last() -> None:
    """As in a run."""
    module, x, oracle = cells.built("LocalizationNet-32px", 2, CPU)
    for _, expected in oracle.cases:
        assert expected.shape == (2, 6)
        assert not torch.equal(expected[0], expected[1])
    assert x.is_contiguous(memory_format=torch.channels_last)
    classifier = cells.built("STNClassifier-32px", 2, CPU)[0]
    kernels = [each.weight for each in (*module.modules(), *classifier.modules()) if isinstance(each, torch.nn.Conv2d)]
    assert len(kernels) == 6
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert not x.requires_grad
    assert cells.built("MLP-lite-32px", 2, CPU)[1].requires_grad
