"""Grad-CAM: where a layer speaks for a class, as a map over its places and over the pixels of the image.

    map = relu(sum over channels of mean over places (d logit / d A) * A)

Letters: B images, C channels, H W pixels, h w places of the feature map A, N patches, D width of a token.

Source: "Grad-CAM", Selvaraju et al. 2017 (https://arxiv.org/abs/1610.02391), equations 1 and 2.

Convention: a feature map is (B, C, h, w). Tokens are (B, 1 + N, D), class token first: their channels are the last
axis, and the class token has no place. Pixel 0 is the first one, and 0 is its centre.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from components.spatial_transformer import warp
from components.transforms import Affine


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
        layer: Part of it that returns a feature map or tokens. If it is called several times, as features are that a
            transformer shares with the classifier behind it, the last call counts.
        images: Normalised (B, 3, H, W).
        classes: (B,), by default the most likely ones.
        grid: Rows and columns of the patches where the layer returns tokens.

    Returns:
        (B, h, w), in the unit of the logits.

    Raises:
        ValueError: If the layer is not called, or returns another shape.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, given: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())  # what lies before the layer needs no gradient
        return kept[-1].clone()  # what follows may change it in place

    handle = layer.register_forward_hook(keep)
    with torch.enable_grad():
        try:
            logits = network.eval()(images)
        finally:
            handle.remove()
        if not kept:
            raise ValueError(f"grad_cam: layer ({type(layer).__name__}) must be called by the network")
        classes = logits.argmax(1) if classes is None else classes
        (slope,) = torch.autograd.grad(logits.gather(1, classes.unsqueeze(1)).sum(), kept[-1])
    features, slope = (as_map(tensor, grid) for tensor in (kept[-1].detach(), slope))
    return (slope.mean((2, 3), keepdim=True) * features).sum(1).relu()


def as_map(features: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Bring tokens into the form of a feature map: (B, 1 + N, D) -> (B, D, h, w)."""
    if grid is None and features.ndim == 4:
        return features
    if grid is None or features.ndim != 3 or features.shape[1] != 1 + grid[0] * grid[1]:
        wanted = "(B, C, h, w)" if grid is None else f"(B, {1 + grid[0] * grid[1]}, D)"
        raise ValueError(f"grad_cam: output {tuple(features.shape)} of the layer must be {wanted}")
    return rearrange(features[:, 1:], "b (h w) d -> b d h w", h=grid[0])


def centres_of_cells(layers: Sequence[nn.Conv2d | nn.MaxPool2d]) -> tuple[float, float]:
    """Return where the cells of a feature map lie along either side of the image, in pixels.

    A cell lies in the middle of the pixels that it can see. Layers without padding see less of the border, so that a
    map stretched over the whole image would be off by some pixels.

    Args:
        layers: Every square convolution and pooling from the image to the feature map.

    Returns:
        The place of the first cell, and the distance of neighbours.
    """
    first, step = 0.0, 1.0
    for layer in layers:
        kernel, stride, padding = (
            size if isinstance(size, int) else int(size[0]) for size in (layer.kernel_size, layer.stride, layer.padding)
        )
        first += step * ((kernel - 1) / 2 - padding)
        step *= stride
    return first, step


def over_image(maps: Tensor, size: tuple[int, int], first: float, step: float) -> Tensor:
    """Interpolate maps (..., h, w) for the pixels of an image (..., H, W); beyond the outermost cells they are level.

    Args:
        maps: Whose cells lie at the pixels ``first``, ``first + step`` and so on, along either side.
        size: Height and width of the image.
        first: As ``centres_of_cells`` returns it.
        step: As ``centres_of_cells`` returns it.
    """
    down, right = (
        _between((torch.arange(pixels, device=maps.device, dtype=maps.dtype) - first) / step, cells)
        for pixels, cells in zip(size, maps.shape[-2:], strict=True)
    )  # (H, h), (W, w)
    return down @ maps @ right.mT


def _between(places: Tensor, cells: int) -> Tensor:
    """The share that each cell has in the value at each place (n,), which is in cells: (n, cells)."""
    distance = places.clamp(0, cells - 1).unsqueeze(1) - torch.arange(cells, device=places.device, dtype=places.dtype)
    return (1 - distance.abs()).relu()


def carried_back(maps: Tensor, theta: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Carry maps of what a transformer shows (B, h, w) back to its input (B, H, W), given theta (B, 2, 3).

    The input is as large as the maps unless its size is given. Zero outside of the sampled area, and for a theta that
    flattens the image.
    """
    back = Affine().inverse(theta)
    finite = back.isfinite().flatten(1).all(1).view(-1, 1, 1)
    identity = torch.eye(2, 3, dtype=back.dtype, device=back.device)
    back = torch.where(finite, back, identity)
    return warp(maps.unsqueeze(1), back, Affine(), size, "zeros", False, 1).squeeze(1) * finite
