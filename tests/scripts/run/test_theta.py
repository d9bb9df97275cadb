"""Theta's statistics against closed forms for scale, angle, shift, share outside and spread; and the two warnings."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.run.folder import read_metrics
from scripts.run.theta import (
    circular_correlation,
    collapse_warning,
    idle_warning,
    sampled_corners,
    theta_remark,
    theta_statistics,
)
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.sources import ROOT
from tests.support.strategies import generator, random_theta, seeds

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


def test_scale_counts_the_pixels_of_input_and_output_whatever_their_sizes() -> None:
    """A crop of half the sides, shown at its own size, is neither shrunk nor magnified."""
    for output_size, expected in (((30, 15), 1), ((60, 30), 0.5), (None, 0.5), ((15, 30), 1), ((10, 5), 3)):
        found = theta_statistics(similarity(0.5, 30, height=60, width=30), 60, 30, output_size)
        assert found["theta_scale_mean"] == pytest.approx(expected)
        assert found["theta_outside"] == 0


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
    moved = torch.cat([similarity(1, 0, x=x) for x in (0.0, 0.25)])
    assert theta_remark(theta_statistics(moved, 32, 32), 32, 32) == (
        "Theta: scale 1.000 ± 0.000, angle 0.000 ± 0.000°, shift x 0.125 ± 0.125, shift y 0.000 ± 0.000, "
        "6.2% outside the frame, 2.00 pixels between images"
    )
    shrunk = torch.cat([similarity(1.43, 0, x=x) for x in (0.0, 0.25)])
    collapsed = theta_remark(theta_statistics(shrunk, 32, 32), 32, 32).splitlines()
    assert len(collapsed) == 2
    assert collapsed[1].startswith("Warning: the spatial transformer shows the images at 70%")


@pytest.mark.parametrize(("scale", "seen"), [
    (0.0, "next to one point of the images"), (1e-40, "next to one point of the images"),
    (1e9, "the images at next to no size"),
    (math.nan, "images at places that are not finite"),
])  # fmt: skip
def test_the_worst_collapse_is_told_too(scale: float, seen: str) -> None:
    statistics = theta_statistics(similarity(1, 0).repeat(3, 1, 1) * scale, 32, 32)
    assert collapse_warning(statistics).startswith(f"the spatial transformer shows {seen} and samples ")
    assert theta_remark(statistics, 32, 32).count("Warning") == (1 if math.isnan(scale) else 2), "NaN is not idle"


def test_of_a_single_image_nobody_can_say_that_all_are_treated_alike() -> None:
    statistics = theta_statistics(similarity(1, 0), 32, 32)
    assert "theta_spread" not in statistics
    assert "Warning" not in theta_remark(statistics, 32, 32)


@given(seeds, st.integers(1, 99), st.integers(1, 99))
def test_spread_is_how_far_in_pixels_the_corners_are_from_those_of_the_mean_theta(
    seed: int, height: int, width: int
) -> None:
    theta = random_theta(seed, 5)
    corners = torch.tensor([[x, y, 1] for x in (-1, 1) for y in (-1, 1)]).double()
    pixels = torch.tensor([width / 2, height / 2]).double()
    squares = [((pixels * ((one - theta.mean(0)) @ corner)) ** 2).sum().item() for one in theta for corner in corners]
    assert theta_statistics(theta, height, width)["theta_spread"] == pytest.approx(math.sqrt(sum(squares) / 20))


@given(scales, angles, shifts, shifts)
def test_one_theta_for_all_images_has_no_spread(scale: float, degrees: float, x: float, y: float) -> None:
    found = theta_statistics(similarity(scale, degrees, x, y).repeat(5, 1, 1), 8, 8)
    assert found["theta_spread"] == pytest.approx(0, abs=1e-6)
    assert "same to every image" in idle_warning(found, 8, 8)


def spread_of(row: dict[str, float]) -> dict[str, float]:
    """The statistics of sixteen thetas with the means and the spreads that a run has recorded."""
    names = ("scale", "angle", "shift_x", "shift_y")
    parts = [[row[f"theta_{name}_mean"] + sign * row[f"theta_{name}_std"] for sign in (-1, 1)] for name in names]
    return theta_statistics(torch.cat([similarity(*each) for each in product(*parts)]), 32, 32)


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("recipe", ("tuned", "tutorial"))
def test_the_recorded_runs_end_with_the_idle_warning(recipe: str, seed: int) -> None:
    """They were published as transformers that work; those of tutorial collapsed, which is another thing."""
    found = spread_of(read_metrics(ROOT / "scripts" / "results" / f"{recipe}-seed{seed}")[-1])
    assert "same to every image" in idle_warning(found, 32, 32)
    assert bool(collapse_warning(found)) == (recipe == "tutorial")


def test_the_idle_warning_says_how_far_images_differ_and_from_where_on_they_do_enough() -> None:
    """A twentieth of the shorter side, whatever the size of the images."""
    moved = torch.cat([similarity(1, 0, x=x) for x in (-0.05, 0.05)])
    assert idle_warning(theta_statistics(moved, 32, 32), 32, 32) == (
        "the spatial transformer does the same to every image: the corners of what it samples move by 0.80 pixels from "
        "image to image (root mean square), where at least 1.60 are wanted"
    )
    assert idle_warning(theta_statistics(moved, 224, 224), 224, 224), "5.6 pixels of 224 are as little"
    for size in ((32, 32), (224, 224), (30, 400)):
        turned = torch.cat([similarity(1, degrees, 0, 0, *size) for degrees in (-5, 5)])
        assert idle_warning(theta_statistics(turned, *size), *size) == ""


def test_both_warnings_may_be_given_at_once() -> None:
    lines = theta_remark(theta_statistics(similarity(1.43, 0).repeat(2, 1, 1), 32, 32), 32, 32).splitlines()
    assert [line.split(":")[0] for line in lines] == ["Theta", "Warning", "Warning"]
    assert "of their size" in lines[1]
    assert "same to every image" in lines[2]


def uniform(seed: int, count: int, largest: float = math.pi) -> torch.Tensor:
    return (torch.rand(count, generator=generator(seed), dtype=torch.float64) * 2 - 1) * largest


@given(seeds, st.floats(-7, 7))
def test_the_circular_correlation_of_angles_that_differ_by_a_constant_is_one(seed: int, offset: float) -> None:
    for angles in (uniform(seed, 100), uniform(seed, 100, math.pi / 4), uniform(seed, 100).div(math.pi / 4).round()):
        assert circular_correlation(angles, angles + offset) == pytest.approx(1)
        assert circular_correlation(angles, offset - angles) == pytest.approx(-1)


def test_the_circular_correlation_is_the_share_that_follows_on_the_whole_circle() -> None:
    """Where mean directions say nothing, and a turn by 359 degrees is one by -1."""
    angles, others = uniform(1, 20_000), uniform(2, 20_000)
    follows = torch.rand(20_000, generator=generator(3)) < 0.63
    assert circular_correlation(angles, torch.where(follows, angles + 1, others)) == pytest.approx(0.63, abs=0.03)
    assert circular_correlation(angles, others) == pytest.approx(0, abs=0.03)


@given(seeds)
def test_within_a_quarter_the_circular_correlation_is_that_of_sines_around_the_means(seed: int) -> None:
    """The definition, where both means are clear; a constant angle has none."""
    angles = uniform(seed, 4000, 0.6)
    others = 0.5 * angles + uniform(seed + 1, 4000, 0.3) + 2

    def sines(x: torch.Tensor) -> torch.Tensor:
        return (x - torch.polar(torch.ones_like(x), x).mean().angle()).sin()

    a, b = sines(angles), sines(others)
    expected = (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()
    assert circular_correlation(angles, others) == pytest.approx(expected.item(), abs=0.02)
    assert circular_correlation(angles, torch.full_like(angles, 2.0)) == 0


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
