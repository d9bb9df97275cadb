"""Statistics of an affine theta: scale, angle, shift, and the share sampled outside the frame.

theta (B, 2, 3) maps output to input coordinates in [-1, 1]: a scale above 1 shrinks what is shown.
"""

import torch
from torch import Tensor

from components.transforms import affine_grid

LEAST_SCALE, GREATEST_SCALE = 0.8, 1.25
GREATEST_SHARE_OUTSIDE = 0.25


def theta_statistics(theta: Tensor, height: int, width: int) -> dict[str, float]:
    """Return mean and standard deviation of theta's scale, angle and shift over a set of images.

    Returns:
        ``theta_scale``: sqrt(abs(det)), input pixels that one output pixel spans.
        ``theta_angle``: rotation of the pixels in degrees, circular mean and spread.
        ``theta_shift_x`` and ``theta_shift_y``: in half widths and half heights of the image.
        ``theta_outside``: share of the sampled points that lie outside the frame.
    """
    theta = theta.detach().cpu().double()
    (a, b, x), (c, d, y) = (row.unbind(1) for row in theta.unbind(1))
    stretch = width / height  # theta counts in halves of the image, which are of two lengths
    direction = torch.polar(torch.ones_like(a), torch.atan2(c / stretch - b * stretch, a + d)).mean()
    values = {"theta_scale": (a * d - b * c).abs().sqrt(), "theta_shift_x": x, "theta_shift_y": y}
    statistics = {}
    for name, value in values.items():
        statistics[f"{name}_mean"] = value.mean().item()
        statistics[f"{name}_std"] = value.std(correction=0).item()
    statistics["theta_angle_mean"] = direction.angle().rad2deg().item()
    statistics["theta_angle_std"] = (2 * direction.abs().clamp(1e-12, 1).log().abs()).sqrt().rad2deg().item()
    outside = [(affine_grid(part, height, width).abs() > 1).any(-1).double().sum() for part in theta.split(1000)]
    statistics["theta_outside"] = (torch.stack(outside).sum() / (len(theta) * height * width)).item()
    return statistics


def collapse_warning(statistics: dict[str, float]) -> str:
    """Return a warning if the transformer shrinks, magnifies or loses the images, else an empty string."""
    scale, outside = statistics["theta_scale_mean"], statistics["theta_outside"]
    if LEAST_SCALE <= scale <= GREATEST_SCALE and outside <= GREATEST_SHARE_OUTSIDE:
        return ""
    return (
        f"the spatial transformer shows the images at {1 / scale:.0%} of their size and samples {outside:.0%} of its "
        f"points outside the frame (mean scale of theta {scale:.2f}, normal from {LEAST_SCALE} to {GREATEST_SCALE})"
    )


def theta_remark(statistics: dict[str, float]) -> str:
    """Return the statistics as one line for the log, with a possible warning on a second line."""
    parts = [
        f"{name.replace('_', ' ')} {statistics[f'theta_{name}_mean']:.3f} ± {statistics[f'theta_{name}_std']:.3f}{unit}"
        for name, unit in (("scale", ""), ("angle", "°"), ("shift_x", ""), ("shift_y", ""))
    ]
    line = f"Theta: {', '.join(parts)}, {statistics['theta_outside']:.1%} outside the frame"
    warning = collapse_warning(statistics)
    return f"{line}\nWarning: {warning}" if warning else line


def sampled_corners(theta: Tensor) -> Tensor:
    """Map the corners of the output into the input, clockwise from top left: (B, 2, 3) -> (B, 4, 2) in [-1, 1]."""
    corners = theta.new_tensor([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    return torch.einsum("bij,kj->bki", theta, corners)
