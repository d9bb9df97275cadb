"""What a call leaves behind: nothing but gradients. Memory is free as soon as the last name of it is gone."""

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from components import Encoder
from tests.contract.cases import CASES, Case

each_row = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Without Python's collector a cycle of references stays, and with it all that it holds."""
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again and again
    gc.disable()
    yield
    gc.enable()


def tensors() -> set[int]:
    """Every tensor that came after the freeze."""
    return {id(each) for each in gc.get_objects() if issubclass(type(each), Tensor)}  # isinstance wakes dead proxies


@pytest.mark.usefixtures("_no_collector")
@each_row
def test_after_a_backward_pass_input_output_and_all_between_are_free(case: Case) -> None:
    """Neither the module nor a cycle keeps them: a large batch would stay until the collector runs, or for good."""
    module, x = case.module(), case.input().requires_grad_()
    x.grad = torch.zeros_like(x)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = tensors()
    output = module(x)
    output.square().sum().backward()
    left = [weakref.ref(each) for each in (x, output)]
    before -= {id(x), id(x.grad)}
    del x, output
    assert [each() for each in left] == [None] * 2
    assert tensors() <= before


@pytest.mark.usefixtures("_no_collector")
@each_row
def test_a_call_without_gradients_leaves_nothing(case: Case) -> None:
    module, x = case.module().eval(), case.input()
    before = tensors()
    with torch.no_grad():
        output = module(x)
    left = weakref.ref(output)
    del output
    assert left() is None
    assert tensors() <= before


@pytest.mark.usefixtures("_no_collector")
def test_checkpointing_leaves_nothing_either() -> None:
    """But for the first call of a process, in which torch imports its compiler and keeps a cycle."""
    encoder = Encoder(6, 2, num_heads=2, mlp_dim=7, checkpointing=True)

    def call() -> list[weakref.ref[Tensor]]:
        x = torch.randn(2, 3, 6, requires_grad=True)
        output = encoder(x)
        output.square().sum().backward()
        return [weakref.ref(each) for each in (x, output)]

    call()
    assert [each() for each in call()] == [None] * 2
