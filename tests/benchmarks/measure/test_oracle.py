"""Outputs are judged before and after timing: wrong ones are refused, and so are those that were computed before."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measure.oracle import FEW, Oracle, in_float64

X_SHAPE = (3, 5)


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 4)


def by_place(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    found: dict[int, Tensor] = {}
    return lambda: found.setdefault(x.data_ptr(), layer(x).detach())


def by_version(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    found: dict[tuple[int, int], Tensor] = {}
    return lambda: found.setdefault((id(x), x._version), layer(x).detach())


def by_image(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """It computes every image but the first one anew."""
    first = layer(x[:1]).detach()
    return lambda: torch.cat([first, layer(x[1:]).detach()])


@pytest.mark.parametrize("cached", [by_place, by_version, by_image])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cached_output_is_refused(cached, dtype: torch.dtype, layer: nn.Linear) -> None:
    x = torch.randn(X_SHAPE)
    oracle = Oracle(x, in_float64(layer))
    oracle.check(lambda: layer(x).detach(), dtype)
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        oracle.check(cached(layer, x), dtype)


def test_an_output_within_the_tolerance_is_refused_if_it_stays_the_same() -> None:
    """As of a network whose output hardly depends on its input, in a type of few bits."""
    x = torch.randn(X_SHAPE)

    def network(x: Tensor) -> Tensor:
        return 1 + 1e-3 * x

    oracle = Oracle(x, network)
    stale = network(x)
    oracle.check(lambda: network(x), torch.bfloat16)
    with pytest.raises(AssertionError, match="the output must depend on the input; that of one image stayed the same"):
        oracle.check(lambda: stale, torch.bfloat16)


def test_a_cache_that_fills_while_it_is_timed_is_found_out_after_it(layer: nn.Linear) -> None:
    x, calls, kept = torch.randn(X_SHAPE), [], []

    def call() -> Tensor:
        calls.append(0)
        if len(calls) > 10:
            kept.append(layer(x).detach())
        return kept[0] if kept else layer(x).detach()

    oracle = Oracle(x, in_float64(layer))
    oracle.check(call, torch.float32)
    for _ in range(20):
        call()
    with pytest.raises(AssertionError, match="not close"):
        oracle.check(call, torch.float32)


def test_a_wrong_output_is_refused(layer: nn.Linear) -> None:
    x = torch.randn(X_SHAPE)
    with pytest.raises(AssertionError, match="not close"):
        Oracle(x, in_float64(layer)).check(lambda: 1.2 * layer(x).detach(), torch.float32)


def test_the_input_is_what_it_was_and_lies_where_it_lay(layer: nn.Linear) -> None:
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    before, place = images.detach().clone(), images.data_ptr()
    Oracle(images, lambda x: layer(x)).check(lambda: layer(images).detach(), torch.float32)
    assert torch.equal(images, before)
    assert images.data_ptr() == place
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_few_images_are_computed_in_float64_by_a_copy(layer: nn.Linear) -> None:
    expected = in_float64(layer)(torch.randn(X_SHAPE))
    assert (expected.shape, expected.dtype) == ((FEW, 4), torch.float64)
    assert layer.weight.dtype == torch.float32
