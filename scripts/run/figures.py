"""The figures of a report, each drawn from tensors and rows of metrics into one PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, TransformedBbox
from torch import Tensor

from scripts.run.theta import GREATEST_SCALE, LEAST_SCALE, sampled_pixels

Rows = Sequence[dict[str, float]]
File = Path | IO[bytes]
DPI = 100
TRAIN_COLOUR, HELD_OUT_COLOUR, FRAME_COLOUR, BOX_COLOUR = "#9a6a00", "#1f5fa8", "#d7263d", "#19c37d"
MOST_CLASSES, MOST_PAIRS = 25, 30  # of a confusion matrix with numbers, and of the pairs that stand in for it


def _new(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_xlabel("epoch")
    left, right = axes.get_xlim()
    if right - left < 1:  # a single epoch
        axes.set_xlim(left - 0.5, right + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def short(name: str, most: int) -> str:
    """Cut a name to at most so many characters: from its middle, as names often differ at the end."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"


def sheet(rows: int, columns: int, side: float, title: float = 0.0) -> np.ndarray:
    """A grid of square axes with room for a title above each, in inches; a layout solver would be slow."""
    height = side + title
    figure = Figure(figsize=(side * columns, height * rows), dpi=DPI)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - title / (height * rows), wspace=0.08, hspace=0.05 + title / side)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    return grid


def show(axes: Axes, image: Tensor) -> None:
    """Draw an image (3, H, W), every pixel as a square."""
    axes.imshow(rearrange(image.numpy(), "c h w -> h w c"), interpolation="nearest")


def curves(rows: Rows, held_out: str, file: File) -> None:
    """Plot loss, accuracy and learning rate against the epoch."""
    figure = _new(11, 3.2)
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else None
    for axes, kind in ((loss, "loss"), (accuracy, "accuracy")):
        for name, colour in (("train", TRAIN_COLOUR), (held_out, HELD_OUT_COLOUR)):
            axes.plot(epochs, [row[f"{name}_{kind}"] for row in rows], color=colour, label=name, marker=marker)
        axes.legend(frameon=False)
    rate.plot(epochs, [row["lr"] for row in rows], color="black", marker=marker)
    _tidy(loss, "loss")
    _tidy(accuracy, "accuracy (%)")
    _tidy(rate, "learning rate")
    figure.savefig(file)


def range_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float | None,
    title: str,
    file: File,
) -> None:
    """Plot the losses of a range test against the learning rate, with the suggested one."""
    figure = _new(8, 4.5)
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color=TRAIN_COLOUR, alpha=0.35, label="a step")
    axes.plot(rates, smoothed, color=HELD_OUT_COLOUR, linewidth=2, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=FRAME_COLOUR, linestyle=":", label=f"suggested: {suggestion:.3g}")
    if smoothed:  # what explodes at the end would flatten the rest
        first, fall = smoothed[0], max(smoothed[0] - min(smoothed), 0.01 * smoothed[0])
        axes.set_ylim(first - 1.15 * fall, first + 0.6 * fall)
    axes.set_xscale("log")
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_xlabel("learning rate (--lr)")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(file)


def theta_curves(rows: Rows, least_spread: float, file: File) -> None:
    """Plot mean and spread of theta's statistics against the epoch."""
    figure = _new(13, 3.0)
    epochs = [row["epoch"] for row in rows]
    panels = (
        ("scale (above 1: shrunk)", {"theta_scale": ("", "black")}),
        ("angle (degrees)", {"theta_angle": ("", "black")}),
        ("shift (half widths)", {"theta_shift_x": ("x", TRAIN_COLOUR), "theta_shift_y": ("y", HELD_OUT_COLOUR)}),
    )
    *bands, outside, spread = figure.subplots(1, 5)
    marker = "o" if len(rows) == 1 else None
    for axes, (title, series) in zip(bands, panels, strict=True):
        for name, (label, colour) in series.items():
            mean = np.array([row[f"{name}_mean"] for row in rows])
            std = np.array([row[f"{name}_std"] for row in rows])
            axes.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
            axes.plot(epochs, mean, color=colour, label=label, marker=marker)
        if len(series) > 1:
            axes.legend(frameon=False)
        _tidy(axes, title)
    for limit in (LEAST_SCALE, GREATEST_SCALE):
        bands[0].axhline(limit, color=FRAME_COLOUR, linestyle=":", linewidth=1)
    outside.plot(epochs, [100 * row["theta_outside"] for row in rows], color="black", marker=marker)
    _tidy(outside, "outside the frame (%)")
    # earlier versions did not measure it
    spread.plot(epochs, [row.get("theta_spread", np.nan) for row in rows], color="black", marker=marker)
    spread.axhline(least_spread, color=FRAME_COLOUR, linestyle=":", linewidth=1)
    _tidy(spread, "between images (pixels)")
    for axes in (outside, spread):
        axes.set_ylim(bottom=0)
    figure.savefig(file)


