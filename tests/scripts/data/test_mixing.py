"""Mixing: every image with the next one of its batch, and its label in the same share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.data.batches import training_batches
from scripts.data.datasets import Split
from scripts.data.mixing import Mix
from scripts.data.poses import POSES
from scripts.data.transforms import Augment
from tests.support.strategies import generator, random_pixels, seeds

pytestmark = pytest.mark.numerics

SIZE = (12, 16)
mixes = st.sampled_from((Mix(mixup=1), Mix(cutmix=1), Mix(mixup=0.4, cutmix=0.4)))


def numbered(count: int) -> Split:
    """Image i has the value i everywhere, and is of class i."""
    return Split(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, *SIZE), torch.arange(count))


@given(mixes, st.integers(1, 12), seeds)
def test_the_shares_of_the_classes_are_those_of_the_pixels(mix: Mix, count: int, seed: int) -> None:
    """With values and classes that are equal, both have the same mean: that of the two images which were mixed."""
    order = torch.randperm(count, generator=generator(seed)).split(5)
    found = training_batches(
        numbered(count), order, torch.Tensor.float, Augment(), generator(seed), mix=mix, classes=count
    )
    for chosen, (images, targets, poses) in zip(order, found, strict=True):
        assert images.shape == (len(chosen), 3, *SIZE)
        assert poses.shape == (len(chosen), 4)
        torch.testing.assert_close(targets.sum(1), torch.ones(len(chosen)))
        torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(count).float(), atol=1e-3, rtol=1e-4)
        for image, target, first, second in zip(images, targets, chosen, chosen.roll(-1), strict=True):
            assert set(target.nonzero().flatten().tolist()) <= {int(first), int(second)}
            assert image.min() >= min(first, second) - 1e-4
            assert image.max() <= max(first, second) + 1e-4


@given(seeds)
def test_mixup_blends_all_pixels_alike_and_cutmix_replaces_a_box(seed: int) -> None:
    blend, boxes = Mix(mixup=1), Mix(cutmix=1)
    draws = torch.rand(50, 4, generator=generator(seed))
    blended, cut = blend.weights(draws, *SIZE), boxes.weights(draws, *SIZE)
    assert blended.flatten(1).std(1).max() == 0
    torch.testing.assert_close(blended[:, 0, 0, 0], draws[:, 1])
    assert set(cut.unique().tolist()) <= {0.0, 1.0}
    for weights, (_, share, *_) in zip(cut[:, 0], draws.tolist(), strict=True):
        inside = (weights == 0).nonzero()
        rows, columns = (inside.max(0).values - inside.min(0).values + 1).tolist() if len(inside) else (0, 0)
        assert len(inside) == rows * columns, "a box"
        wanted = [length * (1 - share) ** 0.5 for length in SIZE]
        assert (rows, columns) == pytest.approx(wanted if min(wanted) >= 0.5 else (0, 0), abs=0.51)


def test_how_often_and_how_much_images_are_mixed() -> None:
    mix = Mix(mixup=0.2, cutmix=0.5)
    weights = mix.weights(mix.draws(4000, generator(0)), 32, 32)
    shares, binary = weights.mean((1, 2, 3)), ((weights == 0) | (weights == 1)).flatten(1).all(1)
    assert (~binary).double().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (binary & (shares < 1)).double().mean().item() == pytest.approx(0.5, abs=0.03)
    for mixed in (shares[~binary], shares[binary & (shares < 1)]):
        levels = mixed.sort().values
        assert (levels - torch.linspace(0, 1, len(levels))).abs().max() < 0.06, "uniform shares"
    places = (weights[binary & (shares < 1)][:, 0] == 0).double().mean(0)
    assert (places - places.flip(0)).abs().max() < 0.06, "boxes lie anywhere"
    assert (places - places.flip(1)).abs().max() < 0.06


@given(mixes, st.integers(1, 9), st.integers(1, 4), st.sampled_from(("none", "rts")))
def test_a_share_of_a_batch_is_mixed_as_in_the_whole_batch(mix: Mix, count: int, processes: int, pose: str) -> None:
    split, size = Split(random_pixels(count, count, *SIZE), torch.arange(count)), -(-count // processes)
    augment, order = Augment(mirror=True, shift=1), [torch.arange(count)]

    def batch(share) -> list[torch.Tensor]:
        found = training_batches(
            split, order, torch.Tensor.float, augment, generator(1), share, POSES[pose], mix, classes=count
        )
        return next(iter(found))

    parts = [
        batch(lambda n, r=rank: slice(*slice(size * r, size * (r + 1)).indices(n)[:2])) for rank in range(processes)
    ]
    for part, whole in zip(zip(*parts, strict=True), batch(lambda n: slice(0, n)), strict=True):
        assert (torch.cat(part).float() - whole.float()).abs().max() <= 1


@given(seeds)
def test_poses_stay_those_of_the_first_of_two_images(seed: int) -> None:
    split, mix = Split(random_pixels(seed, 6, *SIZE), torch.arange(6)), Mix(cutmix=1)
    found = training_batches(
        split, [torch.arange(6)], torch.Tensor.float, Augment(), generator(seed), poses=POSES["c8"], mix=mix, classes=6
    )
    _, _, poses = next(iter(found))
    assert torch.equal(poses, POSES["c8"].draws(7, generator(seed))[:6])
