"""Where a Vision Transformer looks: maps over the patches, made from the attention weights of its layers."""

import torch
from einops import rearrange
from torch import Tensor


def last_layer_maps(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the class token attends to in the last layer, head by head.

    Args:
        weights: (B, L, heads, 1 + N, 1 + N), as ``VisionTransformer`` returns them.
        grid: Rows h and columns w of the patches, h w = N.

    Returns:
        (B, heads, h, w); each map sums to one less what the class token gives itself.
    """
    return rearrange(weights[:, -1, :, 0, 1:], "b heads (h w) -> b heads h w", h=grid[0])


def attention_rollout(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much of each patch has reached the class token after all layers, the residual paths included.

    Each layer hands on half of a token as it is and half as attention, averaged over the heads, mixes it.

    Source: "Quantifying Attention Flow in Transformers", Abnar and Zuidema 2020 (https://arxiv.org/abs/2005.00928),
    section 4.

    Args:
        weights: (B, L, heads, 1 + N, 1 + N).
        grid: Rows h and columns w of the patches, h w = N.

    Returns:
        (B, h, w); each map sums to one less the class token's own share.
    """
    mean = weights.mean(2)  # (B, L, 1 + N, 1 + N)
    flow = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    for layer in mean.unbind(1):
        flow = (flow + layer @ flow) / 2
    return rearrange(flow[:, 0, 1:], "b (h w) -> b h w", h=grid[0])