def confusion(counts: Tensor, classes: Sequence[str], file: File) -> None:
    """Draw truth by row and prediction by column; numbers count images, shades are shares of the row.

    With more classes than numbers fit for, draw the pairs that are confused most often.
    """
    if len(classes) > MOST_CLASSES:
        _confused_pairs(counts, classes, file)
        return
    classes, side = [short(name, 24) for name in classes], 2.2 + 0.55 * len(classes)
    figure = _new(side, side)
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    figure.savefig(file)


def _confused_pairs(counts: Tensor, classes: Sequence[str], file: File) -> None:
    """Bars: how many images of a class were taken for another one."""
    wrong = counts.clone().fill_diagonal_(0)
    most = [int(place) for place in wrong.flatten().argsort(descending=True, stable=True)[:MOST_PAIRS]]
    pairs = [divmod(place, len(classes)) for place in most if wrong.flatten()[place]]
    figure = _new(9, 1.4 + 0.28 * len(pairs))
    axes = figure.subplots()
    classes = [short(name, 24) for name in classes]
    names = [f"{classes[truth]} \N{RIGHTWARDS ARROW} {classes[said]}" for truth, said in pairs]
    axes.barh(range(len(pairs)), [int(wrong[pair]) for pair in pairs], color="#4c78a8")
    axes.set_yticks(range(len(pairs)), names, parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"images, of the {len(pairs)} pairs of {len(classes)} classes that are confused most often")
    figure.savefig(file)


