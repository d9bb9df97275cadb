"""Draw the pictures of scripts/README.md: what they show is computed by the components, nothing is typed in.

python -m scripts.pictures
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle
from torch import Tensor, nn

from components.spatial_transformer import SpatialTransformer, affine_grid
from scripts.batches import channel_statistics
from scripts.command_line import run
from scripts.data import digits
from scripts.figures import FRAME_COLOUR
from scripts.models import STNClassifier
from scripts.theta import sampled_corners, theta_remark, theta_statistics

FOLDER = Path(__file__).parent / "pictures"
WIDTH, DPI = 1100, 100  # pixels, and pixels an inch
SIDE = 32  # of the example images
FONT, HEADING = 17, 19  # in points, large enough at 400 pixels
MODULE_COLOUR, DATA_COLOUR, FADED = "#dbe7f5", "#fff3cd", "#777777"
GROUNDS = ((0.95, 0.77, 0.35), (0.45, 0.75, 0.62))  # behind the digits


class Given(nn.Module):
    """A localization that ignores the images.

    Args:
        theta: What it returns, (B, 2, 3).
    """

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        """Return theta."""
        return self.theta


def affine(scale: float = 1.0, degrees: float = 0.0, x: float = 0.0, y: float = 0.0) -> Tensor:
    """The theta (1, 2, 3) that scales, turns and shifts the outline of what is sampled."""
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[[a, -b, x], [b, a, y]]])


def letter() -> Tensor:
    """An image (1, 3, 32, 32) in [0, 1] that looks different from every side: a dark F on a light ground."""
    image = torch.tensor(GROUNDS[0]).view(1, 3, 1, 1).repeat(1, 1, SIDE, SIDE)
    for rows, columns in ((slice(6, 26), slice(9, 13)), (slice(6, 10), slice(9, 24)), (slice(14, 18), slice(9, 20))):
        image[:, :, rows, columns] = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1)
    return image


def shapes(network: STNClassifier, image: Tensor, batch: int = 7) -> tuple[dict[str, str], Tensor]:
    """Send a batch of one image through the network and read from hooks what goes in and out of its parts.

    Returns:
        The shape of each tensor as text, with B for the size of the batch, and the first of the sampled images.
    """
    assert network.transformer is not None
    seen: dict[str, Tensor] = {}
    with torch.inference_mode():
        handles = [
            network.transformer.localization.register_forward_hook(
                lambda _, given, returned: seen.update(image=given[0], parameters=returned)
            ),
            network.transformer.register_forward_hook(
                lambda _, given, returned: seen.update(sampled=returned[0], theta=returned[1])
            ),
            network.register_forward_hook(lambda _, given, returned: seen.update(logits=returned)),
        ]
        network.eval()(image.repeat(batch, 1, 1, 1))
        for handle in handles:
            handle.remove()
        seen["grid"] = affine_grid(seen["theta"], *seen["sampled"].shape[-2:])
    text = {}
    for name, tensor in seen.items():
        first, *rest = tensor.shape
        assert first == batch
        text[name] = f"({', '.join(['B', *map(str, rest)])})"
    return text, seen["sampled"][:1]


def stn() -> Figure:
    """The way of a batch through STNClassifier; its transformer is set to undo the tilt of the example image."""
    tilted = SpatialTransformer(Given(affine(1.25, -25)), padding_mode="border")(letter())
    network = STNClassifier(padding_mode="border")
    assert network.transformer is not None
    with torch.no_grad():
        network.transformer.localization.get_parameter("fc2.bias").copy_(affine(1 / 1.25, 25).flatten())
    shape, sampled = shapes(network, tilted)

    figure, sheet = _sheet(470)
    sheet.add_patch(Rectangle((200, 15), 625, 440, fill=False, edgecolor=FADED, linestyle="--", linewidth=1.5))
    sheet.text(220, 428, "SpatialTransformer", fontsize=FONT, color=FADED, va="center")
    _box(sheet, 330, 85, 210, "LocalizationNet", MODULE_COLOUR)
    _box(sheet, 545, 85, 130, f"θ\n{shape['theta']}", DATA_COLOUR)
    _box(sheet, 725, 85, 160, "affine_grid", MODULE_COLOUR)
    _box(sheet, 725, 210, 180, f"grid\n{shape['grid']}", DATA_COLOUR)
    _box(sheet, 725, 335, 160, "grid_sample", MODULE_COLOUR)
    _box(sheet, 970, 70, 150, f"logits\n{shape['logits']}", DATA_COLOUR)
    _box(sheet, 970, 180, 150, "classifier", MODULE_COLOUR)
    _show(_square(figure, 90, 335, 140), tilted)
    _show(_square(figure, 970, 335, 140), sampled)
    for x, name in ((90, "image"), (970, "sampled")):
        sheet.text(x, 432, shape[name], fontsize=FONT, ha="center", va="center")
    sheet.plot((90, 90), (260, 85), color="black", linewidth=1.8, solid_capstyle="projecting")
    for start, end in (
        ((90, 85), (222, 85)),
        ((438, 85), (477, 85)),
        ((613, 85), (642, 85)),
        ((725, 117), (725, 172)),
        ((725, 248), (725, 303)),
        ((165, 335), (642, 335)),
        ((808, 335), (895, 335)),
        ((970, 260), (970, 212)),
        ((970, 150), (970, 108)),
    ):
        _arrow(sheet, start, end)
    return figure


def grid() -> Figure:
    """What four thetas sample, and what comes out."""
    thetas = {
        "identity": affine(),
        "shift x +0.5": affine(x=0.5),
        "scale 1.4": affine(1.4),
        "rotation 30°": affine(degrees=30),
    }
    image = letter()
    figure, sheet = _sheet(560)
    _rows(sheet, 175, 460)
    for column, (title, theta) in enumerate(thetas.items()):
        centre = 175 + 258 * column
        sheet.text(centre, 28, title, fontsize=HEADING, ha="center", va="center")
        above = _square(figure, centre, 175, 250, reach=1.55)
        _show(above, image, theta)
        points = affine_grid(theta, 8, 8)[0].flatten(0, 1)
        above.plot(*points.T.numpy(), ".", color=FRAME_COLOUR, markersize=5, clip_on=False)
        below = _square(figure, centre, 460, 161)
        _show(below, SpatialTransformer(Given(theta))(image), affine())
        for axes, place in ((above, theta), (below, affine())):  # the same corner of the output in both
            axes.plot(*sampled_corners(place)[0, 0].numpy(), "o", color=FRAME_COLOUR, markersize=11, clip_on=False)
        _arrow(sheet, (centre, 372), (centre, 308), FRAME_COLOUR)
        sheet.text(centre + 14, 340, "θ", fontsize=HEADING, color=FRAME_COLOUR, va="center")
    return figure


def corners() -> Figure:
    """Where -1 and 1 lie on a row of four pixels, for both values of ``align_corners``."""
    pixels, side = 4, 108
    figure, sheet = _sheet(260)
    for left, align_corners in ((50, False), (618, True)):
        centres = affine_grid(affine(), 1, pixels, align_corners=align_corners)[0, 0, :, 0].tolist()
        sheet.text(left + 2 * side, 28, f"align_corners={align_corners}", fontsize=HEADING, ha="center", va="center")
        for i, x in enumerate(centres):
            sheet.add_patch(
                Rectangle((left + i * side, 105), side, side, facecolor=MODULE_COLOUR, edgecolor="black", linewidth=1.5)
            )
            middle = left + (i + 0.5) * side
            sheet.plot(middle, 105 + side / 2, "o", color="black", markersize=7)
            sheet.text(middle, 236, f"{x:.2f}", fontsize=FONT, ha="center", va="center")
        step = (centres[-1] - centres[0]) / (pixels - 1)
        for end in (-1, 1):
            place = left + ((end - centres[0]) / step + 0.5) * side
            sheet.plot((place, place), (92, 105 + side), color=FRAME_COLOUR, linewidth=3)
            sheet.text(
                place, 74, str(end), fontsize=HEADING, color=FRAME_COLOUR, ha="center", va="center", weight="bold"
            )
    return figure


def collapse() -> Figure:
    """A healthy and a collapsed transformer as the report shows them, with what the log says of them."""
    groups = {
        "healthy": torch.cat([affine(0.85, 12, x=0.05), affine(0.9, 22, y=-0.04)]),
        "collapsed": affine(1.43).repeat(2, 1, 1),
    }
    images = _digits_on_colours()
    normalise = channel_statistics(images)
    figure, sheet = _sheet(700)
    _rows(sheet, 180, 395)
    for left, (title, theta) in zip((50, 590), groups.items(), strict=True):
        outputs = normalise.undo(SpatialTransformer(Given(theta))(normalise(images)))
        for i in range(len(images)):
            centre = left + 120 + 240 * i
            _show(_square(figure, centre, 180, 235, reach=1.46), images[i : i + 1], theta[i : i + 1])
            _show(_square(figure, centre, 395, 161), outputs[i : i + 1])
        statistics = theta_statistics(theta, SIDE, SIDE)
        _, _, warning = theta_remark(statistics).partition("\n")
        sheet.text(left + 240, 26, title, fontsize=HEADING, ha="center", va="center", weight="bold")
        numbers = f"scale {statistics['theta_scale_mean']:.2f},  outside {statistics['theta_outside']:.0%}"
        sheet.text(left + 240, 508, numbers, fontsize=HEADING, ha="center", va="center")
        if warning:
            sheet.add_patch(Rectangle((left - 26, 545), 526, 140, facecolor=DATA_COLOUR))
            lines = textwrap.fill(warning, 44)
            sheet.text(left - 14, 615, lines, fontsize=16, va="center", linespacing=1.25)
        else:
            sheet.text(left + 240, 566, "no warning", fontsize=FONT, color=FADED, ha="center", va="center")
    return figure


PICTURES = {"stn": stn, "grid": grid, "corners": corners, "collapse": collapse}


def words(figure: Figure) -> str:
    """All that is written in the picture, one text a line."""
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return "\n".join(" ".join(text.get_text().split()) for text in texts)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file that carries its words as the description: letters are drawn otherwise by other versions."""
    figure.savefig(path, dpi=DPI, metadata={"Description": words(figure)}, pil_kwargs={"optimize": True})


