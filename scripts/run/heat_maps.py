"""The figures of what a network looks at: Grad-CAM and attention, as maps over the images."""

from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from scripts.run.figures import DPI, FRAME_COLOUR, File, outlines, sheet, short, show
from scripts.run.grad_cam import over_image

LARGEST_SHEET, LARGEST_CELL, GAP = 11.2, 1.3, 0.3  # inches: across, of a map, and between two grids
BESIDE, ABOVE = 0.7, 0.3  # inches for the names of layers and heads
COLOURS, OPAQUE = colormaps["inferno"], 0.8  # of a map over an image, and how far its largest value hides the image


def attention(found: dict[str, Any], file: File) -> None:
    """Draw a row for each image: the image, its attention rollout, and every head of the last layer."""
    images, rollout, heads = found["attention_images"], found["attention_rollout"], found["attention_last_layer"]
    maps = torch.cat([rollout[:, None], heads], 1)  # (B, 1 + heads, h, w)
    grid = sheet(len(images), 1 + maps.shape[1], side=1.3)
    grid[0, 0].figure.subplots_adjust(top=1 - 0.25 / (1.3 * len(images)))  # only the first row has titles
    for row, image, image_maps in zip(grid, images, maps, strict=True):
        show(row[0], image)
        for axes, one in zip(row[1:], image_maps, strict=True):
            axes.imshow(one.numpy(), cmap="viridis", vmin=0, interpolation="nearest")
    titles = ("image", "rollout", *(f"head {i + 1}" for i in range(heads.shape[1])))
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    grid[0, 0].figure.savefig(file)


def grad_cam(found: dict[str, Any], file: File) -> None:
    """Draw a column for each image: the image, its map over it, and what the classifier saw with the map over it."""
    images, maps, classes = found["cam_images"], found["cam_maps"], found["classes"]
    behind = "cam_seen" in found  # a transformer
    grid = sheet(3 if behind else 2, len(images), side=1.4)
    rows = len(grid)
    grid[0, 0].figure.subplots_adjust(top=1 - 0.45 / (1.4 * rows))  # only the first row has titles
    for i, (column, image, one) in enumerate(zip(grid.T, images, maps, strict=True)):
        show(column[0], image)
        column[1].imshow(heated(image, one))
        if behind:
            column[2].imshow(heated(found["cam_seen"][i], found["cam_seen_maps"][i]))
            (outline,) = outlines(found["cam_theta"][i : i + 1], *images.shape[-2:])
            column[0].add_patch(Polygon(outline, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.5))
        truth, prediction = (int(found[name][i]) for name in ("cam_labels", "cam_predictions"))
        wrong = "" if truth == prediction else f"\n\N{RIGHTWARDS ARROW} {short(classes[prediction], 15)}"
        column[0].set_title(short(classes[truth], 15) + wrong, fontsize=10, linespacing=1.1, parse_math=False)
    grid[0, 0].figure.savefig(file)


def attention_layers(found: dict[str, Any], file: File) -> None:
    """Draw a row for each layer and a column for each head, below the image; two images stand side by side."""
    maps = found["attention_layers"]  # (B, L, heads, h, w)
    count, layers, heads = maps.shape[:3]
    images = found["attention_images"][:count]
    height, width = images.shape[-2:]
    side = height / maps.shape[-2]  # of a patch
    heat = over_image(maps, (height, width), (side - 1) / 2, side)
    between = GAP * (count - 1)
    across = min(LARGEST_CELL, (LARGEST_SHEET - BESIDE - between) / (heads * count))
    down = across * height / width
    figure = Figure(figsize=(BESIDE + between + across * heads * count, ABOVE + down * (1 + layers)), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))  # one for all, in inches: hundreds of axes would take seconds

    def place(pixels: np.ndarray, left: float, top: float) -> None:
        axes.imshow(pixels, extent=(left, left + 0.95 * across, top + 0.95 * down, top))

    for number, (image, of_layers) in enumerate(zip(images, heat, strict=True)):
        edge = BESIDE + number * (GAP + across * heads)
        place(rearrange(image.numpy(), "c h w -> h w c"), edge, 0)
        for head in range(heads):
            axes.text(edge + across * (head + 0.475), down + ABOVE - 0.06, f"head {head + 1}", ha="center")
        for layer, head in np.ndindex(layers, heads):
            place(heated(image, of_layers[layer, head]), edge + across * head, ABOVE + down * (1 + layer))
    for layer in range(layers):
        axes.text(BESIDE - 0.06, ABOVE + down * (layer + 1.475), f"layer {layer + 1}", ha="right", va="center")
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0), aspect="auto")
    axes.axis("off")
    figure.savefig(file)


def heated(image: Tensor, heat: Tensor) -> np.ndarray:
    """The image (3, H, W) in grey below the colours of a map (H, W), which go from zero to its largest value."""
    share = (heat / heat.max().clamp(min=1e-12)).clamp(0, 1).numpy()[..., None]
    grey = image.float().mean(0).numpy()[..., None] / 255
    weight = OPAQUE * share**0.5
    mixed: np.ndarray = (1 - weight) * grey + weight * COLOURS(share[..., 0])[..., :3]
    return mixed
