"""A row for any module: what a row of ``cases.py`` says is asked of the module itself, or its items are left out.

ROWS = (Row("Mlp", partial(timm.layers.Mlp, 5, 7), (3, 5)),)
"""

import ast
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from scripts.system.errors import InputError
from tests.contract.cases import Case, Refusal
from tests.contract.items import ITEMS, contract_tests

RATES = (
    "dropout", "attn_dropout", "stochastic_depth", "drop", "attn_drop", "proj_drop", "drop_path", "drop_rate",
    "attn_drop_rate", "proj_drop_rate", "drop_path_rate", "attention_dropout", "emb_dropout", "layer_dropout",
    "stochastic_depth_prob",
)  # fmt: skip
NO_REFERENCE = "no reference in float64 is given"
NO_CHANNELS = "its input has no channels and image that channels last could reorder"
NO_PARAMETERS = "it has no parameters"
NOT_FOREIGN = dict.fromkeys(("ONNX", "dynamic INT8"), "only the kit's components are held to it")


def reason(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]


@dataclass(frozen=True)
class Held(Case):
    """What the checks take: a row whose gaps are filled.

    Args:
        notes: What was found out and not given, in words.
        drawn: Every input that a check has drawn, in order.
    """

    notes: tuple[str, ...] = ()
    drawn: list[Tensor] = field(default_factory=list)

    def input(self, batch: int = 3, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        self.drawn.append(super().input(batch, seed, dtype))
        return self.drawn[-1]


@dataclass(frozen=True)
class Row:
    """A module that is held against the contract.

    Args:
        name: What the verdict calls it.
        build: Makes the module; takes the options in ``rates``, and ``device`` and ``dtype`` if the module does.
        input_shape: Shape of one input, without the batch.
        call: How it is called, where that is not ``m(x)``: an expression of m, x and torch, such as "m(x, x, x)[0]".
        rates: Options that are a probability of dropping something; if not given, those of the constructor with a
            name that is usual for one.
        smallest: Shape of the smallest input, without the batch.
        output_shape: Shape of one output; if not given, that of a first call.
        reference: The output in float64, computed from module and input.
        smooth: Options of ``forward`` with which torch has second derivatives and forward mode, where it needs any.
        refusals: Bad configurations and inputs, with their messages.
        exempt: Items that are left out, each with the reason.
        conventions: Items that it breaks because it promises something else, each with what.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    call: str = "m(x)"
    rates: tuple[str, ...] | None = None
    smallest: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    reference: Callable[[nn.Module, Tensor], Tensor] | None = None
    smooth: Mapping[str, object] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)
    conventions: Mapping[str, str] = field(default_factory=dict)

    def case(self) -> Held:
        """Build the module, call it once, and fill the gaps.

        Raises:
            InputError: If it cannot be built or called, or does not return one tensor with the batch first.
        """
        if unknown := {*self.exempt, *self.conventions} - {*ITEMS}:
            raise InputError(f"{self.name}: item ({', '.join(sorted(unknown))}) must be one of {', '.join(ITEMS)}")
        options = parameters(self.build)
        rates = tuple(name for name in RATES if name in options) if self.rates is None else self.rates
        make = Make(self.build, self.call, rates, {"device", "dtype"} <= {*options})
        try:
            module = make()
        except Exception as error:
            raise InputError(f"{self.name}: it must be built without an error, but: {reason(error)}") from error
        x, output = self._first_call(module)
        notes = []
        if why := unfit_for_training(module, x):
            make, notes = Make(make.build, self.call, rates, make.factory, evaluation=True), [why]
        if not make.factory:
            notes.append("it takes no device and dtype; a device context and .to() stand for them")
        if not self.output_shape:
            notes.append(f"the shape of an output, {tuple(output.shape[1:])}, is that of a first call")
        return Held(
            self.name, make, self.input_shape, self.output_shape or tuple(output.shape[1:]),
            self.reference or (lambda module, x: x), tuple(module.state_dict()), self.refusals, rates,
            autocast_dtype(make, x), self.smallest, self.smooth,
            exempt=self._left_out(make(), bool(why)), notes=tuple(notes),
        )  # fmt: skip

    def _first_call(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """An input, and what the module makes of it."""
        shape = (3, *self.input_shape)
        try:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            output = module(x)
        except Exception as error:
            raise InputError(f"{self.name}: {self.call} must take an input {shape}, but: {reason(error)}") from error
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise InputError(
                f"{self.name}: {self.call} returns a {kind} and must return a tensor, as in {self.call}[0]"
            )
        if output.ndim == 0 or len(output) != 3:
            raise InputError(f"{self.name}: the output {tuple(output.shape)} of a batch of 3 must have the batch first")
        return x, output

    def _left_out(self, module: nn.Module, evaluation: bool) -> dict[str, str]:
        """The items that the module is not held to, each with the reason."""
        untested = ITEMS.keys() - {test.item for test in contract_tests().values()}
        found = dict.fromkeys(sorted(untested), "a law of single components, which no test checks for every module")
        found["device equals CPU"] = "no device but the CPU is compared"
        found |= dict.fromkeys(("option types", "print"), "it asks for this kit's wording") | NOT_FOREIGN
        if not self.refusals:
            found["refusals"] = "no bad inputs with their messages are given"
        if self.reference is None:
            found |= dict.fromkeys(("reference value", "smallest input"), NO_REFERENCE)
        elif not self.smallest:
            found["smallest input"] = "no smallest input is given"
        if len(self.input_shape) != 3 or self.input_shape[0] == 1 or self.input_shape[1:] == (1, 1):
            found["channels last"] = NO_CHANNELS
        if evaluation:
            found["train and eval"] = "training differs from evaluation by design"
        if not [*module.parameters()]:
            items = ("vmap", "per-sample gradients", "every parameter learns", "state_dict", "mixed devices")
            found |= dict.fromkeys(items, NO_PARAMETERS)
        if not module.state_dict():
            found["factory options"] = "it has no tensors"
        if isinstance(module, nn.Linear | nn.Conv2d):
            found["wrapped layers"] = "it is a layer itself"
        if type(module).__module__.startswith("torch.nn."):
            found["torch.fx"] = "torch.fx does not trace into modules of torch.nn"
        return found | dict(self.exempt)


@dataclass(frozen=True)
class Make:
    """Builds the module of a row as the contract builds a component: with device, dtype and rates, which start at 0."""

    build: Callable[..., nn.Module]
    call: str
    rates: tuple[str, ...]
    factory: bool
    evaluation: bool = False

    def __call__(self, device: object = None, dtype: torch.dtype | None = None, **options: object) -> nn.Module:
        options = dict.fromkeys(self.rates, 0.0) | options
        place = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
        if self.factory:
            module = self.build(**place, **options)
        else:
            with torch.device(device or torch.get_default_device()):
                module = self.build(**options)
            module = module if dtype is None else module.to(dtype)
        if self.call != "m(x)":
            module.__class__ = called(type(module), self.call)
        module.train(not self.evaluation)  # which not every module returns
        return module


def parameters(build: Callable[..., object]) -> tuple[str, ...]:
    """The names of the options that a constructor takes and that are not given by position."""
    try:
        return tuple(inspect.signature(build).parameters)
    except (TypeError, ValueError):  # of functions written in C
        return ()


def unfit_for_training(module: nn.Module, x: Tensor) -> str:
    """Why the checks hold a module in evaluation mode; empty if they need not."""
    module.train()
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        before = [buffer.clone() for buffer in module.buffers()]
        first, second = module(x), module(x)
        kept = all(torch.equal(old, new) for old, new in zip(before, module.buffers(), strict=True))
    if not kept:
        return "held in evaluation mode: in training it keeps statistics of its batches"
    if not torch.equal(first, second):
        return "held in evaluation mode: in training it draws at random, with every rate at 0"
    return ""


def autocast_dtype(make: Make, x: Tensor) -> torch.dtype:
    """The type of the output under autocast to bfloat16, which the module does not document."""
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make()(x).dtype
        except Exception:  # the check of half precision will say it
            return torch.float32


class _Plain(ast.NodeTransformer):
    """m(...) -> forward(m, ...), the forward that the class has without the expression."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "m":
            node.args.insert(0, node.func)
            node.func = ast.Name("forward", ast.Load())
        return node


@cache
def called(kind: type[nn.Module], call: str) -> type[nn.Module]:
    """The class of a module, with the expression ``call`` as its forward, and everything else as it is."""
    source = f"def expression(m, x):\n    return {ast.unparse(_Plain().visit(ast.parse(call, mode='eval')))}"
    names = {"torch": torch, "forward": kind.forward}
    exec(source, names)

    def reduce(self: nn.Module, protocol: int) -> tuple:
        _, _, *state = super(child, self).__reduce_ex__(protocol)
        return (blank, (kind, call), *state)

    own = {"forward": names["expression"], "__reduce_ex__": reduce, "__module__": kind.__module__}
    child = type(kind)(kind.__name__, (kind,), own)
    return child


def blank(kind: type[nn.Module], call: str) -> nn.Module:
    """What pickle and deepcopy start from: a class that was made here has no name they could look up."""
    cls = called(kind, call)
    return cls.__new__(cls)
