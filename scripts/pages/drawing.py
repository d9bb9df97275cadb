"""What the pictures of the pages have in common: a sheet in pixels, boxes, arrows, an example image, and the file.

Modules and functions are blue, data is yellow. Letters are large enough to be read where a page is 400 pixels wide.
"""

from pathlib import Path

import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

WIDTH, DPI = 1100, 100  # pixels, and pixels an inch
SIDE = 32  # of the example images
FONT, HEADING = 17, 19  # in points, large enough at 400 pixels
MODULE_COLOUR, DATA_COLOUR, FADED = "#dbe7f5", "#fff3cd", "#777777"
GROUNDS = ((0.95, 0.77, 0.35), (0.45, 0.75, 0.62))  # behind the examples


def letter() -> Tensor:
    """An image (1, 3, 32, 32) in [0, 1] that looks different from every side: a dark F on a light ground."""
    image = torch.tensor(GROUNDS[0]).view(1, 3, 1, 1).repeat(1, 1, SIDE, SIDE)
    for rows, columns in ((slice(6, 26), slice(9, 13)), (slice(6, 10), slice(9, 24)), (slice(14, 18), slice(9, 20))):
        image[:, :, rows, columns] = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1)
    return image


def shape_text(tensor: Tensor, batch: int) -> str:
    """The shape of a tensor, with B for the size of the batch."""
    first, *rest = tensor.shape
    assert first == batch
    return f"({', '.join(['B', *map(str, rest)])})"


def words(figure: Figure) -> str:
    """All that is written in the picture, one text a line."""
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return "\n".join(" ".join(text.get_text().split()) for text in texts)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file that carries its words as the description: letters are drawn otherwise by other versions."""
    figure.savefig(path, dpi=DPI, metadata={"Description": words(figure)}, pil_kwargs={"optimize": True})


def blank(height: int) -> tuple[Figure, Axes]:
    """A white figure and axes that cover it, measured in pixels from the top left."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_xlim(0, WIDTH)
    sheet.set_ylim(height, 0)
    sheet.axis("off")
    return figure, sheet


def panel(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes around a point of the sheet, without a frame."""
    whole = figure.get_figheight() * DPI
    axes = figure.add_axes(((x - width / 2) / WIDTH, 1 - (y + height / 2) / whole, width / WIDTH, height / whole))
    axes.axis("off")
    return axes


def square(figure: Figure, x: float, y: float, side: float, reach: float = 1.0) -> Axes:
    """Square axes around a point of the sheet that show the coordinates from -reach to reach, y downwards."""
    axes = panel(figure, x, y, side, side)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)
    return axes


def show(axes: Axes, image: Tensor) -> None:
    """Draw an image (1, C, H, W) from -1 to 1."""
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(rearrange(image.numpy(), "1 c h w -> h w c"), extent=(-1, 1, 1, -1), interpolation="nearest")
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def label(sheet: Axes, x: float, y: float, text: str, colour: str = "black") -> None:
    """Words around a point."""
    sheet.text(x, y, text, fontsize=FONT, color=colour, ha="center", va="center", linespacing=1.3)


def box(sheet: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    """A box around a point with one to three lines in it."""
    height = max(60, 8 + 32 * len(text.splitlines()))
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=9"
    sheet.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="black"))
    label(sheet, x, y, text)


def arrow(sheet: Axes, *points: tuple[float, float], colour: str = "black") -> None:
    """An arrow along straight lines from the first point to the last."""
    *before, start, end = points
    if before:
        x, y = zip(*before, start, strict=True)
        sheet.plot(x, y, color=colour, linewidth=1.8, solid_capstyle="projecting", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>,head_width=0.35,head_length=0.7", "linewidth": 1.8, "color": colour}
    sheet.annotate("", xy=end, xytext=start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