def main() -> None:
    """Draw every picture into scripts/pictures/."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        path = FOLDER / f"{name}.png"
        save(draw(), path)
        print(path)


def _digits_on_colours() -> Tensor:
    """Two test images uint8 (2, 3, 32, 32), painted dark on colours: black digits would hide a black border."""
    chosen = digits().test.images[[87, 41]].float() / 255
    ground = torch.tensor(GROUNDS).view(-1, 3, 1, 1)
    return ((1 - chosen) * ground * 255).round().byte()


def _sheet(height: int) -> tuple[Figure, Axes]:
    """A white figure and axes that cover it, measured in pixels from the top left."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_xlim(0, WIDTH)
    sheet.set_ylim(height, 0)
    sheet.axis("off")
    return figure, sheet


def _square(figure: Figure, x: float, y: float, side: float, reach: float = 1.0) -> Axes:
    """Square axes around a point of the sheet that show the coordinates from -reach to reach, y downwards."""
    height = figure.get_figheight() * DPI
    axes = figure.add_axes(((x - side / 2) / WIDTH, 1 - (y + side / 2) / height, side / WIDTH, side / height))
    axes.axis("off")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)
    return axes


def _show(axes: Axes, image: Tensor, theta: Tensor | None = None) -> None:
    """Draw the image and, where theta is given, the outline of what it samples."""
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(rearrange(image.numpy(), "1 c h w -> h w c"), extent=(-1, 1, 1, -1), interpolation="nearest")
    if theta is not None:
        outline = sampled_corners(theta)[0].numpy()
        axes.add_patch(Polygon(outline, fill=False, edgecolor=FRAME_COLOUR, linewidth=2.5, clip_on=False))
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _rows(sheet: Axes, above: float, below: float) -> None:
    """Write what the two rows of images are."""
    for y, text in ((above, "input"), (below, "output")):
        sheet.text(24, y, text, fontsize=FONT, ha="center", va="center", rotation=90)


def _box(sheet: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    """A box around a point with one or two lines in it."""
    height = 60 if "\n" not in text else 72
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=9"
    sheet.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="black"))
    sheet.text(x, y, text, fontsize=FONT, ha="center", va="center", linespacing=1.3)


def _arrow(sheet: Axes, start: Sequence[float], end: Sequence[float], colour: str = "black") -> None:
    style = {"arrowstyle": "-|>,head_width=0.35,head_length=0.7", "linewidth": 1.8, "color": colour}
    sheet.annotate(
        "", xy=(end[0], end[1]), xytext=(start[0], start[1]), arrowprops={**style, "shrinkA": 0, "shrinkB": 0}
    )


if __name__ == "__main__":
    run(main, "pictures")
