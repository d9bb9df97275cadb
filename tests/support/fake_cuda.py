"""A GPU that is not there: backward on it, and what passes between it and the host.

Under ``FakeTensorMode`` a build of torch with CUDA has a cuda:0 without any hardware. Forward works. Autograd's engine
does not: before its first step it asks the driver for a primary context. But the engine only walks a graph, and the
nodes of that graph can be called by hand.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.machines import H100

aten = torch.ops.aten
ABOUT = SimpleNamespace(
    name=H100.name, major=9, minor=0, multi_processor_count=H100.cores, total_memory=H100.memory
)  # as torch says it


def backward(output: Tensor) -> dict[Tensor, Tensor]:
    """The gradient of every leaf that the output depends on, as ``output.sum().backward()`` would leave it."""
    gradients: dict[Node, dict[int, Tensor]] = defaultdict(dict)  # node -> output of that node -> gradient so far
    gradients[output.grad_fn][output.output_nr] = torch.ones_like(output)
    leaves = {}
    for node in reversed([*children_first(output.grad_fn, set())]):
        if hasattr(node, "variable"):
            leaves[node.variable] = gradients[node][0]
            continue
        sizes = [metadata.shape for metadata in node._input_metadata]
        step = getattr(node, "apply", node)  # for a function that is written in Python
        below = step(*(gradients[node].get(i) for i in range(len(sizes))))
        below = below if isinstance(below, tuple) else (below,)
        for (child, place), gradient in zip(node.next_functions, below, strict=True):
            if child is not None and gradient is not None:
                size = child._input_metadata[place].shape
                gradient = gradient.sum_to_size(size) if math.prod(size) < gradient.numel() else gradient
                before = gradients[child].get(place)
                gradients[child][place] = gradient if before is None else before + gradient
    return leaves


def children_first(node: Node | None, seen: set[Node]) -> Iterator[Node]:
    """Every node below this one, then itself. In the reverse order a gradient is complete when its node is called."""
    if node is None or node in seen:
        return
    seen.add(node)
    for child, _ in node.next_functions:
        yield from children_first(child, seen)
    yield node


class Traffic(TorchDispatchMode):
    """Counts what passes between host and GPU, and lets nothing be in float64 there, which Apple's GPUs lack.

    A number that is asked for is one; of several in a list each is zero.

    Attributes:
        copies: Of tensors from one to the other.
        waits: Times that the host waited until the GPU had done all its work: for numbers, for a size that depends on
            them, or for a copy that is not asked for as one that nobody waits for, or cannot be: memory that is not
            pinned may move.
        operators: All that computed something, wherever: a view computes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies = self.waits = self.operators = 0
        self.pinned: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        if func in (aten.is_pinned.default, torch.ops.prim.device.default):
            return func(*args, **kwargs)
        with self:  # in inference mode, operators arrive that are made of others
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        self.operators += not func.is_view
        if func is aten._pin_memory.default:
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        if func is aten._local_scalar_dense.default:
            self.waits += on_gpu(args[0])
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten._fused_sgd_.default:  # steps in place, and torch has no fake one
            return None
        if func in (aten.nonzero.default, aten.bincount.default):  # of sizes that nobody knows without the numbers
            self.waits += on_gpu(args[0])
            size = (args[0].numel(), args[0].ndim) if func is aten.nonzero.default else args[2]
            return args[0].new_zeros(size, dtype=torch.long)
        result = func(*args, **kwargs)
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[1] if func is aten.copy_.default else args[0]
            if on_gpu(source) != on_gpu(result):
                free = kwargs.get("non_blocking", args[2:] == (True,)) and any(source is each for each in self.pinned)
                self.copies += 1
                self.waits += not free
        for tensor in pytree.tree_leaves(result):
            assert not (isinstance(tensor, Tensor) and on_gpu(tensor) and tensor.dtype == torch.float64), func
        return result


def on_gpu(tensor: Tensor) -> bool:
    """Whether it lies there."""
    return tensor.device.type == "cuda"


def set_gradients(loss: Tensor, *_: object, **options: object) -> None:
    """In the place of ``Tensor.backward``."""
    for leaf, gradient in backward(loss).items():
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


@contextmanager
def gpu() -> Iterator[Traffic]:
    """Tensors may be on a cuda:0, which is an H100, and its traffic is counted."""

    def tolist(tensor: Tensor) -> Any:
        """All numbers at once, as a real tensor gives them."""
        values = tensor.cpu()
        return [0.0] * len(values) if tensor.ndim == 1 else values.item()

    traffic = Traffic()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with (
        mock.patch.object(FakeTensor, "tolist", tolist),
        mock.patch.object(Tensor, "backward", set_gradients),
        mock.patch.object(torch.accelerator, "synchronize"),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=ABOUT),
        fake,
        traffic,
    ):
        yield traffic
