"""Poses: images turn, grow and move as their pose says, and theta = A undoes it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.transforms import affine_grid
from scripts.data.datasets import Split
from scripts.data.poses import POSES, Poses, posed, posed_split
from scripts.system.processes import Processes
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.strategies import generator, seeds

pytestmark = pytest.mark.numerics

C8, RTS = POSES["c8"], POSES["rts"]
sizes = st.sampled_from(((6, 6), (6, 9), (11, 5)))


def images(seed: int, count: int, height: int = 6, width: int = 7) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=generator(seed), dtype=torch.uint8)


def smooth(height: int, width: int) -> torch.Tensor:
    """One image of slow waves, which survives being sampled twice."""
    y, x = torch.arange(height).view(-1, 1) / height, torch.arange(width) / width
    waves = [(6 * x + 2 * y).sin(), (5 * y - 2 * x).cos(), (4 * x * y).sin()]
    return torch.stack([127 + 100 * wave for wave in waves]).round().byte()[None]


def matrices(poses: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A as a product: to pixels, turned, scaled, back to halves of the image, shifted."""
    halves = torch.diag(torch.tensor([width / 2, height / 2]))
    found = []
    for angle, log_scale, x, y in poses.tolist():
        c, s = math.cos(angle), math.sin(angle)
        turn = halves.inverse() @ torch.tensor([[c, -s], [s, c]]) @ halves * math.exp(log_scale)
        found.append(torch.cat([turn, torch.tensor([[x], [y]])], 1))
    return torch.stack(found)


def pose(degrees: float = 0.0, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    return torch.tensor([[math.radians(degrees), math.log(scale), x, y]])


@given(seeds, sizes)
def test_the_zero_pose_changes_nothing(seed: int, size: tuple[int, int]) -> None:
    x = images(seed, 3, *size)
    assert torch.equal(posed(x, torch.zeros(3, 4)), x)


def test_unposed_images_are_not_even_copied_and_draw_nothing() -> None:
    x, draw = images(0, 5), generator(3)
    same, poses = POSES["none"](x, 5, draw)
    assert same is x
    assert torch.equal(poses, torch.zeros(5, 4))
    assert torch.equal(draw.get_state(), generator(3).get_state())


@given(seeds, st.integers(0, 3))
def test_quarter_turns_of_squares_are_exact_and_clockwise(seed: int, turns: int) -> None:
    """Y points down, so that a positive angle turns what is seen clockwise."""
    x = images(seed, 2, 6, 6)
    assert torch.equal(posed(x, pose(90 * turns).expand(2, 4)), x.rot90(-turns, (2, 3)))


def test_a_pixel_moves_by_the_angle_in_pixels_though_the_image_is_no_square() -> None:
    """From 4 pixels right of the centre to 4 pixels below it."""
    x = torch.zeros(1, 3, 13, 21, dtype=torch.uint8)
    x[..., 6, 14] = 200
    turned = posed(x, pose(90))
    assert turned[0, 0].nonzero().tolist() == [[10, 10]]
    assert turned[..., 10, 10].tolist() == [[200] * 3]
    half = posed(x, pose(45))[0, 0].float()
    y, x = half.nonzero().float().mul(half[half > 0].view(-1, 1)).sum(0) / half.sum()
    assert (y.item(), x.item()) == pytest.approx((6 + 8**0.5, 10 + 8**0.5), abs=0.1)


def test_shifts_are_in_half_widths_and_scales_above_1_enlarge() -> None:
    x = images(0, 1, 10, 20)
    assert torch.equal(posed(x, pose(x=0.2, y=-0.2))[..., :-1, 2:], x[..., 1:, :-2]), "2 right and 1 up"
    dot = torch.zeros(1, 3, 15, 15, dtype=torch.uint8)
    dot[..., 7, 10] = 255
    assert posed(dot, pose(scale=2))[0, 0].argmax().item() == 7 * 15 + 13, "3 pixels from the centre become 6"


def test_what_comes_from_outside_the_frame_is_reflected() -> None:
    x = images(0, 1, 8, 8)
    assert torch.equal(posed(x, pose(x=0.5))[..., :2], x[..., :2].flip(-1))


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@given(seeds)
def test_sampling_with_theta_equal_to_a_shows_the_image_upright_again(size: tuple[int, int], seed: int) -> None:
    x, poses = smooth(*size).expand(8, -1, -1, -1), RTS.draws(8, generator(seed))
    turned = posed(x, poses).float()
    grid = affine_grid(matrices(poses, *size), *size)
    upright = torch.nn.functional.grid_sample(turned, grid, align_corners=False)
    inside = (grid.abs() < 0.9).all(-1).unsqueeze(1)  # what the pose has kept
    assert inside.float().mean() > 0.3
    assert ((upright - x) * inside).abs().max() < 12


def test_eight_turns_are_equally_frequent_and_nothing_else_changes() -> None:
    poses = C8.draws(16_000, generator(0))
    steps = poses[:, 0] / (math.pi / 4)
    assert (steps - steps.round()).abs().max() < 1e-6
    assert steps.round().long().bincount().sub(2000).abs().max() < 5 * (16_000 * 7 / 64) ** 0.5
    assert not poses[:, 1:].any()


def test_angles_scales_and_shifts_are_uniform_and_independent() -> None:
    poses = RTS.draws(20_000, generator(0)).double()
    columns = torch.stack([poses[:, 0].rad2deg(), poses[:, 1].exp(), poses[:, 2], poses[:, 3]])
    for column, (least, greatest) in zip(columns, ((-45, 45), (0.7, 1.2), (-0.4, 0.4), (-0.4, 0.4)), strict=True):
        level = (column - least) / (greatest - least)
        assert -1e-6 <= level.min() < 0.001
        assert 0.999 < level.max() < 1 + 1e-6
        assert level.sort().values.sub(torch.linspace(0, 1, 20_000)).abs().max() < 0.015, "Kolmogorov and Smirnov"
    assert (columns.corrcoef() - torch.eye(4)).abs().max() < 0.03


@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from((C8, RTS)))
def test_a_share_of_a_batch_is_posed_as_in_the_whole_batch(count: int, processes: int, poses: Poses) -> None:
    x, whole = images(count, count), generator(1)
    expected = poses(x, count, whole)
    parts = []
    for rank in range(processes):
        after, share = generator(1), Processes(processes, rank).share(count)
        parts.append(poses(x[share], count, after, share))
        assert torch.equal(after.get_state(), whole.get_state()), "the next batch has the same draws"
    for together, part in zip(expected, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(part), together)


