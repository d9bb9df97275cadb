"""What must come out of a call, known from somebody who is trusted: asked before the call is timed and after it.

Each time the call is asked twice, with other numbers in the place of its input. Whoever returns what was computed
before is quick, right for the old numbers, and found out by the new ones. They are written into the same memory, past
the counter by which torch tells versions of a tensor apart, so that a cache cannot know of them.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure.timing import Call, check

FEW = 2  # images whose output is computed in float64


class Oracle:
    """Judges every call that reads one input.

    Args:
        x: The input.
        trusted: What must come out of such an input, all of it or the first images alone.
    """

    def __init__(self, x: Tensor, trusted: Callable[[Tensor], Tensor]) -> None:
        self.x = x
        before = x.detach().clone()
        self.cases = [(numbers, trusted(numbers)) for numbers in (before, torch.randn_like(before))]

    def check(self, call: Call, dtype: torch.dtype) -> None:
        """Ask for both inputs; the input is afterwards as it was.

        Raises:
            AssertionError: If an output is wrong, or that of an image stays what it was for another image.
        """
        outputs = []
        for numbers, expected in self.cases:
            self.x.data.copy_(numbers)
            outputs.append(call()[: len(expected)].clone())
            check(outputs[-1], expected, dtype)
        self.x.data.copy_(self.cases[0][0])
        first, second = outputs
        if (first == second).flatten(1).all(1).any():  # to the last bit: a cached output may be within the tolerance
            raise AssertionError("check: the output of every image must follow its input; one stayed the same")


def without_gradients(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a module makes of all images, where and as it is."""

    def compute(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return compute


def in_float64(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a module makes of the first images, computed in float64 on the CPU."""
    exact = copy.deepcopy(module).cpu().double().eval()

    def compute(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return exact(x[:FEW].cpu().double())

    return compute
