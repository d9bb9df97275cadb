"""Every output is checked for two inputs: wrong and cached ones are refused."""

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


def by_address(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    found: dict[int, Tensor] = {}
    return lambda: found.setdefault(x.data_ptr(), layer(x).detach())


def by_version(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    found: dict[tuple[int, int], Tensor] = {}
    return lambda: found.setdefault((id(x), x._version), layer(x).detach())


def of_the_first_image(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    first = layer(x[:1]).detach()
    return lambda: torch.cat([first, layer(x[1:]).detach()])


def wrong(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: 1.2 * layer(x).detach()


@pytest.mark.parametrize("spoiled", [by_address, by_version, of_the_first_image, wrong])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cached_or_wrong_output_is_refused(spoiled, dtype: torch.dtype, layer: nn.Linear) -> None:
    x = torch.randn(X_SHAPE)
    oracle = Oracle(x, in_float64(layer))
    oracle.check(lambda: layer(x).detach(), dtype)
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        oracle.check(spoiled(layer, x), dtype)


def test_an_output_within_the_tolerance_is_refused_if_it_stays_the_same() -> None:
    """The output of a network that hardly depends on its input, in a type of few bits."""
    x = torch.randn(X_SHAPE)

    def network(x: Tensor) -> Tensor:
        return 1 + 1e-3 * x

    oracle = Oracle(x, network)
    stale = network(x)
    oracle.check(lambda: network(x), torch.bfloat16)
    with pytest.raises(AssertionError, match="the output must depend on the input; that of one image stayed the same"):
        oracle.check(lambda: stale, torch.bfloat16)


def test_the_input_is_restored_in_its_place_and_layout(layer: nn.Linear) -> None:
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    before, place = images.detach().clone(), images.data_ptr()
    Oracle(images, lambda x: layer(x)).check(lambda: layer(images).detach(), torch.float32)
    assert torch.equal(images, before)
    assert images.data_ptr() == place
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_first_images_are_computed_in_float64_by_a_copy(layer: nn.Linear) -> None:
    expected = in_float64(layer)(torch.randn(X_SHAPE))
    assert (expected.shape, expected.dtype) == ((FEW, 4), torch.float64)
    assert layer.weight.dtype == torch.float32
