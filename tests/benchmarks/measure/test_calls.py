"""What a benchmark times does what its name says, each time anew, and the memory that it takes is counted."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.grid.cells import DTYPES
from benchmarks.measure import memory
from benchmarks.measure.calls import CALLS

CPU = torch.device("cpu")


class Noted(nn.Linear):
    """A layer that remembers how it was called."""

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
def test_a_mode_calls_the_module_as_a_run_would(layer: Noted, mode: str, dtype: str) -> None:
    y = CALLS[mode](layer, tokens(), DTYPES[dtype])()
    inference = mode == "forward"
    assert layer.noted == (not inference, inference, DTYPES[dtype])
    assert y.dtype == DTYPES[dtype]
    assert not y.requires_grad
    assert layer.weight.dtype == torch.float32


def test_inference_leaves_no_gradient(layer: Noted) -> None:
    CALLS["forward"](layer, tokens(), torch.float32)()
    assert layer.weight.grad is None


@pytest.mark.parametrize("mode", ["backward", "step"])
def test_gradients_of_a_call_are_its_own(layer: Noted, mode: str) -> None:
    """They are of a gradient that stays the same, and never added to those of the call before."""
    x = tokens()
    call = CALLS[mode](layer, x, torch.float32)
    call()
    first = [x.grad.clone(), *(parameter.grad.clone() for parameter in layer.parameters())]
    assert all(gradient.abs().min() > 0 for gradient in first)
    call()
    torch.testing.assert_close([x.grad, *(parameter.grad for parameter in layer.parameters())], first)


def test_images_need_no_gradient(layer: Noted) -> None:
    x = torch.randn(5, 3)
    CALLS["backward"](layer, x, torch.float32)()
    assert x.grad is None
    assert layer.weight.grad is not None


def test_a_step_moves_the_optimizer_and_leaves_the_weights(layer: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, before = [], layer.weight.detach().clone()
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(step(self)))
    call = CALLS["step"](layer, tokens(), torch.float32)
    call()
    call()
    assert len(steps) == 2
    assert torch.equal(layer.weight, before)


NOTHING = nn.Identity()


def test_peak_memory_is_the_highest_point_of_a_call() -> None:
    x = torch.randn(1000, 250)  # a megabyte

    def call() -> Tensor:
        a = x + 1
        b = a + 1  # two megabytes beside x
        del a
        return b * b  # and again two

    assert memory.peak_bytes(call, NOTHING, x) == pytest.approx(2e6, rel=0.01)


@pytest.mark.parametrize("mode", ["backward", "step"])
def test_gradients_of_the_call_before_are_not_memory_that_was_there(mode: str) -> None:
    layer, x = nn.Linear(500, 500), torch.randn(250, 500, requires_grad=True)  # a megabyte, half a megabyte
    call = CALLS[mode](layer, x, torch.float32)
    call()
    layer.zero_grad()
    x.grad = None
    fresh = memory.peak_bytes(call, layer, x)
    call()
    assert memory.peak_bytes(call, layer, x) == fresh > 1.5e6, "its own gradients"


class Allocator:
    """A GPU's memory: what is held now, and the most that was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: int) -> None:
        self.now, self.peak, self.waited = now, 9999, []
        monkeypatch.setattr(torch.cuda, "synchronize", self.waited.append)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.now)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: self.set(peak=self.now))

    def set(self, **values: int) -> None:
        vars(self).update(values)


class OnGpu:
    """As much of a tensor as is looked at."""

    def __init__(self) -> None:
        self.device, self.grad = torch.device("cuda:1"), None


def test_peak_memory_of_a_gpu_is_what_its_allocator_says(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, x = Allocator(monkeypatch, now=100), OnGpu()
    assert memory.peak_bytes(lambda: gpu.set(peak=350), NOTHING, x) == 250
    assert gpu.waited == [x.device]


def test_gradients_on_a_gpu_are_thrown_away_before_its_memory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, x = Allocator(monkeypatch, now=140), OnGpu()  # 40 of them an old gradient
    layer = nn.Identity()
    monkeypatch.setattr(layer, "zero_grad", lambda set_to_none: gpu.set(now=gpu.now - 40))
    assert memory.peak_bytes(lambda: gpu.set(peak=350), layer, x) == 250
