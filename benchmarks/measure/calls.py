"""The calls that are timed: a forward pass, a forward and a backward pass, or a training step.

Parameters are float32, and lower types come from autocast, as in the runs. A random gradient, drawn before the clock
starts, replaces that of a loss. Every call frees the old gradients of parameters and inputs: adding to them would be
extra work. AdamW has a learning rate of zero: the work is the same, but the weights stay, and so do the numbers that
every round computes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure.memory import forget_gradients
from benchmarks.measure.timing import Call


def autocast(x: Tensor, dtype: torch.dtype) -> torch.autocast:
    """Autocast to that type; disabled for float32."""
    return torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32)


def forward(module: nn.Module, x: Tensor, dtype: torch.dtype) -> Call:
    """A forward pass in inference mode."""
    module.eval()

    def call() -> Tensor:
        with torch.inference_mode(), autocast(x, dtype):
            return module(x)

    return call


def backward(module: nn.Module, x: Tensor, dtype: torch.dtype) -> Call:
    """A forward and a backward pass, with gradients of the parameters, and of x if it requires one."""
    module.train()
    # drawn in the first call, which is not timed: a separate forward pass for its shape would compile once more
    grad_output: Tensor | None = None

    def call() -> Tensor:
        nonlocal grad_output
        forget_gradients(module, x)
        with autocast(x, dtype):
            y = module(x)
        if grad_output is None:
            grad_output = torch.randn_like(y)
        y.backward(grad_output)
        return y.detach()

    return call


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    """AdamW with a learning rate of zero."""
    return torch.optim.AdamW(module.parameters(), lr=0.0, fused=True)


def step(module: nn.Module, x: Tensor, dtype: torch.dtype, optimizer: torch.optim.Optimizer | None = None) -> Call:
    """A forward pass, a backward pass and a step of AdamW; several calls may share one optimizer."""
    optimizer = optimizer or adamw(module)
    passes = backward(module, x, dtype)

    def call() -> Tensor:
        y = passes()
        optimizer.step()
        return y

    return call


CALLS: dict[str, Callable[[nn.Module, Tensor, torch.dtype], Call]] = {
    "forward": forward,
    "backward": backward,
    "step": step,
}
