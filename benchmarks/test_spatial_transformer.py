"""Images a second through LocalizationNet and SpatialTransformer, beside the calls they stand for."""

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional as F

from components import LocalizationNet, SpatialTransformer

BATCH = 256


class Fixed(nn.Module):
    """A localization module without a cost: theta is a parameter."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, x: Tensor) -> Tensor:
        return self.theta


class TutorialWarp(nn.Module):
    """The two calls of the PyTorch tutorial."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, F.affine_grid(self.theta, list(x.shape), align_corners=False), align_corners=False)


def training_step(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward with a gradient made outside the clock, and the old gradients thrown away."""
    grad_output = torch.randn_like(module(x))

    def step() -> None:
        module.zero_grad(set_to_none=True)
        module(x).backward(grad_output)

    return step


def timed(benchmark: BenchmarkFixture, call: Callable[[], None]) -> None:
    for _ in range(3):
        call()
    benchmark(call)
    if benchmark.stats is not None:
        benchmark.extra_info["images_per_second"] = BATCH / benchmark.stats["median"]


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("warp", ["SpatialTransformer", "affine_grid+grid_sample"])
def test_warp_forward_and_backward(benchmark: BenchmarkFixture, device: torch.device, side: int, warp: str) -> None:
    benchmark.group = f"warp forward+backward, {BATCH} images, {side} pixels"
    torch.manual_seed(0)
    theta = (torch.eye(2, 3) + 0.1 * torch.randn(BATCH, 2, 3)).to(device)
    x = torch.randn(BATCH, 3, side, side, device=device)
    ours, tutorial = SpatialTransformer(Fixed(theta)), TutorialWarp(theta)
    torch.testing.assert_close(ours(x), tutorial(x), atol=1e-4, rtol=1e-4)
    timed(benchmark, training_step(ours if warp == "SpatialTransformer" else tutorial, x))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_localization_forward_and_backward(benchmark: BenchmarkFixture, device: torch.device, layout: str) -> None:
    benchmark.group = f"LocalizationNet forward+backward, {BATCH} images, 32 pixels"
    torch.manual_seed(0)
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    net = LocalizationNet(device=device).to(memory_format=memory_format)
    x = torch.randn(BATCH, 3, 32, 32, device=device).to(memory_format=memory_format)
    timed(benchmark, training_step(net, x))
