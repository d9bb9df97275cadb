"""The pictures of scripts/README.md, computed with the components."""

import math
import textwrap

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor, nn

from components import SpatialTransformer
from components.transforms import affine_grid
from scripts.data.batches import channel_statistics
from scripts.data.datasets import digits
from scripts.models.stn import STNClassifier
from scripts.pages.drawing import (
    BATCH,
    DATA_COLOUR,
    FADED,
    GROUNDS,
    HEADING,
    MODULE_COLOUR,
    SIDE,
    Sheet,
    letter,
    passages,
    shape,
    show,
)  # fmt: skip
from scripts.run.figures import FRAME_COLOUR
from scripts.run.theta import collapse_warning, sampled_corners, theta_statistics


def affine(scale: float = 1.0, degrees: float = 0.0, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Return the theta (1, 2, 3) that scales, turns and shifts the sampled area."""
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[[a, -b, x], [b, a, y]]])


def warped(image: Tensor, theta: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Return the image as a spatial transformer shows it whose theta is given."""
    return SpatialTransformer(nn.Identity(), padding_mode=padding_mode).warp(image, theta)


def stn() -> Figure:
    """A batch on its way through STNClassifier, whose transformer is set to undo the tilt of the example image."""
    tilted = warped(letter(), affine(1.25, -25), "border")
    network = STNClassifier(padding_mode="border")
    assert network.transformer is not None
    with torch.no_grad():
        network.transformer.localization.get_parameter("fc2.bias").copy_(affine(1 / 1.25, 25).flatten())
    seen = passages(network, tilted.repeat(BATCH, 1, 1, 1))
    sampled, theta = seen["transformer"].returned
    grid = affine_grid(theta, *sampled.shape[-2:])

    sheet = Sheet(470)
    sheet.frame(200, 15, 625, 440)
    sheet.label(220, 428, "SpatialTransformer", FADED, ha="left")
    sheet.module(330, 85, 210, "LocalizationNet")
    sheet.data(545, 85, 130, f"θ\n{shape(theta)}")
    sheet.module(725, 85, 160, "affine_grid")
    sheet.data(725, 210, 180, f"grid\n{shape(grid)}")
    sheet.module(725, 335, 160, "grid_sample")
    sheet.data(970, 70, 150, f"logits\n{shape(seen[''].returned)}")
    sheet.module(970, 180, 150, "classifier")
    sheet.image(90, 335, 140, tilted)
    sheet.image(970, 335, 140, sampled[:1])
    sheet.label(90, 432, shape(seen[""].given))
    sheet.label(970, 432, shape(sampled))
    sheet.arrows(
        ((90, 260), (90, 85), (222, 85)), ((438, 85), (477, 85)), ((613, 85), (642, 85)), ((725, 117), (725, 172)),
        ((725, 248), (725, 303)), ((165, 335), (642, 335)), ((808, 335), (895, 335)), ((970, 260), (970, 212)),
        ((970, 150), (970, 108)),
    )  # fmt: skip
    return sheet.figure


def grid() -> Figure:
    """What four thetas sample from the input, and the output."""
    thetas = {
        "identity": affine(),
        "shift x +0.5": affine(x=0.5),
        "scale 1.4": affine(1.4),
        "rotation 30°": affine(degrees=30),
    }
    image = letter()
    sheet = Sheet(560)
    _rows(sheet, 175, 460)
    for column, (title, theta) in enumerate(thetas.items()):
        centre = 175 + 258 * column
        sheet.label(centre, 28, title, fontsize=HEADING)
        above = sheet.square(centre, 175, 250, reach=1.55)
        _show_sampled(above, image, theta)
        points = affine_grid(theta, 8, 8)[0].flatten(0, 1)
        above.plot(*points.T.numpy(), ".", color=FRAME_COLOUR, markersize=5, clip_on=False)
        below = sheet.square(centre, 460, 161)
        _show_sampled(below, warped(image, theta), affine())
        for axes, place in ((above, theta), (below, affine())):  # the same corner of the output
            axes.plot(*sampled_corners(place)[0, 0].numpy(), "o", color=FRAME_COLOUR, markersize=11, clip_on=False)
        sheet.arrow((centre, 372), (centre, 308), colour=FRAME_COLOUR)
        sheet.label(centre + 14, 340, "θ", FRAME_COLOUR, ha="left", fontsize=HEADING)
    return sheet.figure


def corners() -> Figure:
    """Where -1 and 1 lie on a row of four pixels, for both values of ``align_corners``."""
    pixels, side = 4, 108
    sheet = Sheet(260)
    for left, align_corners in ((50, False), (618, True)):
        centres = affine_grid(affine(), 1, pixels, align_corners=align_corners)[0, 0, :, 0].tolist()
        sheet.label(left + 2 * side, 28, f"align_corners={align_corners}", fontsize=HEADING)
        for i, x in enumerate(centres):
            style = {"facecolor": MODULE_COLOUR, "edgecolor": "black", "linewidth": 1.5}
            sheet.rectangle(left + i * side, 105, side, side, **style)
            middle = left + (i + 0.5) * side
            sheet.axes.plot(middle, 105 + side / 2, "o", color="black", markersize=7)
            sheet.label(middle, 236, f"{x:.2f}")
        step = (centres[-1] - centres[0]) / (pixels - 1)
        for end in (-1, 1):
            place = left + ((end - centres[0]) / step + 0.5) * side
            sheet.axes.plot((place, place), (92, 105 + side), color=FRAME_COLOUR, linewidth=3)
            sheet.label(place, 74, str(end), FRAME_COLOUR, fontsize=HEADING, weight="bold")
    return sheet.figure


def collapse() -> Figure:
    """A healthy and a collapsed transformer as in the report, with the warning of the log."""
    groups = {
        "healthy": torch.cat([affine(0.85, 12, x=0.05), affine(0.9, 22, y=-0.04)]),
        "collapsed": affine(1.43).repeat(2, 1, 1),
    }
    images = _digits_on_colours()
    normalise = channel_statistics(images)
    sheet = Sheet(700)
    _rows(sheet, 180, 395)
    for left, (title, theta) in zip((50, 590), groups.items(), strict=True):
        outputs = normalise.undo(warped(normalise(images), theta))
        for i in range(len(images)):
            centre = left + 120 + 240 * i
            _show_sampled(sheet.square(centre, 180, 235, reach=1.46), images[i : i + 1], theta[i : i + 1])
            sheet.image(centre, 395, 161, outputs[i : i + 1])
        statistics = theta_statistics(theta, SIDE, SIDE)
        warning = collapse_warning(statistics)
        sheet.label(left + 240, 26, title, fontsize=HEADING, weight="bold")
        numbers = f"scale {statistics['theta_scale_mean']:.2f},  outside {statistics['theta_outside']:.0%}"
        sheet.label(left + 240, 508, numbers, fontsize=HEADING)
        if warning:
            sheet.rectangle(left - 26, 545, 526, 140, facecolor=DATA_COLOUR)
            lines = textwrap.fill(f"Warning: {warning}", 44)
            sheet.label(left - 14, 615, lines, fontsize=16, ha="left", linespacing=1.25)
        else:
            sheet.label(left + 240, 566, "no warning", FADED)
    return sheet.figure


PICTURES = {"stn": stn, "grid": grid, "corners": corners, "collapse": collapse}


def _digits_on_colours() -> Tensor:
    """Two test images uint8 (2, 3, 32, 32), dark on colours: a black ground would hide a black border."""
    chosen = digits().test.images[[87, 41]].float() / 255
    ground = torch.tensor(GROUNDS).view(-1, 3, 1, 1)
    return ((1 - chosen) * ground * 255).round().byte()


def _show_sampled(axes: Axes, image: Tensor, theta: Tensor) -> None:
    """Draw an image and the outline of the area that theta samples."""
    show(axes, image)
    outline = sampled_corners(theta)[0].numpy()
    axes.add_patch(Polygon(outline, fill=False, edgecolor=FRAME_COLOUR, linewidth=2.5, clip_on=False))


def _rows(sheet: Sheet, above: float, below: float) -> None:
    """Label the two rows of images."""
    for y, text in ((above, "input"), (below, "output")):
        sheet.label(24, y, text, rotation=90)