def misclassified(found: dict[str, Any], file: File) -> None:
    """Draw misclassified images, each with truth, prediction and confidence."""
    images, columns = found["wrong_images"], 10
    rows = max(1, -(-len(images) // columns))
    grid = list(sheet(rows, columns, side=1.15, title=0.4).flat)
    labels, predictions = found["wrong_labels"].tolist(), found["wrong_predictions"].tolist()
    confidences, classes = found["wrong_confidences"].tolist(), [short(name, 14) for name in found["classes"]]
    for axes, image, label, prediction, confidence in zip(grid, images, labels, predictions, confidences, strict=False):
        show(axes, image)
        title = f"{classes[label]}\n→ {classes[prediction]}, {confidence:.0%}"
        axes.set_title(title, fontsize=7, linespacing=1.1, parse_math=False)
    grid[0].figure.savefig(file)


def transformer(found: dict[str, Any], file: File) -> None:
    """Draw inputs with the outline of the sampled area, and below each the output that the classifier sees."""
    inputs, outputs, theta = found["transformer_inputs"], found["transformer_outputs"], found["theta"]
    columns = 8
    rows = -(-len(inputs) // columns)
    grid = sheet(2 * rows, columns, side=1.4)
    height, width = inputs.shape[-2:]
    for i, (before, after, outline) in enumerate(zip(inputs, outputs, outlines(theta, height, width), strict=True)):
        upper, lower = grid[2 * (i // columns), i % columns], grid[2 * (i // columns) + 1, i % columns]
        for axes, image in ((upper, before), (lower, after)):
            show(axes, image)
            rows_seen, columns_seen = image.shape[-2:]
            axes.set_xlim(-0.2 * columns_seen, 1.2 * columns_seen)
            axes.set_ylim(1.2 * rows_seen, -0.2 * rows_seen)
        upper.add_patch(Polygon(outline, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.5, clip_on=False))
    grid[0, 0].figure.savefig(file)


def annotated(images: Tensor, boxes: Tensor, titles: Sequence[str], corners: Tensor | None, file: File) -> None:
    """Draw images with the box of their object in green, those of distractors dotted, and a sampled area in red.

    Args:
        images: uint8 (N, 3, H, W).
        boxes: (N, n, 4): left, top, width and height in pixels, the object's first; zero for none.
        titles: One for every image.
        corners: (N, 4, 2) of the sampled areas in pixels, x before y.
        file: The new file.
    """
    columns = 10
    grid = list(sheet(-(-len(images) // columns), min(columns, len(images)), side=1.6, title=0.22).flat)
    for number, (axes, image, title) in enumerate(zip(grid, images, titles, strict=False)):
        show(axes, image)
        axes.set_title(title, fontsize=8, parse_math=False)
        for place, (left, top, width, height) in enumerate(boxes[number].tolist()):
            kind: dict[str, Any] = {"linewidth": 1.5} if place == 0 else {"linewidth": 0.9, "linestyle": ":"}
            corner = (left - 0.5, top - 0.5)  # the outer edge of the pixel
            axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=BOX_COLOUR, **kind))
        if corners is not None:
            outline = (corners[number] - 0.5).numpy()
            axes.add_patch(Polygon(outline, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.5, clip_on=False))
    grid[0].figure.savefig(file)


def outlines(theta: Tensor, height: int, width: int) -> np.ndarray:
    """The corners of the sampled area as places in a picture, where -0.5 is the outer edge of pixel 0."""
    corners: np.ndarray = (sampled_pixels(theta, height, width) - 0.5).numpy()
    return corners


def poses(found: dict[str, Any], file: File) -> None:
    """Draw two rows for each image: the image and its eight poses with the sampled area, and the outputs of these."""
    images, inputs, outputs = found["posed_images"], found["posed_inputs"], found["posed_outputs"]
    height, width = images.shape[-2:]
    rows, columns = 2 * len(images), 1 + inputs.shape[1]
    down, across, above = 1.05 * height, 1.05 * width, 0.25 * height  # from image to image, and titles, in pixels
    side = 1.2 / max(down, across)  # of a pixel in inches
    figure = Figure(figsize=(side * across * columns, side * (above + down * rows)), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))  # one for all, in pixels: one for each image would take a second

    def place(image: Tensor, row: int, column: int, outline: np.ndarray | None = None) -> None:
        left, top = across * column - 0.5, down * row - 0.5
        extent = (left, left + width, top + height, top)
        axes.imshow(rearrange(image.numpy(), "c h w -> h w c"), interpolation="nearest", extent=extent)
        if outline is not None:
            moved = outline + np.array([across * column, down * row])
            area = axes.add_patch(Polygon(moved, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.5))
            area.set_clip_box(TransformedBbox(Bbox.from_extents(left, top, left + width, top + height), axes.transData))

    for i, (image, before, after, theta) in enumerate(zip(images, inputs, outputs, found["posed_theta"], strict=True)):
        place(image, 2 * i, 0)
        for j, outline in enumerate(outlines(theta, height, width)):
            place(before[j], 2 * i, 1 + j, outline)
            place(after[j], 2 * i + 1, 1 + j)
    titles = ["upright"]
    for angle, scale, *_ in found["poses"].tolist():
        size = f", \N{MULTIPLICATION SIGN}{math.exp(scale):.2f}" if scale else ""
        titles.append(f"{math.degrees(angle):.0f}°{size}")
    for j, title in enumerate(titles):
        axes.text(across * j + width / 2, -0.08 * height, title, fontsize=9, ha="center")
    axes.set(xlim=(-0.025 * width, across * columns), ylim=(down * rows - 0.5, -0.5 - above), aspect="auto")
    axes.axis("off")
    figure.savefig(file)


def angles(pairs: Tensor, correlation: float, file: File) -> None:
    """Plot the angle of theta against the angle of the pose, (2, N) in radians; the larger a dot, the more images."""
    figure = _new(5.5, 5.5)
    axes = figure.subplots()
    degrees = ((pairs.rad2deg().round() + 180) % 360 - 180).unique(dim=1, return_counts=True)
    (put_in, taken_out), counts = degrees[0].numpy(), degrees[1].numpy()
    axes.plot((-180, 180), (-180, 180), color=FRAME_COLOUR, linestyle=":", linewidth=1)
    alpha = min(1, 20 / len(counts) ** 0.5)
    axes.scatter(put_in, taken_out, 3 + 3000 * counts / counts.sum(), HELD_OUT_COLOUR, alpha=alpha, linewidth=0)
    axes.set_title(f"circular correlation {correlation:.2f}", loc="left", fontsize=10)
    axes.set_xlabel("angle of the pose (degrees)")
    axes.set_ylabel("angle of theta (degrees)")
    axes.set_xticks(range(-180, 181, 45))
    axes.set_yticks(range(-180, 181, 45))
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.savefig(file)
