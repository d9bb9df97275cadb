"""The expected output of a call, from a trusted reference: checked before the call is timed and after it.

Each check runs the call for two inputs, so that a cached output is wrong for the second. That input is written into the
same memory without torch's version counter noticing, so that no cache can detect it.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure.timing import Call, check

FEW = 2  # images whose expected output is computed in float64


class Oracle:
    """Checks every call that reads one input.

    Args:
        x: The input.
        trusted: Returns the expected output for an input, for all samples or for the first few.
    """

    def __init__(self, x: Tensor, trusted: Callable[[Tensor], Tensor]) -> None:
        self.x = x
        before = x.detach().clone()
        self.cases = [(numbers, trusted(numbers)) for numbers in (before, torch.randn_like(before))]

    def check(self, call: Call, dtype: torch.dtype) -> None:
        """Run the call for both inputs, and restore the first.

        Raises:
            AssertionError: If an output is wrong, or the same for two different images.
        """
        outputs = []
        for numbers, expected in self.cases:
            self.x.data.copy_(numbers)
            outputs.append(call()[: len(expected)].clone())
            check(outputs[-1], expected, dtype)
        self.x.data.copy_(self.cases[0][0])
        first, second = outputs
        if (first == second).flatten(1).all(1).any():  # bit for bit: a cached output may be within the tolerance
            raise AssertionError("check: the output must depend on the input; that of one image stayed the same")


def without_gradients(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A reference that runs the module as it is, on all images."""

    def compute(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return compute


def in_float64(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A reference that runs a copy of the module in float64 on the CPU, on the first images."""
    exact = copy.deepcopy(module).cpu().double().eval()

    def compute(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return exact(x[:FEW].cpu().double())

    return compute