@pytest.mark.parametrize("poses", [C8, RTS])
def test_a_split_is_always_posed_alike_whatever_was_drawn_before(poses: Poses) -> None:
    split = Split(images(0, 2050), torch.arange(2050))
    first = posed_split(split, poses)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(posed_split(split, poses).images, first.images)
    assert torch.equal(first.labels, split.labels)
    assert torch.equal(first.images, posed(split.images, poses.fixed(2050))), "as in one batch"
    assert not torch.equal(first.images, split.images)


def test_an_unposed_split_is_the_split_itself() -> None:
    split = Split(images(0, 3), torch.arange(3))
    assert posed_split(split, POSES["none"]) is split


def test_examples_are_the_eight_turns_or_spread_over_every_range() -> None:
    torch.testing.assert_close(C8.examples()[:, 0], torch.arange(8) * math.pi / 4)
    spread = RTS.examples()
    for column in (spread[:, 0], spread[:, 1].exp(), spread[:, 2], spread[:, 3]):
        gaps = column.sort().values.diff()
        torch.testing.assert_close(gaps, gaps.mean().expand(7))
    assert spread[0].abs().min() > 0


@pretends_cuda
def test_a_batch_on_a_gpu_copies_its_poses_once_and_never_waits() -> None:
    """With as many operators for few images as for many."""
    counts = []
    with fake_cuda.gpu() as traffic:
        for count in (64, 2):
            with torch.device("cuda:0"):
                x = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
            before = traffic.copies, traffic.waits, traffic.operators
            turned, poses = RTS(x, count, generator(0))
            assert turned.device == poses.device == x.device
            assert (traffic.copies - before[0], traffic.waits - before[1]) == (1, 0)
            counts.append(traffic.operators - before[2])
    assert counts[0] == counts[1] <= 60
