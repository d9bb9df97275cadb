"""Attention one query at a time."""

import math

import torch
from torch import Tensor, nn


def attention(
    module: nn.Module, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output and weights. ``mask`` (B, heads, N, M) is boolean: a hidden key is left out of the sum altogether."""
    state = {name: value.double() for name, value in module.state_dict().items()}
    x, heads = x.double(), module.num_heads
    context = x if context is None else context.double()
    (batch, count, width), keys = x.shape, context.shape[1]
    side = width // heads
    sources = (x, context, context)
    q, k, v = (source @ state["qkv.weight"][i * width : (i + 1) * width].T for i, source in enumerate(sources))
    if "qkv.bias" in state:
        q, k, v = (t + state["qkv.bias"][i * width : (i + 1) * width] for i, t in enumerate((q, k, v)))
    weights, out = x.new_zeros(batch, heads, count, keys), torch.zeros_like(x)
    for b in range(batch):
        for h in range(heads):
            own = slice(h * side, (h + 1) * side)
            for i in range(count):
                seen = [j for j in range(keys) if mask is None or mask[b, h, i, j]]
                scores = [math.exp(q[b, i, own].dot(k[b, j, own]) / math.sqrt(side)) for j in seen]
                for j, score in zip(seen, scores, strict=True):
                    weights[b, h, i, j] = score / sum(scores)
                    out[b, i, own] += weights[b, h, i, j] * v[b, j, own]
    return out @ state["proj.weight"].T + state["proj.bias"], weights
