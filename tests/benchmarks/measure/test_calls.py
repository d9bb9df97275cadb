"""Timed calls do what their names say, anew in each call, and their memory is measured."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.grid.cells import DTYPES
from benchmarks.measure import memory
from benchmarks.measure.calls import CALLS

CPU = torch.device("cpu")


class Noted(nn.Linear):
    """A layer that records how it was called."""

    def forward(self, x: Tensor) -> Tensor:
        autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        self.noted = (self.training, torch.is_inference_mode_enabled(), autocast)
        return super().forward(x)


@pytest.fixture
def layer() -> Noted:
    torch.manual_seed(0)
    return Noted(3, 2)


def tokens() -> Tensor:
    return torch.randn(5, 3, requires_grad=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", CALLS)
def test_a_module_is_called_as_in_a_run(layer: Noted, mode: str, dtype: str) -> None:
    y = CALLS[mode](layer, tokens(), DTYPES[dtype])()
    inference = mode == "forward"
    assert layer.noted == (not inference, inference, DTYPES[dtype])
    assert y.dtype == DTYPES[dtype]
    assert not y.requires_grad
    assert layer.weight.dtype == torch.float32
    assert (layer.weight.grad is None) == inference


@pytest.mark.parametrize("mode", ["backward", "step"])
@pytest.mark.parametrize("images", [False, True], ids=("tokens", "images"))
def test_each_call_has_gradients_of_its_own(layer: Noted, mode: str, images: bool) -> None:
    """They are those of a fixed random gradient, never added up over calls, and images get none."""
    x = tokens().requires_grad_(not images)
    call = CALLS[mode](layer, x, torch.float32)
    leaves = [*layer.parameters(), *([] if images else [x])]
    call()
    first = [leaf.grad.clone() for leaf in leaves]
    assert all(gradient.abs().min() > 0 for gradient in first)
    call()
    torch.testing.assert_close([leaf.grad for leaf in leaves], first)
    assert not images or x.grad is None


def test_a_step_calls_the_optimizer_and_keeps_the_weights(layer: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, before = [], layer.weight.detach().clone()
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(step(self)))
    call = CALLS["step"](layer, tokens(), torch.float32)
    call()
    call()
    assert len(steps) == 2
    assert torch.equal(layer.weight, before)


def test_peak_memory_is_the_highest_point_of_a_call() -> None:
    x = torch.randn(1000, 250)  # a megabyte

    def call() -> Tensor:
        a = x + 1
        b = a + 1  # two megabytes besides x
        del a
        return b * b  # again two

    assert memory.peak_bytes(call, nn.Identity(), x) == pytest.approx(2e6, rel=0.01)


@pytest.mark.parametrize("mode", ["backward", "step"])
def test_gradients_of_the_previous_call_do_not_lower_the_peak(mode: str) -> None:
    layer, x = nn.Linear(500, 500), torch.randn(250, 500, requires_grad=True)  # a megabyte, half a megabyte
    call = CALLS[mode](layer, x, torch.float32)
    call()
    layer.zero_grad()
    x.grad = None
    fresh = memory.peak_bytes(call, layer, x)
    call()
    assert memory.peak_bytes(call, layer, x) == fresh > 1.5e6, "its own gradients"


class Allocator:
    """The memory of a GPU, and a tensor on it with an old gradient of 40 bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.peak, self.waited = 140, 9999, []
        self.device, self.grad = torch.device("cuda:1"), None
        monkeypatch.setattr(torch.cuda, "synchronize", self.waited.append)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.now)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: setattr(self, "peak", self.now))


def test_peak_memory_of_a_gpu_is_that_of_its_allocator_once_old_gradients_are_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu, layer = Allocator(monkeypatch), nn.Identity()
    monkeypatch.setattr(layer, "zero_grad", lambda set_to_none: setattr(gpu, "now", 100))
    assert memory.peak_bytes(lambda: setattr(gpu, "peak", 350), layer, gpu) == 250
    assert gpu.waited == [gpu.device]


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_peak_memory_is_unknown_where_torch_does_not_tell(device: str) -> None:
    elsewhere = SimpleNamespace(device=torch.device(device), grad=None)
    assert memory.peak_bytes(lambda: None, nn.Identity(), elsewhere) is None


def test_kept_bytes_are_those_of_the_input_and_of_what_lies_between() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    x = torch.randn(4, 8)
    assert memory.kept_bytes(lambda: network(x), network) == 4 * 4 * (8 + 16 + 16)
