"""Attention maps over the patches, from the attention weights of a Vision Transformer."""

import torch
from einops import rearrange
from torch import Tensor


def class_token_maps(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the attention of the class token to the patches, one map a layer and head.

    Args:
        weights: (B, L, heads, 1 + N, 1 + N), as ``VisionTransformer`` returns them.
        grid: Rows h and columns w of the patches, h w = N.

    Returns:
        (B, L, heads, h, w); each map sums to one minus the attention of the class token to itself.
    """
    return rearrange(weights[..., 0, 1:], "b l heads (h w) -> b l heads h w", h=grid[0])


def attention_rollout(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return how much each patch contributes to the class token after all layers, including the residual paths.

    Each layer is taken as half identity and half attention, averaged over the heads.

    Source: "Quantifying Attention Flow in Transformers", Abnar and Zuidema 2020 (https://arxiv.org/abs/2005.00928),
    section 4.

    Args:
        weights: (B, L, heads, 1 + N, 1 + N).
        grid: Rows h and columns w of the patches, h w = N.

    Returns:
        (B, h, w); each map sums to one minus the contribution of the class token itself.
    """
    mean = weights.mean(2)  # (B, L, 1 + N, 1 + N)
    flow = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    for layer in mean.unbind(1):
        flow = (flow + layer @ flow) / 2
    return rearrange(flow[:, 0, 1:], "b (h w) -> b h w", h=grid[0])
