"""What is timed: a forward pass, a forward and a backward pass, or a training step, each as one call.

Parameters are float32, and lower types come from autocast, as in the runs. A gradient that was made before the clock
starts stands for that of a loss. Old gradients are thrown away in every call, of parameters and of inputs: those that
stay would be added to, which is other work. AdamW steps with a learning rate of zero: the same work, but the weights
stay as they are, so that every round computes the same numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure.memory import forget_gradients
from benchmarks.measure.timing import Call


def autocast(x: Tensor, dtype: torch.dtype) -> torch.autocast:
    """Autocast to that type; none for float32."""
    return torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32)


def forward(module: nn.Module, x: Tensor, dtype: torch.dtype) -> Call:
    """Inference."""
    module.eval()

    def call() -> Tensor:
        with torch.inference_mode(), autocast(x, dtype):
            return module(x)

    return call


def backward(module: nn.Module, x: Tensor, dtype: torch.dtype) -> Call:
    """A forward and a backward pass, to the parameters, and to x if it requires a gradient."""
    module.train()
    grad_output: Tensor | None = None  # made in the first call, which is not timed: one more would compile once more

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
    """An optimizer that leaves all as it is."""
    return torch.optim.AdamW(module.parameters(), lr=0.0, fused=True)


def step(module: nn.Module, x: Tensor, dtype: torch.dtype, optimizer: torch.optim.Optimizer | None = None) -> Call:
    """A forward pass, a backward pass and AdamW, by its own optimizer or by one that several calls share."""
    optimizer = optimizer or adamw(module)
    passes = backward(module, x, dtype)

    def call() -> Tensor:
        y = passes()
        optimizer.step()
        return y

    return call


MODES: dict[str, Callable[[nn.Module, Tensor, torch.dtype], Call]] = {
    "forward": forward,
    "backward": backward,
    "step": step,
}
