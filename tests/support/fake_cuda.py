"""A fake GPU: backward passes on it, and counts of its traffic with the host.

Under ``FakeTensorMode`` a build of torch with CUDA has a cuda:0 without hardware. Forward passes work. Autograd's
engine does not, because it first asks the driver for a primary context. But the engine only walks a graph, whose nodes
can also be called one by one.
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
)  # as torch reports it


def backward(output: Tensor) -> dict[Tensor, Tensor]:
    """The gradient of every leaf that the output depends on, as from ``output.sum().backward()``."""
    gradients: dict[Node, dict[int, Tensor]] = defaultdict(dict)  # node -> output of that node -> gradient so far
    gradients[output.grad_fn][output.output_nr] = torch.ones_like(output)
    leaves = {}
    for node in reversed([*children_first(output.grad_fn, set())]):
        if hasattr(node, "variable"):
            leaves[node.variable] = gradients[node][0]
            continue
        sizes = [metadata.shape for metadata in node._input_metadata]
        step = getattr(node, "apply", node)  # apply: of functions written in Python
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
    """Every node below this one, then itself. In reverse order, a gradient is complete when its node is called."""
    if node is None or node in seen:
        return
    seen.add(node)
    for child, _ in node.next_functions:
        yield from children_first(child, seen)
    yield node


class Traffic(TorchDispatchMode):
    """Counts traffic between host and GPU, and refuses float64 on the GPU, which Apple's GPUs lack.

    ``item`` returns one, ``tolist`` zeros.

    Attributes:
        copies: Number of tensors copied from one to the other.
        waits: How often the host waited for the GPU to finish: for a value, for a size that depends on values, or for a
            copy that is not ``non_blocking`` or not from pinned memory.
        operators: Number of operators on any device, without views.
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
        with self:  # in inference mode, composite operators arrive whole
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
        if func is aten._fused_sgd_.default:  # works in place, and torch has no fake version
            return None
        if func in (aten.nonzero.default, aten.bincount.default):  # their sizes depend on values
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
    """Whether a tensor is on the GPU."""
    return tensor.device.type == "cuda"


def set_gradients(loss: Tensor, *_: object, **options: object) -> None:
    """Replaces ``Tensor.backward``."""
    for leaf, gradient in backward(loss).items():
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


@contextmanager
def gpu() -> Iterator[Traffic]:
    """Provide a fake H100 as cuda:0, and count its traffic."""

    def tolist(tensor: Tensor) -> Any:
        """All values with one copy, as for a real tensor."""
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
