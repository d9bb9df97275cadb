"""Laws of the transforms: identity, inverse, composition and bounds, for both values of ``align_corners``."""

import math
import re
from fractions import Fraction
from functools import partial
from numbers import Real

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from components import SpatialTransformer
from components.transforms import (
    Affine,
    MatrixTransform,
    Projective,
    Rotation,
    Similarity,
    ThinPlateSpline,
    Transform,
    Translation,
)
from tests.contract.cases import Returns
from tests.reference.spatial_transformer import through
from tests.support.strategies import batch_sizes, generator, padding_modes, random_images, seeds, sides

pytestmark = pytest.mark.numerics

MATRICES = (Translation(), Rotation(), Similarity(), Affine())
INVERTIBLE = (*MATRICES, Projective())
FAMILIES = (*INVERTIBLE, ThinPlateSpline(2), ThinPlateSpline(3))
LIMITED = Similarity(max_angle=45, max_scale=1.5, max_shift=0.3)

corners = pytest.mark.parametrize("align_corners", (False, True))
families = pytest.mark.parametrize("transform", FAMILIES, ids=str)
invertible = pytest.mark.parametrize("transform", INVERTIBLE, ids=str)


def params_of(transform: Transform, seed: int, batch: int, spread: float = 0.2) -> Tensor:
    """Parameters around the identity."""
    noise = torch.randn((batch, transform.num_params), generator=generator(seed), dtype=torch.float64)
    return torch.tensor(transform.identity, dtype=torch.float64) + spread * noise


def random_theta(transform: Transform, seed: int, batch: int, aspect: float = 1.0) -> Tensor:
    return transform.theta(params_of(transform, seed, batch), aspect)


def applied(theta: Tensor, points: Tensor) -> Tensor:
    """Points (B, h, w, 2) through a matrix (B, 2, 3) or (B, 3, 3), with matrix products."""
    x = torch.cat([points, torch.ones_like(points[..., :1])], 3).flatten(1, 2) @ theta.mT
    return (x[..., :2] / x[..., 2:] if theta.shape[1] == 3 else x).view(points.shape)


def upright(height: int, width: int, align_corners: bool) -> Tensor:
    """The coordinates of the pixels themselves."""
    return F.affine_grid(torch.eye(2, 3, dtype=torch.float64)[None], (1, 1, height, width), align_corners)


@families
@given(seeds, batch_sizes, st.floats(0.3, 3))
def test_the_grid_is_that_of_single_points(transform: Transform, seed: int, batch: int, aspect: float) -> None:
    params = params_of(transform, seed, batch)
    grid = transform.grid(transform.theta(params, aspect), 2, 3)
    maps = [through(transform, each, aspect, 1.0) for each in params.tolist()]
    points = upright(2, 3, False)[0].flatten(0, 1).tolist()
    expected = torch.tensor([[each(*point) for point in points] for each in maps], dtype=torch.float64)
    torch.testing.assert_close(grid.flatten(1, 2), expected, atol=1e-10, rtol=1e-10)


@families
@corners
@given(seeds, batch_sizes, sides, sides, padding_modes)
def test_the_identity_returns_the_input(transform, align_corners, seed: int, batch: int, h: int, w: int, mode) -> None:
    x = random_images(seed, batch, 2, h, w)
    localization = Returns(torch.tensor([transform.identity] * batch, dtype=torch.float64))
    options = {"padding_mode": mode, "align_corners": align_corners}
    same = SpatialTransformer(localization, transform=transform, steps=2, **options)(x)
    torch.testing.assert_close(same, x, atol=1e-11, rtol=0)
    assert transform.num_params == len(transform.identity)


@invertible
@given(seeds, batch_sizes, st.floats(0.3, 3))
def test_composed_theta_takes_points_through_both(transform: Transform, seed: int, batch: int, aspect: float) -> None:
    first, second = random_theta(transform, seed, batch, aspect), random_theta(transform, seed + 1, batch, aspect)
    points = upright(5, 7, False).expand(batch, -1, -1, -1)
    expected = applied(first, applied(second, points))
    torch.testing.assert_close(transform.grid(transform.compose(first, second), 5, 7), expected, atol=1e-9, rtol=1e-9)


