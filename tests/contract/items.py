"""The contract: every promise that the kit makes of a component, and what holds each component to it.

A promise is kept in one of three ways. A test in ``test_contract.py`` runs for every row of ``cases.py``; or a row
names laws of its own, in ``test_<component>.py``; or it says in words why the promise does not apply. There is no
fourth: ``test_specification.py`` finds every cell that is empty. This file knows no single component.
"""

import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from tests.contract.cases import CASES, Case

ITEMS = {  # name -> what is promised
    "shape": "the output's shape follows from the configuration, forward and backward, for 0, 1 and 5 samples",
    "smallest input": "the smallest input there is, one patch or one token, has the value of the reference",
    "dtype and device": "the output has the input's type and lies on its device",
    "factory options": "`device` and `dtype`, and torch's device context, reach every tensor; `meta` has all shapes",
    "moves": "`.to(...)` takes every tensor along",
    "reference value": "the value is that of an independent float64 reference: 1e-5 in float32, 1e-12 in float64",
    "first derivatives": "the Jacobian by input and parameters is that of finite differences, under vmap as well",
    "second derivatives": "the derivatives of all gradients are those of finite differences",
    "forward mode": "a slope in forward mode is what the Jacobian of reverse mode gives",
    "per-sample gradients": "`vmap(grad(...))` over a batch is a loop over its samples",
    "every parameter learns": "every parameter gets a gradient that is finite and not zero",
    "state_dict": "weights move to a fresh instance, strictly, by names that are frozen",
    "copies": "deepcopy and pickle give an equal module that shares nothing",
    "input untouched": "nothing is written into the input",
    "strides": "non-contiguous input and gradients change neither output nor gradients",
    "channels last": "nor do channels that lie last",
    "train and eval": "equal where nothing is dropped; evaluation drops nothing, training drops anew every time",
    "dropout statistics": "what is dropped has the given share, and the rest is scaled so that the mean stays",
    "determinism": "the same seed gives the same weights, output and gradients to the bit",
    "batch independence": "no sample of a batch has an influence on another, nor a gradient",
    "permutation": "permuted tokens give permuted output",
    "locality": "a change in one place changes one token",
    "geometry": "identity, shifts, quarter turns and products of warps are exact",
    "softmax": "rows of weights sum to one, output lies in the hull of the values, hidden keys have no influence",
    "fused equals plain": "the fused kernel and the returned weights agree, in train and eval, with and without a mask",
    "compile": "`torch.compile(fullgraph=True)` takes one graph for every batch size",
    "export": "`torch.export` takes a dynamic batch",
    "vmap": "`vmap` over stacked parameters is a loop over modules",
    "half precision": "autocast and bfloat16 stay near float32, their gradients too, finite at 1000 times the input, "
    "in a documented type",
    "cuda without a GPU": "on a fake cuda:0 it is built, runs forward and backward, and nothing lands elsewhere",
    "mixed devices": "an input on another device is refused",
    "device equals CPU": "output and gradients on the device of `--device` are those of the CPU",
    "print": "`print(module)` shows every option that the module keeps",
    "refusals": "a bad configuration or input is refused with type, component, name, value and requirement",
}


def each_component(item: str, **over: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for every row that neither has laws of its own for this item nor is exempt from it.

    ``rate="rates"`` runs it for everything in a row's ``rates`` and hands that over as ``rate``.
    """
    assert item in ITEMS, item

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        rows = [
            pytest.param(case, *values.values(), id="-".join((case.name, *(str(value) for value in values.values()))))
            for case in CASES
            if item not in case.exempt and item not in case.laws
            for values in drawn_from(case, over)
        ]
        test.item, test.over = item, over
        return pytest.mark.parametrize(("case", *over), rows, indirect=["case"])(test)

    return mark


def drawn_from(case: Case, over: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every choice of one value from each of the named fields of a row."""
    for values in itertools.product(*(getattr(case, field) for field in over.values())):
        yield dict(zip(over, values, strict=True))


@cache
def contract_tests() -> dict[str, Callable[..., None]]:
    """By name. Imported late: the tests import this file."""
    found = vars(importlib.import_module("tests.contract.test_contract"))
    return {name: test for name, test in found.items() if name.startswith("test_")}


def component(case: Case) -> str:
    """The class that a row is about, the first word of its name; some have more than one row."""
    return case.name.split()[0]


def snake_case(name: str) -> str:
    """MLP -> mlp, PatchEmbeddings -> patch_embeddings."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def broken(case: Case) -> dict[str, list[str]]:
    """Hold one row, anybody's, against the contract: the items that it breaks, each with what its tests raised."""
    found: dict[str, list[str]] = {}
    for test in contract_tests().values():
        if test.item in case.exempt or test.item in case.laws or cannot_run_here(test):
            continue
        said = [complaint(test, case, arguments) for arguments in every_call(test, case)]
        if any(said):
            found[test.item] = [*found.get(test.item, ()), *filter(None, said)]
    return found


def complaint(test: Callable[..., None], case: Case, arguments: dict[str, Any]) -> str:
    """What a test raises; nothing if it passes."""
    try:
        test(case, **arguments)
    except (Exception, pytest.fail.Exception) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def every_call(test: Callable[..., None], case: Case) -> Iterator[dict[str, Any]]:
    """The arguments, other than the row, with which a test of the contract is called for it."""
    marks = [mark for mark in test.pytestmark if mark.name == "parametrize" and "case" not in mark.args[0]]
    choices = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks]
    for given in itertools.product(drawn_from(case, test.over), *choices):
        yield given[0] | dict(given[1:])


def cannot_run_here(test: Callable[..., None]) -> bool:
    """Whether a ``skipif`` is true."""
    return any(mark.name == "skipif" and mark.args[0] for mark in test.pytestmark)
