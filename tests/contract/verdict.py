"""What a module keeps of the contract and what it breaks: why that matters, and the smallest input that shows it."""

import re
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from scripts.system.errors import InputError, one_line
from tests.contract.items import Check, checks
from tests.contract.row import Held, Row

WHY = {  # item -> what goes wrong for whoever uses a module that breaks it
    "shape": "a last batch that is empty or of another size ends the epoch with an error, or fits no next layer.",
    "smallest input": "the smallest image or shortest sequence gives an error or wrong numbers.",
    "dtype and device": "the next layer is handed another type or device than the input had, and stops or slows down.",
    "factory options": "a tensor is not made where and as it was asked for: a large model cannot be set up on `meta`, "
    "or the first call mixes types or devices.",
    "moves": "`.to(...)` leaves a tensor behind, so that the first call after it mixes types or devices.",
    "reference value": "the numbers are wrong.",
    "first derivatives": "training follows a wrong gradient, or none.",
    "second derivatives": "gradient penalties, meta-learning and Hessians give an error or wrong numbers.",
    "forward mode": "`torch.func.jvp`, and what is built on it, gives an error or wrong numbers.",
    "per-sample gradients": "differentially private training and influence functions with `vmap(grad)` fail.",
    "every parameter learns": "a part of the module is never trained, and DistributedDataParallel stops at it.",
    "state_dict": "saved weights do not restore the module.",
    "copies": "an EMA copy, a spawned process or `torch.save` of the module fails, or a copy shares its tensors.",
    "input untouched": "the caller's tensor is changed: a skip connection or a second use of it sees other values.",
    "strides": "a transposed, sliced or expanded tensor gives an error or other numbers than its `.contiguous()` copy.",
    "channels last": "channels-last training gives an error or other numbers.",
    "train and eval": "dropout acts in evaluation, or does not act in training.",
    "determinism": "a run cannot be repeated, or a result depends on what the module was called with before.",
    "batch independence": "the result for one image depends on the other images of its batch.",
    "compile": "`torch.compile(fullgraph=True)` stops, or compiles anew for every batch size.",
    "export": "`torch.export` with a dynamic batch, and with it deployment, fails.",
    "ONNX": "a program exported for other machines fails, or computes something else there.",
    "dynamic INT8": "quantised layers are skipped in silence, or the output is far from that of float32.",
    "torch.fx": "tools that trace with `torch.fx`, such as quantisation and feature extraction, fail.",
    "wrapped layers": "LoRA, quantisation, pruning and hooks that are put on a layer are skipped in silence, or fail.",
    "vmap": "an ensemble with stacked parameters fails, or gives other numbers than its members.",
    "half precision": "mixed precision gives an error, another type, infinities or numbers far from float32.",
    "cuda without a GPU": "a tensor stays on the CPU when the module is built or run on a GPU.",
    "mixed devices": "an input on the wrong device is computed with in silence.",
    "device equals CPU": "a GPU gives other numbers than the CPU.",
    "print": "`print(model)` and logs do not show an option that the module keeps.",
    "option types": "a size from NumPy or a configuration file fails late, or is kept as what it was.",
    "refusals": "a mistake gives an error far from its cause, or none.",
}
PATIENCE = 10.0  # seconds for finding one smaller input after the other


@dataclass(frozen=True)
class Break:
    """An item that is broken.

    Args:
        item: Of the contract.
        test: The test that shows it, with its arguments.
        error: What the test raises.
        input: The smallest input that shows it.
        tests: How many tests of the item fail.
    """

    item: str
    test: str
    error: str
    input: str
    tests: int

    @property
    def why(self) -> str:
        """What goes wrong for a user."""
        return WHY[self.item]


@dataclass(frozen=True)
class Verdict:
    """What one module keeps and breaks, and what it was not held to."""

    kept: tuple[str, ...]
    broken: tuple[Break, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...]


def verdict(row: Row, only: tuple[str, ...] = ()) -> Verdict:
    """Hold a row against the contract, or against some of its items.

    Raises:
        InputError: If the module cannot be built or called.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of somebody else's module
        case = row.case()
        failed: dict[str, list[tuple[Check, BaseException]]] = {}
        held = [check for check in checks(case) if not only or check.item in only]
        for check in held:
            if error := failure(check, case):
                failed.setdefault(check.item, []).append((check, error))
        found = tuple(breach(row, case, item, failures) for item, failures in failed.items())
    items = dict.fromkeys(check.item for check in held)
    kept = tuple(item for item in items if item not in failed)
    left_out = {item: why for item, why in case.exempt.items() if not only or item in only}
    return Verdict(kept, found, left_out, case.notes)


def failure(check: Check, case: Held) -> BaseException | None:
    """What a check raises, always with the same random numbers."""
    case.drawn.clear()
    torch.manual_seed(0)
    return check.error(case)


def breach(row: Row, case: Held, item: str, failures: list[tuple[Check, BaseException]]) -> Break:
    """The first failing check of an item, with the smallest input for which it fails in the same line."""
    check, error = failures[0]
    case, shrunk = smallest(row, case, check, error)
    arguments = "".join(f"[{name}={shown(value)}]" for name, value in check.arguments.items())
    return Break(item, check.test.__name__ + arguments, said(shrunk), drawn(case), len(failures))


def smallest(row: Row, case: Held, check: Check, error: BaseException) -> tuple[Held, BaseException]:
    """Make each axis of the input smaller, as long as the module takes it and the check fails in the same way."""
    end = time.monotonic() + PATIENCE
    again = failure(check, case)  # so that what was drawn is what this check has drawn
    case, error = case, again or error
    smaller = True
    while smaller:
        smaller = False
        for shape in shapes_below(case.input_shape):
            if time.monotonic() > end:
                break
            try:
                candidate = replace(row, input_shape=shape, output_shape=()).case()
            except InputError:
                continue
            raised = failure(check, candidate)
            if raised and signature(raised) == signature(error):
                case, error, smaller = candidate, raised, True
                break
    return case, error


def shapes_below(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Shapes with one axis, or the last two, shorter: first as short as can be."""
    axes = range(len(shape))
    for shorter in (axes[-2:], *((axis,) for axis in axes)):
        for length in (lambda n: 1, lambda n: 2, lambda n: n // 2, lambda n: n - 1):
            new = tuple(min(n, max(1, length(n))) if axis in shorter else n for axis, n in enumerate(shape))
            if new != shape:
                yield new


def frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if "test_contract" in frame.filename]


def signature(error: BaseException) -> tuple[object, ...]:
    """What makes two failures the same: error, beginning of the message without numbers, and lines of the contract."""
    beginning = re.sub(r"[\d.]+", "", str(error))[:60]
    return (type(error), beginning, *(frame.lineno for frame in frames(error)))


def said(error: BaseException) -> str:
    """An error in one line; of a plain assert, the line of the contract."""
    message = " ".join(str(error).split())
    if not message and (lines := frames(error)):
        message = lines[-1].line or ""
    message = one_line(message)
    return f"{type(error).__name__}: {message if len(message) <= 200 else message[:197] + '...'}"


def shown(value: object) -> str:
    return getattr(value, "__name__", None) or str(value)


def drawn(case: Held) -> str:
    """The largest input that the check has drawn; those that draw none take a batch of two."""
    if not case.drawn:
        return f"a batch (2, {', '.join(map(str, case.input_shape))})"
    x = max(case.drawn, key=lambda x: x.numel())
    shape = ", ".join(map(str, x.shape))
    return f"torch.randn({shape}{'' if x.dtype == torch.float32 else f', dtype={x.dtype}'})"
