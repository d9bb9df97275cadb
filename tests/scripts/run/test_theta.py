"""Theta's statistics against closed forms for scale, angle, shift and the share outside; and the collapse warning."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.run.theta import collapse_warning, sampled_corners, theta_remark, theta_statistics
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.strategies import random_theta, seeds

pytestmark = pytest.mark.numerics

angles = st.floats(-179, 179)
scales = st.floats(0.2, 3)
shifts = st.floats(-1, 1)


def similarity(
    scale: float, degrees: float, x: float = 0.0, y: float = 0.0, height: int = 8, width: int = 8
) -> torch.Tensor:
    """Pixels turned and scaled, as theta counts them: in halves of the image."""
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[[c, -s * height / width, x], [s * width / height, c, y]]], dtype=torch.float64)


@given(scales, angles, shifts, shifts, st.integers(1, 99), st.integers(1, 99))
def test_scale_angle_and_shift_of_a_similarity_are_recovered(
    scale: float, degrees: float, x: float, y: float, height: int, width: int
) -> None:
    theta = similarity(scale, degrees, x, y, height, width).repeat(3, 1, 1)
    found = theta_statistics(theta, height, width)
    assert found["theta_scale_mean"] == pytest.approx(scale)
    assert found["theta_angle_mean"] == pytest.approx(degrees, abs=1e-6)
    assert (found["theta_shift_x_mean"], found["theta_shift_y_mean"]) == (pytest.approx(x), pytest.approx(y))
    assert [found[f"theta_{name}_std"] for name in ("scale", "shift_x", "shift_y")] == pytest.approx(
        [0, 0, 0], abs=1e-7
    )
    assert found["theta_angle_std"] == pytest.approx(0, abs=1e-3)


def test_spread_is_the_standard_deviation_over_the_images() -> None:
    found = theta_statistics(torch.cat([similarity(0.5, -20), similarity(1.5, 20)]), 8, 8)
    assert (found["theta_scale_mean"], found["theta_scale_std"]) == (pytest.approx(1), pytest.approx(0.5))
    assert found["theta_angle_mean"] == pytest.approx(0, abs=1e-9)
    assert found["theta_angle_std"] == pytest.approx(20, rel=0.05)


def test_angles_around_half_a_turn_do_not_cancel() -> None:
    found = theta_statistics(torch.cat([similarity(1, 175), similarity(1, -175)]), 8, 8)
    assert abs(found["theta_angle_mean"]) == pytest.approx(180)
    assert found["theta_angle_std"] == pytest.approx(5, rel=0.05)


@given(st.integers(1, 15))
def test_a_shift_by_k_of_16_pixels_puts_k_sixteenths_outside(pixels: int) -> None:
    found = theta_statistics(similarity(1, 0, x=2 * pixels / 16), 16, 16)
    assert found["theta_outside"] == pytest.approx(pixels / 16)


def test_the_share_outside_follows_from_the_scale() -> None:
    assert theta_statistics(similarity(0.7, 0), 100, 100)["theta_outside"] == 0
    assert theta_statistics(similarity(2.0, 0), 100, 100)["theta_outside"] == pytest.approx(0.75)


def test_the_collapse_warning_gives_the_size_at_which_images_are_shown() -> None:
    warning = collapse_warning(theta_statistics(similarity(1.43, 0), 32, 32))
    assert "shows the images at 70% of their size" in warning
    assert "\n" not in warning
    assert collapse_warning(theta_statistics(similarity(0.5, 0), 32, 32))
    assert collapse_warning(theta_statistics(similarity(1.0, 0, x=0.8), 32, 32)), "nothing shrinks, 40 % is outside"
    assert collapse_warning(theta_statistics(similarity(1.1, 5), 32, 32)) == ""


def test_the_log_line_has_every_statistic_and_a_warning_is_a_second_line() -> None:
    normal = theta_remark(theta_statistics(similarity(1, 0, x=0.25), 32, 32))
    assert normal == (
        "Theta: scale 1.000 ± 0.000, angle 0.000 ± 0.000°, shift x 0.250 ± 0.000, shift y 0.000 ± 0.000, "
        "12.5% outside the frame"
    )
    collapsed = theta_remark(theta_statistics(similarity(1.43, 0), 32, 32)).splitlines()
    assert len(collapsed) == 2
    assert collapsed[1].startswith("Warning: the spatial transformer shows the images at 70%")


@given(seeds)
def test_the_outline_is_the_image_of_the_output_corners(seed: int) -> None:
    theta = random_theta(seed, 3)
    top_left = theta @ torch.tensor([-1.0, -1, 1]).double()
    bottom_right = theta @ torch.tensor([1.0, 1, 1]).double()
    torch.testing.assert_close(sampled_corners(theta)[:, 0], top_left)
    torch.testing.assert_close(sampled_corners(theta)[:, 2], bottom_right)


@pretends_cuda
def test_statistics_need_no_float64_on_the_device() -> None:
    """Apple's GPUs have none."""
    with fake_cuda.gpu() as traffic:
        theta_statistics(torch.zeros(7, 2, 3, device="cuda:0"), 8, 8)
    assert traffic.waits == 1, "theta is fetched once"
