"""Muon: orthogonal steps for matrices and kernels, batched by shape, in the chosen type."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.training.optimizers import Muon, orthogonalised
from tests.support.strategies import generator, seeds

pytestmark = pytest.mark.numerics

SIDES = st.integers(1, 9)
VIEWS = {"view", "select", "transpose", "detach", "unbind", "_unsafe_view", "alias"}


def parameter(seed: int, *shape: int) -> nn.Parameter:
    weight = nn.Parameter(torch.randn(shape, generator=generator(seed), dtype=torch.float64))
    weight.grad = torch.randn(shape, generator=generator(seed + 1), dtype=torch.float64)
    return weight


def muon(*weights: nn.Parameter, weight_decay: float = 0.0, dtype: torch.dtype = torch.float64) -> Muon:
    return Muon(weights, lr=0.1, weight_decay=weight_decay, dtype=dtype)


class Counted(TorchDispatchMode):
    """Counts operations by name, and notes the types of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        self.seen[name] += 1
        self.types |= {given.dtype for given in args if "mm" in name and isinstance(given, Tensor)}
        return operation(*args, **(kwargs or {}))


@given(seeds, SIDES, SIDES)
def test_singular_vectors_stay_and_singular_values_come_near_one(seed: int, rows: int, more: int) -> None:
    """Values grow by up to 3.4445 to the fifth power, enough for those above a hundredth of the norm."""
    draw = torch.randn(1, rows, rows + more, generator=generator(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(draw, full_matrices=False)
    found = left.mT @ orthogonalised(draw) @ right.mT  # diagonal
    diagonal = found.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(found, torch.diag_embed(diagonal), atol=1e-9, rtol=0)
    large = diagonal[values > 0.01 * values.norm()]
    assert ((large > 0.6) & (large < 1.3)).all()


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 4), (5, 3, 2, 2), (7, 1, 1, 1)], ids=str)
def test_steps_are_those_of_the_formula(shape: tuple[int, ...]) -> None:
    """Nesterov momentum, weight decay, and longer steps for tall matrices."""
    weight = parameter(0, *shape)
    optimizer = muon(weight, weight_decay=0.3)
    expected, momentum = weight.detach().clone().flatten(1), torch.zeros(shape, dtype=torch.float64).flatten(1)
    for turn in range(3):
        weight.grad = torch.randn(shape, generator=generator(turn), dtype=torch.float64)
        gradient = weight.grad.flatten(1)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        tall = ahead.shape[0] > ahead.shape[1]
        straight = orthogonalised((ahead.mT if tall else ahead)[None])[0]
        longer = max(1, ahead.shape[0] / ahead.shape[1]) ** 0.5
        expected = expected * (1 - 0.1 * 0.3) - 0.1 * longer * (straight.mT if tall else straight)
        torch.testing.assert_close(weight.detach().flatten(1), expected)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="new in torch 2.9")
def test_matrices_move_as_with_torchs_muon() -> None:
    ours, theirs = parameter(0, 12, 5), parameter(0, 12, 5)
    one, other = muon(ours, weight_decay=0.01), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01)
    before = ours.detach().clone()
    one.step()
    other.step()
    moved = (theirs - before).norm().item()
    assert (ours - theirs).norm() < 0.1 * moved, "torch orthogonalises in bfloat16"


def test_the_memory_format_of_a_kernel_does_not_matter() -> None:
    one, other = parameter(0, 5, 3, 2, 2), parameter(0, 5, 3, 2, 2)
    other.data = other.data.contiguous(memory_format=torch.channels_last)
    other.grad = other.grad.contiguous(memory_format=torch.channels_last)
    for weight in (one, other):
        muon(weight).step()
    torch.testing.assert_close(one, other)
    assert other.is_contiguous(memory_format=torch.channels_last)


def test_batched_matrices_move_as_each_alone() -> None:
    """Also a matrix and one of the transposed shape, with others in between."""
    shapes = ((6, 2), (2, 6), (3, 3), (6, 2), (2, 3, 2))
    together = [parameter(10 * i, *shape) for i, shape in enumerate(shapes)]
    alone = [parameter(10 * i, *shape) for i, shape in enumerate(shapes)]
    muon(*together).step()
    for weight, other in zip(together, alone, strict=True):
        muon(other).step()
        torch.testing.assert_close(weight, other)


def test_the_number_of_operations_does_not_grow_with_the_number_of_matrices() -> None:
    """Each one is a launch on a GPU, except for views."""

    def operations(count: int) -> Counter[str]:
        optimizer = muon(*(parameter(i, *shape) for i in range(count) for shape in ((4, 6), (6, 4))))
        optimizer.step()
        with Counted() as counted:
            optimizer.step()
        return counted.seen

    few, many = operations(2), operations(20)
    assert {name for name in many if many[name] != few[name]} <= VIEWS
    assert sum(few[name] for name in few if name not in VIEWS) <= 40
    assert sum(few[name] for name in few if "mm" in name) == 15, "three products in each of five iterations"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_computed_in_the_chosen_type(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.ones(4, 6))
    weight.grad = torch.ones(4, 6)
    with Counted() as counted:
        muon(weight, dtype=dtype).step()
    assert counted.types == {dtype}
    assert weight.dtype == torch.float32


def test_groups_have_their_own_learning_rates() -> None:
    slow, fast = parameter(0, 3, 4), parameter(0, 3, 4)
    before = slow.detach().clone()
    groups = [{"params": [slow]}, {"params": [fast], "lr": 0.2}]
    Muon(groups, lr=0.1, weight_decay=0.0, dtype=torch.float64).step()
    torch.testing.assert_close(2 * (slow - before), fast - before)


def test_it_resumes_from_its_state() -> None:
    whole, again = parameter(0, 3, 4), parameter(0, 3, 4)
    first, second = muon(whole), muon(again)
    first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    again.data.copy_(whole.detach())
    for optimizer in (first, second):
        optimizer.step()
    assert torch.equal(whole, again)


@pytest.mark.parametrize("gradient", [None, torch.zeros(2, 3)], ids=("no gradient", "zeros"))
def test_a_weight_without_a_gradient_stays(gradient: Tensor | None) -> None:
    weight, other = nn.Parameter(torch.ones(2, 3)), parameter(0, 2, 3)
    weight.grad = gradient
    muon(weight, dtype=torch.float32).step()
    muon(weight, other, dtype=torch.float32).step()
    assert torch.equal(weight, torch.ones(2, 3))
