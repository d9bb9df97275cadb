"""Statistics of an affine theta: scale, angle, shift, share outside the frame, and how much it differs between images.

theta (B, 2, 3) maps output to input coordinates in [-1, 1]: a scale above 1 shrinks what is shown.
"""

import math

import torch
from torch import Tensor

from components.transforms import affine_grid

LEAST_SCALE, GREATEST_SCALE = 0.8, 1.25
GREATEST_SHARE_OUTSIDE = 0.25
LEAST_SPREAD = 0.05  # of the shorter side; in the runs of tuned in results/ it is 0.007 to 0.024


def theta_statistics(
    theta: Tensor, height: int, width: int, output_size: tuple[int, int] | None = None
) -> dict[str, float]:
    """Return mean and standard deviation of theta's scale, angle and shift over a set of images.

    Args:
        theta: (B, 2, 3).
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        output_size: Height and width of the output; the images' by default.

    Returns:
        ``theta_scale``: sqrt(abs(det)) in pixels, the input pixels that one output pixel spans.
        ``theta_angle``: rotation of the pixels in degrees, circular mean and spread.
        ``theta_shift_x`` and ``theta_shift_y``: in half widths and half heights of the image.
        ``theta_outside``: share of the sampled points that lie outside the frame.
        ``theta_spread``: root mean square distance in pixels of the corners of the sampled area from where the mean
            theta puts them; not of a single image.
    """
    theta = theta.detach().cpu().double()
    (a, b, x), (c, d, y) = (row.unbind(1) for row in theta.unbind(1))
    direction = _directions(theta_angles(theta, height, width)).mean()
    spans = math.sqrt(height * width / math.prod(output_size or (height, width)))
    values = {"theta_scale": spans * (a * d - b * c).abs().sqrt(), "theta_shift_x": x, "theta_shift_y": y}
    statistics = {}
    for name, value in values.items():
        statistics[f"{name}_mean"] = value.mean().item()
        statistics[f"{name}_std"] = value.std(correction=0).item()
    statistics["theta_angle_mean"] = direction.angle().rad2deg().item()
    statistics["theta_angle_std"] = (2 * direction.abs().clamp(1e-12, 1).log().abs()).sqrt().rad2deg().item()
    outside = [(affine_grid(part, height, width).abs() > 1).any(-1).double().sum() for part in theta.split(1000)]
    statistics["theta_outside"] = (torch.stack(outside).sum() / (len(theta) * height * width)).item()
    if len(theta) > 1:
        corners = sampled_corners(theta) * theta.new_tensor([width / 2, height / 2])
        statistics["theta_spread"] = (corners - corners.mean(0)).square().sum(-1).mean().sqrt().item()
    return statistics


def theta_angles(theta: Tensor, height: int, width: int) -> Tensor:
    """Return the rotation of the pixels in radians, -pi to pi: (B, 2, 3) -> (B,) on the CPU."""
    (a, b, _), (c, d, _) = (row.unbind(1) for row in theta.detach().cpu().double().unbind(1))
    stretch = width / height  # theta counts in halves of the image, which are of two lengths
    return torch.atan2(c / stretch - b * stretch, a + d)


def circular_correlation(angles: Tensor, others: Tensor) -> float:
    """Return the circular correlation coefficient of pairs of angles in radians, 0 where one of both is constant.

    E sin(a - mu) sin(b - nu) / sqrt(E sin^2(a - mu) E sin^2(b - nu)), Jammalamadaka and SenGupta, Topics in Circular
    Statistics (2001), section 8.2. Around a whole circle mean directions are chance; mu and nu are therefore those with
    which the numerator is (R(a - b) - R(a + b)) / 2, R being the length of the mean of unit vectors, as they propose.
    """
    difference, total = (_directions(each).mean().angle() for each in (angles - others, angles + others))
    a, b = (angles - (total + difference) / 2).sin(), (others - (total - difference) / 2).sin()
    scale = (a.square().mean() * b.square().mean()).sqrt()
    return ((a * b).mean() / scale).item() if scale > 1e-6 else 0.0


def _directions(angles: Tensor) -> Tensor:
    """Unit vectors, as complex numbers."""
    return torch.polar(torch.ones_like(angles), angles)


def collapse_warning(statistics: dict[str, float], allowed: float | None = 0.0) -> str:
    """Return a warning if the transformer shrinks, magnifies or loses the images, else an empty string.

    Args:
        statistics: Of theta.
        allowed: Share of points outside the frame that undoing the poses of the images takes; None where the
            transformer is told which part of each image to show, of whatever size that is.
    """
    scale, outside = statistics["theta_scale_mean"], statistics["theta_outside"]
    if allowed is None and not math.isnan(scale):
        return ""
    if LEAST_SCALE <= scale <= GREATEST_SCALE and outside <= (allowed or 0) + GREATEST_SHARE_OUTSIDE:
        return ""
    if math.isnan(scale):
        shown = "images at places that are not finite"
    elif scale < 0.001:
        shown = "next to one point of the images"
    elif scale < 1000:
        shown = f"the images at {1 / scale:.0%} of their size"
    else:
        shown = "the images at next to no size"
    return (
        f"the spatial transformer shows {shown} and samples {outside:.0%} of its points outside the frame "
        f"(mean scale of theta {scale:.2f}, normal from {LEAST_SCALE} to {GREATEST_SCALE})"
    )


def idle_warning(statistics: dict[str, float], height: int, width: int) -> str:
    """Return a warning if the transformer does the same to images of this size, else an empty string."""
    spread, least = statistics.get("theta_spread", math.nan), LEAST_SPREAD * min(height, width)
    if not spread < least:  # or it is not finite
        return ""
    return (
        f"the spatial transformer does the same to every image: the corners of what it samples move by {spread:.2f} "
        f"pixels from image to image (root mean square), where at least {least:.2f} are wanted"
    )


def theta_remark(statistics: dict[str, float], height: int, width: int, allowed: float | None = 0.0) -> str:
    """Return the statistics of images of this size as one line for the log, with a further line for each warning."""
    parts = [
        f"{name.replace('_', ' ')} {statistics[f'theta_{name}_mean']:.3f} ± {statistics[f'theta_{name}_std']:.3f}{unit}"
        for name, unit in (("scale", ""), ("angle", "°"), ("shift_x", ""), ("shift_y", ""))
    ]
    parts += [f"{statistics['theta_outside']:.1%} outside the frame"]
    parts += [f"{statistics['theta_spread']:.2f} pixels between images"] if "theta_spread" in statistics else []
    warnings = (collapse_warning(statistics, allowed), idle_warning(statistics, height, width))
    return "\n".join([f"Theta: {', '.join(parts)}", *(f"Warning: {warning}" for warning in warnings if warning)])


def sampled_corners(theta: Tensor) -> Tensor:
    """Map the corners of the output into the input, clockwise from top left: (B, 2, 3) -> (B, 4, 2) in [-1, 1]."""
    corners = theta.new_tensor([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    return torch.einsum("bij,kj->bki", theta, corners)


def sampled_pixels(theta: Tensor, height: int, width: int) -> Tensor:
    """Map the corners of the output into the input, as ``sampled_corners``, in pixels from its left and upper edge."""
    return (sampled_corners(theta) + 1) / 2 * theta.new_tensor([width, height])
