"""Mistakes in the transforms of a spatial transformer."""

import math

import torch
from torch import Tensor

from components import transforms
from components.transforms import (
    Affine,
    MatrixTransform,
    Projective,
    Rotation,
    Similarity,
    ThinPlateSpline,
    affine_grid,
    bounded,
    product,
    similarity_matrix,
)  # fmt: skip
from tests.components import test_spatial_transformer as laws
from tests.components import test_transforms as transform_laws
from tests.museum.exhibits import exhibit

basis = transforms._basis


@exhibit(affine_grid, laws.test_identity_returns_the_input, align_corners=True)
def corners_of_the_sampling(theta, height, width, align_corners=False, samples=1):
    """``align_corners`` reaches the sampling but not the grid (kornia/kornia#1651)."""
    return affine_grid(theta, height, width, samples=samples)


@exhibit(affine_grid, laws.test_identity_returns_the_input, align_corners=False)
def centres_for_edges(theta, height, width, align_corners=False, samples=1):
    """Coordinates of pixel centres are read as those of edges: the last row and column are lost."""
    # tensorflow/models#2016, tensorflow/models#7564, kornia/kornia#747, kornia/kornia#3904, kornia/kornia#4411
    return affine_grid(theta, height, width, align_corners=True, samples=samples)


@exhibit(affine_grid, laws.test_a_shift_by_whole_pixels_is_exact, align_corners=False)
def theta_inverted(theta, height, width, align_corners=False, samples=1):
    """Theta maps input to output coordinates, so a shift goes the other way (pytorch/pytorch#35775)."""
    inverse = theta[:, :, :2].inverse()
    theta = torch.cat([inverse, -inverse @ theta[:, :, 2:]], 2)
    return affine_grid(theta, height, width, align_corners=align_corners, samples=samples)


@exhibit(affine_grid, laws.test_the_grid_is_that_of_torch, align_corners=False)
def y_before_x(theta, height, width, align_corners=False, samples=1):
    """The grid has y before x (voxelmorph/voxelmorph#652)."""
    return affine_grid(theta, height, width, align_corners=align_corners, samples=samples).flip(-1)


@exhibit(affine_grid, laws.test_x_and_y_lie_in_separate_planes_of_the_grid)
def pairs(theta, height, width, align_corners=False, samples=1):
    """The grid has x and y in pairs, which are sampled more slowly."""
    return affine_grid(theta, height, width, align_corners=align_corners, samples=samples).contiguous()


@exhibit(affine_grid, laws.test_samples_lie_around_the_centre_of_their_pixel, align_corners=True, transform=Affine())
def samples_from_corner_to_corner(theta, height, width, align_corners=False, samples=1):
    """The samples of all pixels together span what their centres should: the image is enlarged."""
    return affine_grid(theta, height * samples, width * samples, align_corners=align_corners)


@exhibit(similarity_matrix, transform_laws.test_a_turn_keeps_shapes_in_pixels, align_corners=False)
def turned_in_the_square(angle, log_scale, shift_x, shift_y, aspect):
    """The image is turned as if it were square, and sheared where it is not."""
    return similarity_matrix(angle, log_scale, shift_x, shift_y, 1.0)


@exhibit(similarity_matrix, transform_laws.test_a_turn_keeps_shapes_in_pixels, align_corners=True)
def aspect_upside_down(angle, log_scale, shift_x, shift_y, aspect):
    """Height by width in place of width by height."""
    return similarity_matrix(angle, log_scale, shift_x, shift_y, 1 / aspect)


@exhibit(Rotation.theta, transform_laws.test_quarter_turns_are_rot90, align_corners=False)
def degrees(self, params, aspect):
    """The angle is read as degrees."""
    angle = params[:, 0].deg2rad()
    return similarity_matrix(angle, 0 * angle, 0 * angle, 0 * angle, aspect)


@exhibit(similarity_matrix, transform_laws.test_quarter_turns_are_rot90, align_corners=True)
def other_way_round(angle, log_scale, shift_x, shift_y, aspect):
    """The sign of the sine is that of an axis that points up."""
    return similarity_matrix(-angle, log_scale, shift_x, shift_y, aspect)


@exhibit(Similarity.theta, transform_laws.test_the_grid_is_that_of_single_points, transform=Similarity())
def scale_without_logarithm(self, params, aspect):
    """The scale is one plus the parameter: it can be zero or negative."""
    angle, scale, x, y = params.unbind(1)
    return similarity_matrix(angle, (1 + scale).clamp(min=1e-3).log(), x, y, aspect)