@given(seeds, batch_sizes, st.integers(2, 4))
def test_composed_splines_take_the_control_points_through_both(seed: int, batch: int, points: int) -> None:
    spline = ThinPlateSpline(points)
    first, second = random_theta(spline, seed, batch), random_theta(spline, seed + 1, batch)
    landed = torch.stack(
        [
            torch.tensor(
                [through(spline, (one - control(points)).flatten().tolist(), 1, 1)(*p) for p in places.tolist()]
            )
            for one, places in zip(first, second, strict=True)
        ]
    )
    torch.testing.assert_close(spline.compose(first, second).float(), landed, atol=1e-5, rtol=1e-5)


def control(points: int) -> Tensor:
    """The control points are the pixel centres of a small image, where these lie in the corners."""
    return upright(points, points, True)[0].flatten(0, 1)


@invertible
@given(seeds, batch_sizes, st.floats(0.3, 3))
def test_the_inverse_undoes(transform: Transform, seed: int, batch: int, aspect: float) -> None:
    theta = random_theta(transform, seed, batch, aspect)
    for back in (
        transform.compose(theta, transform.inverse(theta)),
        transform.compose(transform.inverse(theta), theta),
    ):
        grid = transform.grid(back, 5, 7)
        torch.testing.assert_close(grid, upright(5, 7, False).expand(batch, -1, -1, -1), atol=1e-8, rtol=0)


@corners
@given(seeds, st.sampled_from((Rotation(), Similarity(), LIMITED)), sides, sides)
def test_a_turn_keeps_shapes_in_pixels(align_corners: bool, seed: int, transform: Transform, h: int, w: int) -> None:
    """The sampled points of any image lie on a square lattice."""
    h, w = h + 1, w + 1
    x = random_images(seed, 1, 1, h, w)
    transformer = SpatialTransformer(nn.Identity(), transform=transform, align_corners=align_corners)
    theta = transformer.theta(params_of(transform, seed, 1, spread=1), x)
    extent = torch.tensor([w - 1, h - 1] if align_corners else [w, h], dtype=torch.float64)
    places = transform.grid(theta, h, w, align_corners=align_corners)[0] * extent / 2  # in pixels
    right, down = places[:, 1:] - places[:, :-1], places[1:] - places[:-1]
    turned = torch.stack([-right[..., 1], right[..., 0]], 2)[:1, :1]
    torch.testing.assert_close(down, turned.expand_as(down), atol=1e-10, rtol=0)
    torch.testing.assert_close(right, right[:1, :1].expand_as(right), atol=1e-10, rtol=0)


@corners
@given(seeds, sides, st.integers(-5, 5))
def test_quarter_turns_are_rot90(align_corners: bool, seed: int, side: int, turns: int) -> None:
    x = random_images(seed, 2, 2, side, side)
    angle = torch.full((2, 1), turns * math.pi / 2, dtype=torch.float64)
    turned = SpatialTransformer(Returns(angle), transform=Rotation(), align_corners=align_corners)(x)
    torch.testing.assert_close(turned, torch.rot90(x, turns, (-2, -1)), atol=1e-10, rtol=0)


@pytest.mark.parametrize("transform", [Rotation(), Similarity(), Affine(), Projective()], ids=str)
@given(seeds)
def test_a_theta_that_follows_the_pose_makes_the_output_independent_of_it(transform: Transform, seed: int) -> None:
    """Equivariance: image(g^-1 p), sampled with theta composed with g, is image(p) sampled with theta."""
    g, theta = random_theta(transform, seed, 1), random_theta(transform, seed + 1, 1)
    undo = transform.inverse(g)

    def image(points: Tensor) -> Tensor:
        """A smooth function of the plane, as no image of pixels can be moved exactly."""
        return torch.sin(3 * points[..., 0]) * torch.cos(2 * points[..., 1] + 1)

    def posed(points: Tensor) -> Tensor:
        ones = torch.ones_like(points[..., :1])
        rows = torch.cat([undo, undo.new_tensor([[[0, 0, 1]]])], 1) if undo.shape[1] == 2 else undo
        moved = torch.cat([points, ones], -1) @ rows[0].T
        return image(moved[..., :2] / moved[..., 2:])

    followed = posed(transform.grid(transform.compose(g, theta), 6, 5))
    torch.testing.assert_close(followed, image(transform.grid(theta, 6, 5)), atol=1e-7, rtol=1e-7)


@families
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_theta_has_the_type_of_the_parameters(transform: Transform, dtype: torch.dtype) -> None:
    assert transform.theta(torch.zeros(2, transform.num_params, dtype=dtype), 1.5).dtype == dtype


@given(seeds, batch_sizes, st.floats(0.3, 3))
def test_parameters_of_a_similarity_are_found_again(seed: int, batch: int, aspect: float) -> None:
    params = params_of(Similarity(), seed, batch)
    torch.testing.assert_close(Similarity.params(Similarity().theta(params, aspect), aspect), params)


