"""Backward on a GPU that is not there.

Under ``FakeTensorMode`` a build of torch with CUDA has a cuda:0 without any hardware. Forward works. Autograd's engine
does not: before its first step it asks the driver for a primary context. But the engine only walks a graph, and the
nodes of that graph can be called by hand.
"""

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node


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
