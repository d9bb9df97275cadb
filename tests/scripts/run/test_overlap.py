"""The overlap of what a transformer samples and the box of an object."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from components.transforms import Affine, affine_grid
from scripts.run.overlap import overlap
from scripts.run.theta import sampled_corners

BOX = (10.0, 20.0, 30.0, 20.0)  # left, top, width, height
UNIT = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]


def placed(corners: list[tuple[float, float]]) -> Tensor:
    """Corners as shares of the sides of the box."""
    return torch.tensor([[BOX[0] + BOX[2] * x, BOX[1] + BOX[3] * y] for x, y in corners])


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        (UNIT, 1),
        (UNIT[::-1], 1),
        (UNIT[2:] + UNIT[:2], 1),
        ([(x + 0.5, y) for x, y in UNIT], 1 / 3),
        ([(x / 2, y / 2) for x, y in UNIT], 1 / 4),
        ([(2 * x - 0.5, 2 * y - 0.5) for x, y in UNIT], 1 / 4),
        ([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)], 1 / 2),
        ([(0.5, -0.5), (1.5, 0.5), (0.5, 1.5), (-0.5, 0.5)], 1 / 2),
        ([(x + 1, y) for x, y in UNIT], 0),
        ([(x - 7, y + 5) for x, y in UNIT], 0),
        ([(0.5, 0.5)] * 4, 0),
    ],
    ids=("the box", "mirrored", "turned", "shifted by half", "a quarter", "four times", "a rhombus inside",
         "a rhombus outside", "beside it", "far away", "a point"),
)  # fmt: skip
def test_the_overlap_is_the_area_in_both_over_the_area_in_either(
    corners: list[tuple[float, float]], expected: float
) -> None:
    assert overlap(placed(corners), torch.tensor(BOX)) == pytest.approx(expected, abs=1e-6)


@given(st.floats(-math.pi, math.pi), st.floats(0.3, 1.5), st.floats(0.3, 1.5), st.floats(-0.5, 0.5), st.floats(-1, 1))
def test_the_overlap_of_any_theta_is_that_of_a_fine_grid_of_points(
    angle: float, across: float, down: float, shear: float, shift: float
) -> None:
    cos, sin = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[[cos * across, shear - sin, shift], [sin, cos * down, -shift / 2]]], dtype=torch.double)
    area = abs(torch.linalg.det(theta[0, :, :2]).item())
    box = torch.tensor([-0.6, -0.5, 1.3, 0.8], dtype=torch.double)
    x, y = affine_grid(theta, 150, 150).reshape(-1, 2).unbind(1)
    inside = (x > box[0]) & (x < box[0] + box[2]) & (y > box[1]) & (y < box[1] + box[3])
    both = inside.double().mean().item() * 4 * area
    expected = both / (4 * area + (box[2] * box[3]).item() - both)
    assert overlap(sampled_corners(theta)[0], box) == pytest.approx(expected, abs=0.02)
    mirrored = Affine().compose(theta, torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]], dtype=torch.double))
    assert overlap(sampled_corners(mirrored)[0], box) == pytest.approx(overlap(sampled_corners(theta)[0], box))
