"""Laws of the warp: identity, shifts, rotations and composition, for both values of ``align_corners``."""

import importlib
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from components import LocalizationNet, SpatialTransformer
from components.transforms import (
    Affine,
    Projective,
    Rotation,
    Similarity,
    ThinPlateSpline,
    Translation,
    affine_grid,
)
from tests.contract.cases import Quarter, Returns, randomised
from tests.reference.spatial_transformer import through
from tests.reference.spatial_transformer import warp as warp_by_loops
from tests.support.marks import writes_onnx
from tests.support.strategies import (
    batch_sizes,
    generator,
    padding_modes,
    random_images,
    random_theta,
    seeds,
    sides,
)

pytestmark = pytest.mark.numerics

TRANSFORMS = (Translation(), Rotation(), Similarity(90, 2, 0.5), Affine(), Projective(), ThinPlateSpline(2))
corners = pytest.mark.parametrize("align_corners", (False, True))


def warp(x: Tensor, theta: Tensor, **options: object) -> Tensor:
    """A spatial transformer with a fixed theta."""
    return SpatialTransformer(Returns(theta), **options)(x)


def identity(batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.eye(2, 3, dtype=dtype).repeat(batch, 1, 1)


@corners
@given(seeds, batch_sizes, sides, sides, padding_modes)
def test_identity_returns_the_input(align_corners, seed: int, batch: int, h: int, w: int, padding_mode: str) -> None:
    x = random_images(seed, batch, 2, h, w)
    same = warp(x, identity(batch), padding_mode=padding_mode, align_corners=align_corners)
    torch.testing.assert_close(same, x, atol=1e-12, rtol=0)


@corners
def test_identity_at_32_pixels_in_float32_is_exact_to_the_bit_without_corners(align_corners: bool) -> None:
    x = random_images(0, 5, 3, 32, 32, dtype=torch.float32)
    same = warp(x, identity(5, torch.float32), align_corners=align_corners)
    # 1/32 is exact in binary, 1/31 is not; measured 7e-6
    torch.testing.assert_close(same, x, atol=2e-5 if align_corners else 0, rtol=0)


@corners
@given(seeds, sides, sides, sides, sides)
def test_identity_at_another_size_is_bilinear_resizing(align_corners, seed, h, w, new_h, new_w) -> None:
    assume(not align_corners or min(new_h, new_w) > 1)  # a single row is the first in interpolate, the middle one here
    x = random_images(seed, 2, 2, h, w)
    resized = warp(x, identity(2), output_size=(new_h, new_w), padding_mode="border", align_corners=align_corners)
    expected = F.interpolate(x, (new_h, new_w), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(resized, expected, atol=1e-10, rtol=0)


@corners
@given(seeds, st.sampled_from((5, 8, 11, 32)), st.integers(-4, 4), st.integers(-4, 4))
def test_a_shift_by_whole_pixels_is_exact(align_corners, seed: int, side: int, dx: int, dy: int) -> None:
    x = random_images(seed, 1, 2, side, side)
    step = 2 / (side - 1 if align_corners else side)  # one pixel in [-1, 1]
    theta = identity(1)
    theta[0, :, 2] = torch.tensor([dx * step, dy * step], dtype=torch.float64)
    moved = warp(x, theta, align_corners=align_corners)
    rows, columns = torch.arange(side) + dy, torch.arange(side) + dx
    inside = ((rows >= 0) & (rows < side))[:, None] & ((columns >= 0) & (columns < side))
    expected = x[:, :, rows.clamp(0, side - 1)][..., columns.clamp(0, side - 1)] * inside
    torch.testing.assert_close(moved, expected, atol=1e-10, rtol=0)


@corners
@given(seeds, sides, st.integers(0, 3))
def test_quarter_turns_are_rot90(align_corners, seed: int, side: int, turns: int) -> None:
    x = random_images(seed, 2, 2, side, side)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    theta = torch.cat([torch.linalg.matrix_power(quarter, turns), torch.zeros(2, 1, dtype=torch.float64)], 1)
    turned = warp(x, theta.repeat(2, 1, 1), align_corners=align_corners)
    torch.testing.assert_close(turned, torch.rot90(x, turns, (-2, -1)), atol=1e-10, rtol=0)


@corners
@given(seeds)
def test_two_warps_compose_as_matrices(align_corners, seed: int) -> None:
    """On a linear ramp, where bilinear sampling is exact, two warps equal one with the product."""
    ramp = torch.stack(torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")).double()[None]
    first, second = random_theta(seed, 1, spread=0.05), random_theta(seed + 1, 1, spread=0.05)
    bottom = torch.tensor([[[0.0, 0, 1]]], dtype=torch.float64)
    product = (torch.cat([first, bottom], 1) @ torch.cat([second, bottom], 1))[:, :2]
    options = {"align_corners": align_corners, "padding_mode": "border"}
    twice = warp(warp(ramp, first, **options), second, **options)
    once = warp(ramp, product, **options)
    inner = slice(12, 21)  # far enough inside that no sample reaches the border
    torch.testing.assert_close(twice[..., inner, inner], once[..., inner, inner], atol=1e-10, rtol=0)


@corners
@given(seeds, sides, sides, sides, sides)
def test_any_warp_equals_a_loop_over_pixels(align_corners, seed, h, w, new_h, new_w) -> None:
    h, w, new_h, new_w = (min(side, 7) for side in (h, w, new_h, new_w))
    x, theta = random_images(seed, 1, 2, h, w), random_theta(seed, 1)
    warped = warp(x, theta, output_size=(new_h, new_w), align_corners=align_corners)
    maps = [through(Affine(), each, 1, 1) for each in theta.flatten(1).tolist()]
    torch.testing.assert_close(warped, warp_by_loops(x, maps, new_h, new_w, align_corners), atol=1e-10, rtol=0)


@corners
@given(seeds, batch_sizes, sides, sides)
def test_the_grid_is_that_of_torch(align_corners, seed: int, batch: int, h: int, w: int) -> None:
    assume(not align_corners or min(h, w) > 1)  # torch warns about a single row; the loop above covers it
    theta = random_theta(seed, batch)
    expected = F.affine_grid(theta, (batch, 1, h, w), align_corners=align_corners)
    option = {"align_corners": True} if align_corners else {}  # False is the default
    torch.testing.assert_close(affine_grid(theta, h, w, **option), expected)


def test_x_and_y_lie_in_separate_planes_of_the_grid() -> None:
    # torch then samples 1.1 to 1.5 times as fast, and a compiled backward pass is three times as fast
    assert affine_grid(random_theta(0, 3), 4, 5).permute(0, 3, 1, 2).is_contiguous()


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection", "mean"])
def test_a_theta_that_is_not_a_number_shows_in_its_image_alone(padding_mode: str) -> None:
    theta = torch.eye(2, 3).repeat(3, 1, 1)
    theta[1, 0, 2] = math.nan
    warped = SpatialTransformer(Returns(theta), padding_mode=padding_mode)(torch.rand(3, 2, 5, 7))
    assert [image.isnan().any().item() for image in warped] == [False, True, False]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["border", "reflection"])
def test_where_torch_folds_coordinates_it_gets_none_that_crash_it(
    padding_mode: str, align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN, infinity and 1e37 end the process in its backward pass."""
    grids: list[Tensor] = []
    sample = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda x, grid, **options: grids.append(grid) or sample(x, grid, **options))
    theta = torch.eye(2, 3).repeat(5, 1, 1)
    theta[1:, 0, 0] = torch.tensor([math.nan, math.inf, -1e37, 1e5])
    theta.requires_grad_()
    warped = SpatialTransformer(Returns(theta), padding_mode=padding_mode, align_corners=align_corners)(
        torch.rand(5, 2, 4, 6)
    )
    assert grids[0].isfinite().all()
    assert grids[0].abs().max() == 1e6
    torch.testing.assert_close(grids[0][4], affine_grid(theta, 4, 6, align_corners=align_corners)[4])
    assert [image.isfinite().all().item() for image in warped] == [True, False, False, True, True]
    (slope,) = torch.autograd.grad(warped[[0, 3, 4]].sum(), theta)
    assert slope[[0, 3, 4]].isfinite().all()


@given(seeds, padding_modes)
def test_padding_mode_decides_what_lies_outside_the_image(seed: int, padding_mode: str) -> None:
    x = random_images(seed, 2, 3, 8, 8)
    theta = identity(2)
    theta[:, 0, 2] = 2.0  # one image width to the right: every sample lies outside
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    expected = {"zeros": 0 * x, "border": x[..., -1:].expand_as(x), "reflection": x.flip(-1), "mean": mean}[
        padding_mode
    ]
    torch.testing.assert_close(warp(x, theta, padding_mode=padding_mode), expected)


@corners
@given(seeds, sides, sides, st.integers(1, 4), padding_modes)
def test_a_pixel_is_the_mean_of_its_samples(align_corners, seed: int, h: int, w: int, samples: int, mode: str) -> None:
    x, theta = random_images(seed, 2, 3, h, w), random_theta(seed, 2)
    options = {"output_size": (5, 7), "padding_mode": mode, "align_corners": align_corners}
    steps = [2 / (size - 1 if align_corners else size) for size in (5, 7)]  # from one output pixel to the next
    places = [(index + 0.5) / samples - 0.5 for index in range(samples)]  # of a pixel, whose centre is 0
    moved = [
        torch.cat([theta[:, :, :2], theta[:, :, 2:] + theta[:, :, :2] @ theta.new_tensor([[x_], [y_]])], 2)
        for y_, x_ in itertools.product(*([place * step for place in places] for step in steps))
    ]
    expected = torch.stack([warp(x, each, **options) for each in moved]).mean(0)
    torch.testing.assert_close(warp(x, theta, samples=samples, **options), expected)


@corners
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
@given(sides, sides, sides, sides, st.integers(2, 5))
def test_samples_lie_around_the_centre_of_their_pixel(align_corners, transform, h, w, new_h, new_w, samples) -> None:
    """On a linear ramp their mean is the value at the centre, where no sample lies outside the image."""
    x = (torch.arange(float(h))[:, None] + 3 * torch.arange(float(w))).double()[None, None]
    params = torch.tensor([transform.identity], dtype=torch.float64)
    options = {"transform": transform, "output_size": (new_h, new_w), "align_corners": align_corners}
    once, often = (SpatialTransformer(Returns(params), samples=each, **options)(x) for each in (1, samples))
    rows, columns = (slice(-(-new // old), new - -(-new // old)) for new, old in ((new_h, h), (new_w, w)))
    torch.testing.assert_close(often[..., rows, columns], once[..., rows, columns])


def test_more_samples_keep_a_checkerboard_from_aliasing() -> None:
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).double()[None, None]
    half = identity(1) * 3  # a third of the size
    inside = (slice(None), slice(None), slice(12, 20), slice(12, 20))
    assert warp(board, half)[inside].std() > 0.4
    assert warp(board, half, samples=6)[inside].sub(0.5).abs().max() < 0.1


def test_without_the_localization_it_warps_to_any_size() -> None:
    theta, x = random_theta(0, 2), random_images(0, 2, 1, 5, 7)
    transformer = SpatialTransformer(Returns(theta), output_size=4)
    assert torch.equal(transformer.warp(x, theta), transformer(x))
    for size in (3, np.int64(3), [3, 3]):
        assert torch.equal(transformer.warp(x, theta, size), transformer.warp(x, theta, (3, 3)))
    assert transformer.warp(x, theta, x.shape[2:]).shape == x.shape


@given(seeds, batch_sizes, st.booleans())
def test_theta_is_returned_on_request_from_either_shape(seed: int, batch: int, flat: bool) -> None:
    theta = random_theta(seed, batch)
    transformer = SpatialTransformer(Returns(theta.flatten(1) if flat else theta))
    x = random_images(seed, batch, 1, 5, 5)
    warped, returned = transformer(x, return_theta=True)
    assert torch.equal(returned, theta)
    assert torch.equal(warped, transformer(x))


@given(seeds, st.sampled_from((torch.float16, torch.bfloat16)))
def test_half_precision_images_are_sampled_in_float32(seed: int, dtype: torch.dtype) -> None:
    x = random_images(seed, 1, 1, 300, 300, dtype=torch.float32).to(dtype)
    theta = random_theta(seed, 1, spread=0.1).float()
    expected = warp(x.float(), theta).to(dtype)
    assert torch.equal(warp(x, theta), expected)
    assert torch.equal(warp(x, theta.to(dtype)), warp(x.float(), theta.to(dtype).float()).to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(warp(x, theta), expected)


@given(seeds, st.sampled_from((torch.float16, torch.bfloat16)), st.sampled_from((torch.float16, torch.float32)))
def test_a_theta_in_half_precision_loses_no_pixels(seed: int, half: torch.dtype, dtype: torch.dtype) -> None:
    x = random_images(seed, 1, 1, 300, 300, dtype=torch.float32).to(dtype)
    theta = random_theta(seed, 1, spread=0.1).to(half)
    transformer = SpatialTransformer(nn.Identity())
    assert torch.equal(transformer.warp(x, theta), transformer.warp(x, theta.float()))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
@given(seeds, st.sampled_from((torch.float32, torch.float64)), padding_modes, st.booleans(), st.integers(1, 2),
       st.sampled_from((torch.bfloat16, torch.float16)))  # fmt: skip
def test_autocast_changes_no_bit_of_a_warp(transform, seed, dtype, mode: str, corners: bool, number: int, autocast):
    """Nor of its gradients: in half precision whole pixels and levels of grey would be lost."""
    x = random_images(seed, 2, 2, 5, 300, dtype=dtype).requires_grad_()
    offsets = 0.1 * torch.randn(2, transform.num_params, generator=generator(seed))
    params = (torch.tensor(transform.identity) + offsets).requires_grad_()
    options = {"padding_mode": mode, "align_corners": corners, "steps": number, "samples": number}
    transformer = SpatialTransformer(Returns(params), transform=transform, output_size=(3, 40), **options)

    def run(enabled: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype=autocast, enabled=enabled):
            warped, theta = transformer(x, return_theta=True)
        return [warped, theta, *torch.autograd.grad(warped, (x, params), warped.detach())]

    plain, mixed = run(False), run(True)
    assert [one.dtype for one in mixed] == [one.dtype for one in plain]
    assert [torch.equal(one, other) for one, other in zip(mixed, plain, strict=True)] == [True] * 4


@given(seeds)
def test_with_a_localization_net_it_starts_as_the_identity(seed: int) -> None:
    torch.manual_seed(seed)
    x = random_images(seed, 2, 3, 32, 32, dtype=torch.float32)
    assert torch.equal(SpatialTransformer(LocalizationNet())(x), x)


@corners
@given(seeds, padding_modes)
def test_the_gradient_of_theta_equals_finite_differences(align_corners, seed: int, padding_mode: str) -> None:
    x, theta = random_images(seed, 2, 1, 4, 5), random_theta(seed, 2)
    call = partial(warp, output_size=(3, 2), padding_mode=padding_mode, align_corners=align_corners)
    inputs = (x.requires_grad_(), theta.requires_grad_())
    assert torch.autograd.gradcheck(call, inputs, eps=1e-8, atol=1e-5, rtol=1e-4)


EXPORTED = (  # what the contract does not export: other transforms and options; forty combinations were tried once
    {"transform": Translation(0.3), "padding_mode": "reflection", "samples": 2},
    {"transform": Rotation(), "padding_mode": "border", "align_corners": True},
    {"transform": Similarity(90, 2, 0.5), "padding_mode": "mean", "steps": 2},
    {"transform": Projective(), "output_size": (3, 11)},
    {"transform": ThinPlateSpline(2), "padding_mode": "reflection", "align_corners": True},
)


class Warps(nn.Module):
    """All of them: together they are exported in half of the time."""

    def __init__(self) -> None:
        super().__init__()
        heads = (nn.Linear(2 * 6 * 7, options["transform"].num_params) for options in EXPORTED)
        self.parts = nn.ModuleList(
            SpatialTransformer(nn.Sequential(nn.Flatten(), head, Quarter(), Quarter()), **options)
            for head, options in zip(heads, EXPORTED, strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x) for part in self.parts)


@writes_onnx
@torch.no_grad()
def test_onnxruntime_warps_as_torch_does_with_every_transform_and_option() -> None:
    onnxruntime, warps = importlib.import_module("onnxruntime"), randomised(Warps(), 0).eval()
    images = [random_images(seed, batch, 2, 6, 7, dtype=torch.float32) for seed, batch in enumerate((3, 1, 5))]
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(warps, (images[0],), dynamic_shapes=({0: batch},), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for x in images:
        outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for options, output, expected in zip(EXPORTED, outputs, warps(x), strict=True):
            difference = float((torch.from_numpy(output) - expected).abs().max())
            assert difference < 1e-4, f"{options}, batch of {len(x)}: {difference}"
            assert (output.std((2, 3)) > 0.01).all(), "the image stays in sight"


class Doubles(nn.Module):
    """A warp to twice the height, whatever that is."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = SpatialTransformer(Returns(identity(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer.warp(x, identity(2).to(x), (2 * x.shape[2], x.shape[3]))


def test_the_size_of_an_output_can_depend_on_that_of_the_input_in_an_exported_graph() -> None:
    height, width = (torch.export.Dim(name, min=2) for name in ("height", "width"))
    program = torch.export.export(Doubles(), (random_images(0, 2, 3, 8, 9),), dynamic_shapes=({2: height, 3: width},))
    for sizes in ((8, 9), (5, 12)):
        x = random_images(1, 2, 3, *sizes)
        torch.testing.assert_close(program.module()(x), Doubles()(x))
