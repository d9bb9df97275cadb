"""The contract: every promise that the kit makes about a component, and how each component is held to it.

An item is covered in one of three ways: a test in ``test_contract.py`` runs for every row of ``cases.py``; a row names
its own laws, in ``test_<component>.py``; or a row says in words why the item does not apply. ``test_specification.py``
fails where none of them does. This file names no component.
"""

import importlib
import itertools
import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.contract.cases import CASES, Case

ITEMS = {  # name -> what is promised
    "shape": "the output's shape follows from the configuration, forward and backward, for 0, 1 and 5 samples",
    "smallest input": "on the smallest input, one patch or one token, the output is that of the reference",
    "dtype and device": "the output has the input's dtype and device",
    "factory options": "`device`, `dtype` and torch's device context reach every tensor; `meta` has every shape",
    "moves": "`.to(...)` moves every tensor",
    "reference value": "the output is that of an independent float64 reference: 1e-5 in float32, 1e-12 in float64",
    "first derivatives": "the Jacobian with respect to input and parameters equals finite differences, under vmap too",
    "second derivatives": "the derivatives of all gradients equal finite differences",
    "forward mode": "forward mode gives the Jacobian of reverse mode",
    "per-sample gradients": "`vmap(grad(...))` over a batch equals a loop over its samples",
    "every parameter learns": "every parameter gets a finite gradient that is not zero",
    "state_dict": "weights load strictly into a fresh instance, under names that are frozen",
    "copies": "deepcopy and pickle give an equal module that shares no tensor",
    "input untouched": "the input is not written to",
    "strides": "non-contiguous input and gradients change neither output nor gradients",
    "channels last": "nor does a channels-last input, whatever the stride of an axis of size one",
    "train and eval": "evaluation equals training without dropout; training draws anew for every sample and call",
    "dropout statistics": "the given share is dropped, and the rest is scaled so that the mean stays the same",
    "determinism": "the same seed gives the same weights, output and gradients, bit for bit; no call changes the next",
    "batch independence": "no sample of a batch affects the output or the gradient of another",
    "permutation": "permuted tokens give permuted output",
    "locality": "changing one place of the input changes one token",
    "geometry": "identity, shifts, quarter turns and composed warps are exact",
    "softmax": "weights sum to one, the output lies in the convex hull of the values, hidden keys have no influence",
    "fused equals plain": "the fused kernel and returned weights give the same output, training or not, masked or not",
    "compile": "`torch.compile(fullgraph=True)` makes one graph, and one more for all other batch sizes",
    "export": "`torch.export` supports a dynamic batch size",
    "ONNX": "exported to ONNX with a dynamic batch size, onnxruntime computes the same",
    "dynamic INT8": "with its linear layers in dynamic INT8 the output stays near float32",
    "torch.fx": "`torch.fx` traces it, alone or in a model, for every batch size and with every flag of `forward`",
    "wrapped layers": "an adapter that wraps a layer is called, and so is a hook on a layer",
    "vmap": "`vmap` over stacked parameters equals a loop over modules",
    "half precision": "output and gradients under autocast and in bfloat16 stay near float32, in a documented dtype; "
    "under autocast the output is finite at 1000 times the input",
    "cuda without a GPU": "on a fake cuda:0 it can be built and run forward and backward, and every tensor is there",
    "mixed devices": "an input on another device raises an error",
    "device equals CPU": "output and gradients on the device of `make test-gpu` equal those on the CPU",
    "print": "`print(module)` tells every option, and the options that it shows build an equal module",
    "option types": "a size may be of any integer type; a wrong type is refused with component, name and value",
    "refusals": "a bad configuration or input raises the right error, with component, name, value and requirement",
}


def each_component(item: str, **over: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for every row that neither has its own laws for this item nor is exempt from it.

    ``rate="rates"`` runs it for each of a row's ``rates``, passed as ``rate``.
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
    """Every combination of one value from each of the named fields of a row."""
    for values in itertools.product(*(getattr(case, field) for field in over.values())):
        yield dict(zip(over, values, strict=True))


@cache
def contract_tests() -> dict[str, Callable[..., None]]:
    """By name. Imported late, because the tests import this file."""
    found = vars(importlib.import_module("tests.contract.test_contract"))
    return {name: test for name, test in found.items() if name.startswith("test_")}


def snake_case(name: str) -> str:
    """MLP -> mlp, PatchEmbeddings -> patch_embeddings."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@dataclass(frozen=True)
class Check:
    """One call of a test of the contract, which any row can be held to."""

    test: Callable[..., None]
    arguments: Mapping[str, object]

    @property
    def item(self) -> str:
        return self.test.item

    def error(self, case: Case) -> BaseException | None:
        """What the test raises for this row; nothing if the row keeps it."""
        try:
            self.test(case, **self.arguments)
        except (Exception, pytest.fail.Exception) as raised:
            return raised
        return None


def checks(case: Case) -> Iterator[Check]:
    """Every call of a test of the contract that a row owes, in the order in which the suite runs them."""
    for test in contract_tests().values():
        marks = [mark for mark in test.pytestmark if mark.name == "parametrize" and "case" not in mark.args[0]]
        skipped = any(mark.name == "skipif" and mark.args[0] for mark in test.pytestmark)
        if test.item in case.exempt or test.item in case.laws or skipped:
            continue
        choices = [[{mark.args[0]: value} for value in mark.args[1]] for mark in marks]
        for arguments in itertools.product(drawn_from(case, test.over), *choices):
            yield Check(test, dict(ChainMap(*arguments)))


def broken(case: Case) -> dict[str, list[str]]:
    """Hold any row against the contract: the items that it breaks, each with the errors that its tests raised."""
    found: dict[str, list[str]] = {}
    for check in checks(case):
        if error := check.error(case):
            found.setdefault(check.item, []).append(f"{type(error).__name__}: {error}")
    return found