@exhibit(bounded, transform_laws.test_bounds_are_approached_and_never_passed,
         transform=Rotation(max_angle=30), bounds=(math.pi / 6,))  # fmt: skip
def slope_of_the_bound(value, bound):
    """Small values are multiplied by the bound."""
    return value if bound is None else bound * value.tanh()


@exhibit(bounded, transform_laws.test_bounds_are_approached_and_never_passed,
         transform=Rotation(max_angle=30), bounds=(math.pi / 6,))  # fmt: skip
def without_bound(value, bound):
    """The bound is not kept."""
    return value


@exhibit(MatrixTransform.compose, transform_laws.test_composed_theta_takes_points_through_both, transform=Affine())
def other_order(self, first, second):
    """The second warp is applied before the first."""
    bottom = first.new_tensor([[[0, 0, 1]]]).expand(len(first), -1, -1)
    return second @ torch.cat([first, bottom], 1)


@exhibit(MatrixTransform.compose, transform_laws.test_composed_theta_takes_points_through_both, transform=Similarity())
def shifts_added(self, first, second):
    """Shifts are added, though the first matrix turns the second shift."""
    return torch.cat([first[:, :, :2] @ second[:, :, :2], first[:, :, 2:] + second[:, :, 2:]], 2)


@exhibit(MatrixTransform.inverse, transform_laws.test_the_inverse_undoes, transform=Affine())
def shift_negated(self, theta):
    """The inverse has the negative shift, not turned back."""
    return torch.cat([torch.linalg.inv(theta[:, :, :2]), -theta[:, :, 2:]], 2)


@exhibit(Projective.grid, transform_laws.test_the_grid_is_that_of_single_points, transform=Projective())
def no_perspective(self, theta, height, width, *, align_corners=False, samples=1):
    """Points are not divided by their third coordinate."""
    return affine_grid(theta[:, :2], height, width, align_corners=align_corners, samples=samples)


@exhibit(
    Projective.grid, transform_laws.test_a_homography_that_sends_points_to_infinity_stays_finite_with_its_gradients
)
def division_by_zero(self, theta, height, width, *, align_corners=False, samples=1):
    """A point at infinity is NaN, and so are all gradients."""
    points = transforms.linear_grid(theta, height, width, align_corners, samples)
    return (points[:, :2] / points[:, 2:]).permute(0, 2, 3, 1)


@exhibit(basis, transform_laws.test_a_spline_is_that_of_scipy)
def distance_not_squared(places: Tensor, control: Tensor) -> Tensor:
    """The bump is r log r: not the smoothest map."""
    _, *rest = basis(places, control).split([control.shape[1], 1, 2], -2)
    distances = torch.cdist(control.T.expand(*places.shape[:-2], -1, -1), places.mT).clamp(min=1e-12)
    return torch.cat([distances * distances.log(), *rest], -2)


@exhibit(basis, transform_laws.test_the_identity_returns_the_input,
         transform=ThinPlateSpline(3), align_corners=True)  # fmt: skip
def logarithm_of_zero(places: Tensor, control: Tensor) -> Tensor:
    """At a control point zero is multiplied by the logarithm of zero."""
    squares = (places.unsqueeze(-2) - control.unsqueeze(-1)).square().sum(-3)
    return torch.cat([squares * squares.log(), torch.ones_like(places[..., :1, :]), places], -2)


@exhibit(ThinPlateSpline.compose, transform_laws.test_composed_splines_take_the_control_points_through_both)
def offsets_added(self, first: Tensor, second: Tensor) -> Tensor:
    """Offsets are added, though the second moves the points to where the first has others."""
    return first + second - self._control(first).T


@exhibit(product, transform_laws.test_autocast_leaves_coordinates_alone, transform=ThinPlateSpline(3))
def coordinates_under_autocast(a: Tensor, b: Tensor) -> Tensor:
    """Autocast computes coordinates in bfloat16."""
    return a @ b


@exhibit(product, transform_laws.test_faster_matrix_products_leave_coordinates_alone, transform=Similarity())
def coordinates_in_tf32(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product rounds coordinates where ``torch.set_float32_matmul_precision`` allows it."""
    with torch.autocast("cpu", enabled=False):
        return a @ b
