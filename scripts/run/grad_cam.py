"""Grad-CAM: where a layer speaks for a class.

    map = relu(sum over channels of mean over places (d logit / d A) * A)

Letters: B images, C channels, h w places of the feature map A, N patches, D width of a token.

Source: "Grad-CAM", Selvaraju et al. 2017 (https://arxiv.org/abs/1610.02391), equations 1 and 2.

Convention: a feature map is (B, C, h, w). Tokens are (B, 1 + N, D), class token first: their channels are the last
axis, and the class token has no place.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn


def grad_cam(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Return a map for each image; zero where the layer speaks against the class.

    Args:
        network: From images to logits; it is put into evaluation mode.
        layer: Part of it that is called once and returns a feature map or tokens.
        images: Normalised (B, 3, H, W).
        classes: (B,), by default the most likely ones.
        grid: Rows and columns of the patches where the layer returns tokens.

    Returns:
        (B, h, w), in the unit of the logits.

    Raises:
        ValueError: If the layer is not called once, or returns another shape.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, given: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())  # what lies before the layer needs no gradient
        return kept[-1]

    handle = layer.register_forward_hook(keep)
    with torch.enable_grad():
        try:
            logits = network.eval()(images)
        finally:
            handle.remove()
        if len(kept) != 1:
            wanted = f"must be called once; it is called {len(kept)} times"
            raise ValueError(f"grad_cam: layer ({type(layer).__name__}) {wanted}")
        classes = logits.argmax(1) if classes is None else classes
        (slope,) = torch.autograd.grad(logits.gather(1, classes.unsqueeze(1)).sum(), kept[0])
    features, slope = (as_map(tensor, grid) for tensor in (kept[0].detach(), slope))
    return (slope.mean((2, 3), keepdim=True) * features).sum(1).relu()


def as_map(features: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Bring tokens into the form of a feature map: (B, 1 + N, D) -> (B, D, h, w)."""
    if grid is None and features.ndim == 4:
        return features
    if grid is None or features.ndim != 3 or features.shape[1] != 1 + grid[0] * grid[1]:
        wanted = "(B, C, h, w)" if grid is None else f"(B, {1 + grid[0] * grid[1]}, D)"
        raise ValueError(f"grad_cam: output {tuple(features.shape)} of the layer must be {wanted}")
    return rearrange(features[:, 1:], "b (h w) d -> b d h w", h=grid[0])