BOUNDS = {  # transform, and the bounds of its parameters
    Translation(max_shift=0.3): (0.3, 0.3),
    Rotation(max_angle=30): (math.pi / 6,),
    LIMITED: (math.pi / 4, math.log(1.5), 0.3, 0.3),
}


@pytest.mark.parametrize(("transform", "bounds"), BOUNDS.items(), ids=str)
@given(st.sampled_from((-1, 1)), st.floats(5, 1e6))
def test_bounds_are_approached_and_never_passed(transform: Transform, bounds, sign: int, large: float) -> None:
    unbounded, limits = type(transform)(), torch.tensor([bounds], dtype=torch.float64)
    far = transform.theta(sign * large * torch.ones_like(limits), 1.5)
    torch.testing.assert_close(far, unbounded.theta(sign * limits, 1.5), atol=1e-3, rtol=0)
    near = torch.full_like(limits, 1e-3)
    torch.testing.assert_close(transform.theta(sign * near, 1.5), unbounded.theta(sign * near, 1.5), atol=1e-7, rtol=0)


@given(seeds, st.integers(2, 5))
def test_a_spline_is_that_of_scipy(seed: int, points: int) -> None:
    spline = ThinPlateSpline(points)
    theta = random_theta(spline, seed, 1)
    pixels = upright(6, 7, False)[0].flatten(0, 1)
    expected = RBFInterpolator(control(points), theta[0], kernel="thin_plate_spline", degree=1)(pixels.numpy())
    torch.testing.assert_close(spline.grid(theta, 6, 7)[0].flatten(0, 1), torch.from_numpy(expected), atol=1e-9, rtol=0)


@given(seeds, batch_sizes)
def test_a_spline_of_moved_corners_contains_every_affine_map(seed: int, batch: int) -> None:
    theta = random_theta(Affine(), seed, batch)
    spline = ThinPlateSpline(3)
    places = (control(3).expand(batch, -1, -1).unsqueeze(1) @ theta[:, None, :, :2].mT).squeeze(1) + theta[
        :, None, :, 2
    ]
    torch.testing.assert_close(spline.grid(places, 4, 5), Affine().grid(theta, 4, 5), atol=1e-10, rtol=0)


def test_a_homography_that_sends_points_to_infinity_stays_finite_with_its_gradients() -> None:
    params = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    bent = params + torch.tensor([[0, 0, 0, 0, 0, 0, 1.0, 0]])  # w = x + 1, which is zero on the left edge
    grid = Projective().grid(Projective().theta(bent, 1.0), 3, 3, align_corners=True)
    assert grid.isfinite().all()
    assert torch.equal(grid[0, :, 0], torch.zeros(3, 2, dtype=torch.float64))
    grid.sum().backward()
    assert params.grad is not None
    assert params.grad.isfinite().all()


@families
@given(seeds)
def test_gradients_of_parameters_equal_finite_differences(transform: Transform, seed: int) -> None:
    first, second = (params_of(transform, seed + i, 2).requires_grad_() for i in range(2))

    def places(first: Tensor, second: Tensor) -> Tensor:
        theta = transform.compose(transform.theta(first, 1.7), transform.theta(second, 1.7))
        theta = transform.inverse(theta) if transform in INVERTIBLE else theta
        return transform.grid(theta, 2, 3)

    assert torch.autograd.gradcheck(places, (first, second))


@pytest.mark.parametrize("number", (Fraction(1, 2), np.float32(0.5)), ids=str)
def test_a_bound_is_any_real_number(number: Real) -> None:
    params = params_of(Translation(), 0, 2)
    assert torch.equal(Translation(number).theta(params, 1.0), Translation(0.5).theta(params, 1.0))


@families
@given(seeds)
def test_autocast_leaves_coordinates_alone(transform: Transform, seed: int) -> None:
    first, second = (random_theta(transform, seed + i, 2).float() for i in range(2))
    theta, grid = transform.compose(first, second), transform.grid(first, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform.compose(first, second), theta)
        assert torch.equal(transform.grid(first, 3, 4), grid)


