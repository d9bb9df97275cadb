"""The pictures of scripts/README.md: what they show is computed by the components, nothing is typed in."""

import math
import textwrap

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor, nn

from components.spatial_transformer import SpatialTransformer, affine_grid
from scripts.data.batches import channel_statistics
from scripts.data.datasets import digits
from scripts.models.stn import STNClassifier
from scripts.pages.drawing import (
    DATA_COLOUR,
    FADED,
    FONT,
    GROUNDS,
    HEADING,
    MODULE_COLOUR,
    SIDE,
    arrow,
    blank,
    box,
    letter,
    shape_text,
    show,
    square,
)
from scripts.run.figures import FRAME_COLOUR
from scripts.run.theta import sampled_corners, theta_remark, theta_statistics


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
    return {name: shape_text(tensor, batch) for name, tensor in seen.items()}, seen["sampled"][:1]


def stn() -> Figure:
    """The way of a batch through STNClassifier; its transformer is set to undo the tilt of the example image."""
    tilted = SpatialTransformer(Given(affine(1.25, -25)), padding_mode="border")(letter())
    network = STNClassifier(padding_mode="border")
    assert network.transformer is not None
    with torch.no_grad():
        network.transformer.localization.get_parameter("fc2.bias").copy_(affine(1 / 1.25, 25).flatten())
    shape, sampled = shapes(network, tilted)

    figure, sheet = blank(470)
    sheet.add_patch(Rectangle((200, 15), 625, 440, fill=False, edgecolor=FADED, linestyle="--", linewidth=1.5))
    sheet.text(220, 428, "SpatialTransformer", fontsize=FONT, color=FADED, va="center")
    box(sheet, 330, 85, 210, "LocalizationNet", MODULE_COLOUR)
    box(sheet, 545, 85, 130, f"θ\n{shape['theta']}", DATA_COLOUR)
    box(sheet, 725, 85, 160, "affine_grid", MODULE_COLOUR)
    box(sheet, 725, 210, 180, f"grid\n{shape['grid']}", DATA_COLOUR)
    box(sheet, 725, 335, 160, "grid_sample", MODULE_COLOUR)
    box(sheet, 970, 70, 150, f"logits\n{shape['logits']}", DATA_COLOUR)
    box(sheet, 970, 180, 150, "classifier", MODULE_COLOUR)
    show(square(figure, 90, 335, 140), tilted)
    show(square(figure, 970, 335, 140), sampled)
    for x, name in ((90, "image"), (970, "sampled")):
        sheet.text(x, 432, shape[name], fontsize=FONT, ha="center", va="center")
    for points in (
        ((90, 260), (90, 85), (222, 85)),
        ((438, 85), (477, 85)),
        ((613, 85), (642, 85)),
        ((725, 117), (725, 172)),
        ((725, 248), (725, 303)),
        ((165, 335), (642, 335)),
        ((808, 335), (895, 335)),
        ((970, 260), (970, 212)),
        ((970, 150), (970, 108)),
    ):
        arrow(sheet, *points)
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
    figure, sheet = blank(560)
    _rows(sheet, 175, 460)
    for column, (title, theta) in enumerate(thetas.items()):
        centre = 175 + 258 * column
        sheet.text(centre, 28, title, fontsize=HEADING, ha="center", va="center")
        above = square(figure, centre, 175, 250, reach=1.55)
        _show_sampled(above, image, theta)
        points = affine_grid(theta, 8, 8)[0].flatten(0, 1)
        above.plot(*points.T.numpy(), ".", color=FRAME_COLOUR, markersize=5, clip_on=False)
        below = square(figure, centre, 460, 161)
        _show_sampled(below, SpatialTransformer(Given(theta))(image), affine())
        for axes, place in ((above, theta), (below, affine())):  # the same corner of the output in both
            axes.plot(*sampled_corners(place)[0, 0].numpy(), "o", color=FRAME_COLOUR, markersize=11, clip_on=False)
        arrow(sheet, (centre, 372), (centre, 308), colour=FRAME_COLOUR)
        sheet.text(centre + 14, 340, "θ", fontsize=HEADING, color=FRAME_COLOUR, va="center")
    return figure


def corners() -> Figure:
    """Where -1 and 1 lie on a row of four pixels, for both values of ``align_corners``."""
    pixels, side = 4, 108
    figure, sheet = blank(260)
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
    figure, sheet = blank(700)
    _rows(sheet, 180, 395)
    for left, (title, theta) in zip((50, 590), groups.items(), strict=True):
        outputs = normalise.undo(SpatialTransformer(Given(theta))(normalise(images)))
        for i in range(len(images)):
            centre = left + 120 + 240 * i
            _show_sampled(square(figure, centre, 180, 235, reach=1.46), images[i : i + 1], theta[i : i + 1])
            show(square(figure, centre, 395, 161), outputs[i : i + 1])
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


def _digits_on_colours() -> Tensor:
    """Two test images uint8 (2, 3, 32, 32), painted dark on colours: black digits would hide a black border."""
    chosen = digits().test.images[[87, 41]].float() / 255
    ground = torch.tensor(GROUNDS).view(-1, 3, 1, 1)
    return ((1 - chosen) * ground * 255).round().byte()


def _show_sampled(axes: Axes, image: Tensor, theta: Tensor) -> None:
    """Draw the image and the outline of what theta samples from it."""
    show(axes, image)
    outline = sampled_corners(theta)[0].numpy()
    axes.add_patch(Polygon(outline, fill=False, edgecolor=FRAME_COLOUR, linewidth=2.5, clip_on=False))


def _rows(sheet: Axes, above: float, below: float) -> None:
    """Write what the two rows of images are."""
    for y, text in ((above, "input"), (below, "output")):
        sheet.text(24, y, text, fontsize=FONT, ha="center", va="center", rotation=90)
