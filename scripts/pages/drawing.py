"""Helpers for the pictures: a sheet measured in pixels with boxes and arrows, an example image, and the file.

Modules and functions are blue, data is yellow. Text is readable on a page that is 400 pixels wide.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor, nn

WIDTH, DPI = 1100, 100  # pixels, and pixels an inch
BATCH = 7  # images in every forward pass
SIDE = 32  # of the example images
FONT, HEADING = 17, 19  # in points
MODULE_COLOUR, DATA_COLOUR, FADED = "#dbe7f5", "#fff3cd", "#777777"
GROUNDS = ((0.95, 0.77, 0.35), (0.45, 0.75, 0.62))  # behind the examples

Point = tuple[float, float]


def letter() -> Tensor:
    """Return an image (1, 3, 32, 32) in [0, 1] without symmetry: a dark F on a light ground."""
    image = torch.tensor(GROUNDS[0]).view(1, 3, 1, 1).repeat(1, 1, SIDE, SIDE)
    for rows, columns in ((slice(6, 26), slice(9, 13)), (slice(6, 10), slice(9, 24)), (slice(14, 18), slice(9, 20))):
        image[:, :, rows, columns] = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1)
    return image


class Passage(NamedTuple):
    """Input and output of a module."""

    given: Tensor
    returned: Any


def passages(module: nn.Module, x: Tensor) -> dict[str, Passage]:
    """Send a batch through the module and record the input and output of each part by its name, of itself by ''."""
    seen: dict[str, Passage] = {}
    handles = [
        part.register_forward_hook(
            lambda _, given, returned, name=name: seen.update({name: Passage(given[0], returned)})
        )
        for name, part in module.named_modules()
    ]
    with torch.inference_mode():
        module.eval()(x)
    for handle in handles:
        handle.remove()
    return seen


def shape(tensor: Tensor) -> str:
    """Return the shape of a batch as text, with B for its size."""
    assert tensor.shape[0] == BATCH
    return f"({', '.join(['B', *map(str, tensor.shape[1:])])})"


def words(figure: Figure) -> str:
    """Return all text of a picture, one text a line."""
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return "\n".join(" ".join(text.get_text().split()) for text in texts)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG with its text in the metadata, which tests compare: other versions draw letters differently."""
    figure.savefig(path, dpi=DPI, metadata={"Description": words(figure)}, pil_kwargs={"optimize": True})


class Sheet:
    """A white figure with axes that cover it, measured in pixels from the top left.

    Args:
        height: In pixels; the width is ``WIDTH``.
    """

    def __init__(self, height: int) -> None:
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, WIDTH)
        self.axes.set_ylim(height, 0)
        self.axes.axis("off")

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes centred at a point, without a frame."""
        whole = self.figure.get_figheight() * DPI
        place = ((x - width / 2) / WIDTH, 1 - (y + height / 2) / whole, width / WIDTH, height / whole)
        axes = self.figure.add_axes(place)
        axes.axis("off")
        return axes

    def square(self, x: float, y: float, side: float, reach: float = 1.0) -> Axes:
        """Add square axes for coordinates from -reach to reach, y downwards."""
        axes = self.panel(x, y, side, side)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(reach, -reach)
        return axes

    def image(self, x: float, y: float, side: float, image: Tensor) -> Axes:
        """Draw an image (1, C, H, W) centred at a point."""
        axes = self.square(x, y, side)
        show(axes, image)
        return axes

    def label(self, x: float, y: float, text: str, colour: str = "black", **style: Any) -> None:
        """Write text centred at a point."""
        label(self.axes, x, y, text, colour, **style)

    def module(self, x: float, y: float, width: float, text: str) -> None:
        """Draw a blue box for a module or function."""
        self._box(x, y, width, text, MODULE_COLOUR)

    def data(self, x: float, y: float, width: float, text: str) -> None:
        """Draw a yellow box for a tensor."""
        self._box(x, y, width, text, DATA_COLOUR)

    def _box(self, x: float, y: float, width: float, text: str, colour: str) -> None:
        height = max(60, 8 + 32 * len(text.splitlines()))
        corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=9"
        box = FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="black")
        self.axes.add_patch(box)
        self.label(x, y, text)

    def rectangle(self, x: float, y: float, width: float, height: float, **style: Any) -> None:
        """Draw a rectangle with its top left corner at a point."""
        self.axes.add_patch(Rectangle((x, y), width, height, **style))

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """Draw a dashed frame around the parts of a module."""
        self.rectangle(x, y, width, height, fill=False, edgecolor=FADED, linestyle="--", linewidth=1.5)

    def arrow(self, *points: Point, colour: str = "black") -> None:
        """Draw an arrow along straight lines from the first point to the last."""
        *before, start, end = points
        if before:
            x, y = zip(*before, start, strict=True)
            self.axes.plot(x, y, color=colour, linewidth=1.8, solid_capstyle="projecting", solid_joinstyle="miter")
        style = {"arrowstyle": "-|>,head_width=0.35,head_length=0.7", "linewidth": 1.8, "color": colour}
        self.axes.annotate("", xy=end, xytext=start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})

    def arrows(self, *paths: tuple[Point, ...]) -> None:
        """Draw an arrow along each path."""
        for path in paths:
            self.arrow(*path)


def show(axes: Axes, image: Tensor) -> None:
    """Draw an image (1, C, H, W) from -1 to 1."""
    axes.imshow(rearrange(image.numpy(), "1 c h w -> h w c"), extent=(-1, 1, 1, -1), interpolation="nearest")


def label(axes: Axes, x: float, y: float, text: str, colour: str = "black", **style: Any) -> None:
    """Write text centred at a point."""
    axes.text(
        x, y, text, color=colour, **{"fontsize": FONT, "ha": "center", "va": "center", "linespacing": 1.3, **style}
    )