class RoundedProducts(TorchFunctionMode):
    """Matrix products as a GPU with TF32 computes them: of numbers with 10 bits behind the leading one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__):
            args = [(x.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32) for x in args]
        return func(*args, **(kwargs or {}))


@families
@given(seeds)
def test_faster_matrix_products_leave_coordinates_alone(transform: Transform, seed: int) -> None:
    """``torch.set_float32_matmul_precision`` allows them; where a spline is bent they may cost it a thousandth."""
    first, second = (random_theta(transform, seed + i, 2).float() for i in range(2))
    still = transform.theta(torch.tensor([transform.identity]), 1.0)
    theta, grid = transform.compose(first, second), transform.grid(first, 17, 19)
    with RoundedProducts():
        assert torch.equal(transform.compose(first, second), theta)
        torch.testing.assert_close(transform.grid(still, 17, 19).double(), upright(17, 19, False), rtol=0, atol=1e-6)
        torch.testing.assert_close(transform.grid(first, 17, 19), grid, rtol=0, atol=2e-3)


class SeesBrightness(nn.Module):
    """A localization that depends on its input: the mean of each image, added to fixed parameters."""

    def __init__(self, params: Tensor) -> None:
        super().__init__()
        self.params = params
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.params + x.mean((1, 2, 3)).unsqueeze(1) / 5


@families
@given(seeds, padding_modes)
def test_every_step_sees_the_image_so_far_and_the_input_is_sampled_once(transform, seed: int, mode: str) -> None:
    x = random_images(seed, 2, 3, 6, 7)
    localization = SeesBrightness(params_of(transform, seed, 2))
    once = partial(SpatialTransformer, localization, transform=transform, padding_mode=mode)
    warped, theta = once(steps=3, output_size=(4, 9))(x, return_theta=True)
    first, second, third = localization.seen
    assert torch.equal(first, x)
    expected = once().theta(localization(first), x)
    torch.testing.assert_close(second, once().warp(x, expected))
    expected = transform.compose(expected, once().theta(localization(second), x))
    torch.testing.assert_close(third, once().warp(x, expected))
    expected = transform.compose(expected, once().theta(localization(third), x))
    torch.testing.assert_close(theta, expected)
    torch.testing.assert_close(warped, once(output_size=(4, 9)).warp(x, expected))


@pytest.mark.parametrize("transform", [Affine, "affine", None])
def test_what_is_no_transform_is_refused_by_name(transform: object) -> None:
    kind = type(transform).__name__
    with pytest.raises(TypeError, match=rf"^SpatialTransformer: transform \({kind}\) must be a Transform$"):
        SpatialTransformer(nn.Identity(), transform=transform)  # type: ignore[arg-type]


@pytest.mark.parametrize(("build", "message"), [
    (lambda: Translation(-1), "Translation: max_shift (-1) must be a finite number above 0"),
    (lambda: Rotation("90"), "Rotation: max_angle ('90') must be a number or None"),
    (lambda: Rotation(True), "Rotation: max_angle (True) must be a number or None"),
    (lambda: Similarity(max_angle=math.nan), "Similarity: max_angle (nan) must be a finite number above 0"),
    (lambda: Similarity(max_scale=1), "Similarity: max_scale (1) must be a finite number above 1"),
    (lambda: Similarity(max_shift=0.0), "Similarity: max_shift (0.0) must be a finite number above 0"),
    (lambda: Translation(math.inf), "Translation: max_shift (inf) must be a finite number above 0"),
    (lambda: Translation(1e-300), "Translation: max_shift (1e-300) must be in the range of float32, 1e-38 to 3e+38"),
    (lambda: Rotation(1e300), "Rotation: max_angle (1e+300) must be in the range of float32, 1e-38 to 3e+38"),
    (lambda: ThinPlateSpline(1), "ThinPlateSpline: points (1) must be at least 2"),
    (lambda: ThinPlateSpline(3.0), "ThinPlateSpline: points (3.0) must be an integer"),
])  # fmt: skip
def test_a_wrong_option_is_refused_with_name_and_value(build, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        build()


@pytest.mark.parametrize("kind", [Transform, MatrixTransform])
def test_a_transform_without_a_map_cannot_be_made(kind: type[Transform]) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


@pytest.mark.parametrize("mode", [partial(torch.device, "meta"), FakeTensorMode], ids=("meta", "fake"))
def test_a_spline_is_the_same_whatever_tensors_are_made_at_first(mode) -> None:
    with mode():
        spline = ThinPlateSpline(3)
    theta = random_theta(spline, 0, 2)
    assert torch.equal(spline.grid(theta, 4, 5), ThinPlateSpline(3).grid(theta, 4, 5))


def test_points_may_be_of_any_integer_type() -> None:
    assert repr(ThinPlateSpline(torch.tensor(3))) == repr(ThinPlateSpline(3))
