"""Batches: every image once, normalised exactly, each augmented with its own draws."""

import dataclasses
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts import train_stn, train_vit
from scripts.data.batches import channel_statistics, resized, shuffled, training_batches
from scripts.data.datasets import Split
from scripts.data.mixing import UNMIXED, Mix
from scripts.data.poses import POSES, posed
from scripts.data.transforms import Augment, Normalise, random_boxes
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.sources import ROOT
from tests.support.strategies import generator, random_pixels, seeds

pytestmark = pytest.mark.numerics

RECIPES = {**train_stn.RECIPES, **train_vit.RECIPES}
CUDA = torch.device("cuda:0")
NORMALISE = Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


@given(seeds, st.integers(1, 40), st.integers(1, 50))
def test_an_epoch_has_every_image_once_with_its_label(seed: int, count: int, batch_size: int) -> None:
    numbered = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    split = Split(numbered, torch.arange(count))
    order, unscaled = shuffled(split, batch_size, generator(seed)), Normalise((0,) * 3, (1 / 255,) * 3)
    batches = list(training_batches(split, order, unscaled, Augment(), generator(seed)))
    assert [len(labels) for _, labels, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    pixels, labels, poses = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(poses, torch.zeros(count, 4)), "nothing is posed"
    assert labels.sort().values.tolist() == list(range(count))
    torch.testing.assert_close(pixels[:, 0, 0, 0], labels.float())


def test_the_order_depends_only_on_epoch_and_seed() -> None:
    split = Split(random_pixels(0, 64, 6, 7), torch.arange(64))

    def orders(seed: int) -> list[list[int]]:
        draw = generator(seed)
        return [torch.cat(shuffled(split, 16, draw)).tolist() for _ in range(2)]

    first, second = orders(1)
    assert first != second
    assert orders(1) == [first, second]
    assert orders(2)[0] != first


@given(seeds)
def test_normalisation_is_the_formula_and_can_be_undone(seed: int) -> None:
    """Also in the second call, with the constants of the first."""
    x = random_pixels(seed, 5, 6, 7)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (NORMALISE.mean, NORMALISE.std))
    for normalised in (NORMALISE(x), NORMALISE(x)):
        torch.testing.assert_close(normalised.double(), (x.double() / 255 - mean) / std, atol=1e-6, rtol=1e-6)
        assert normalised.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(NORMALISE.undo(normalised), x)


@given(seeds)
def test_channel_statistics_are_mean_and_standard_deviation(seed: int) -> None:
    x = random_pixels(seed, 4, 6, 7)
    statistics = channel_statistics(x)
    scaled = x.double() / 255
    torch.testing.assert_close(torch.tensor(statistics.mean).double(), scaled.mean((0, 2, 3)), atol=1e-6, rtol=0)
    expected = scaled.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(statistics.std).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(statistics(x).double().mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch has no MKL to hold back")
def test_channel_statistics_are_the_same_on_every_cpu_to_the_last_bit() -> None:
    """A run may go on on another machine, and is refused where they differ."""
    program = """
import torch
from scripts.data.batches import channel_statistics
draw = torch.Generator().manual_seed(0)
for _ in range(9):
    found = channel_statistics(torch.randint(256, (9, 3, 7, 9), generator=draw, dtype=torch.uint8))
    print(*(number.hex() for number in (*found.mean, *found.std)))
"""

    def printed(**held_back: str) -> str:
        environment = {**os.environ, **held_back}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    assert printed() == printed(MKL_CBWR="COMPATIBLE", ATEN_CPU_CAPABILITY="default")


def test_images_of_one_colour_are_normalised_to_finite_numbers() -> None:
    flat = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    assert channel_statistics(flat)(flat).isfinite().all()


@given(seeds)
def test_about_half_of_a_batch_is_mirrored_with_a_draw_for_each_image(seed: int) -> None:
    x = random_pixels(seed, 400, 6, 7)
    mirrored = Augment(mirror=True)(x, len(x), generator(seed))
    same = (mirrored == x).flatten(1).all(1)
    flipped = (mirrored == x.flip(-1)).flatten(1).all(1)
    assert (same ^ flipped).all()
    assert 150 < int(flipped.sum()) < 250, "five sigma around 200"


@pytest.mark.parametrize("shift", [1, 3])
@given(seeds)
def test_each_image_is_shifted_by_whole_pixels_and_reflected_at_its_border(shift: int, seed: int) -> None:
    x = random_pixels(seed, 60, 6, 7)
    shifted = Augment(shift=shift)(x, len(x), generator(seed))
    padded = torch.nn.functional.pad(x.float(), (shift,) * 4, mode="reflect").byte()
    windows = {
        (down, right): padded[..., down : down + 6, right : right + 7]
        for down in range(2 * shift + 1)
        for right in range(2 * shift + 1)
    }
    matches = torch.stack([(window == shifted).flatten(1).all(1) for window in windows.values()])
    assert (matches.sum(0) == 1).all()
    assert matches.any(1).sum() > len(windows) // 2, "the images of one batch move differently"


@given(seeds, st.integers(8, 40), st.integers(8, 40), st.sampled_from((0.05, 0.5, 1.0)))
def test_boxes_are_inside_the_frame_with_the_right_area_and_shape(seed, height, width, least) -> None:
    top, left, rows, columns = random_boxes(300, height, width, least, generator(seed)).unbind(1)
    for start, length, end in ((top, rows, height), (left, columns, width)):
        assert ((start >= 0) & (length >= 1) & (start + length <= end)).all()
    free = (rows < height) & (columns < width)  # not cut by the frame; sides are rounded by up to half a pixel
    assert ((rows + 0.5) * (columns + 0.5) >= least * height * width)[free].all()
    assert ((columns + 0.5) / (rows - 0.5) >= 3 / 4)[free].all()
    assert ((columns - 0.5) / (rows + 0.5) <= 4 / 3)[free].all()


def test_sizes_and_places_of_boxes_are_uniform() -> None:
    top, left, rows, columns = random_boxes(10_000, 32, 32, 0.05, generator(0)).unbind(1)
    share = (rows * columns / 32**2).double()
    assert share.min() < 0.06
    assert share.max() > 0.98
    assert share.median().item() == pytest.approx(0.525, abs=0.02)
    assert ((columns < rows).double().mean() - (columns > rows).double().mean()).abs() < 0.05, "upright and lying"
    for first, size in ((top, rows), (left, columns)):
        room = (32 - size).double()
        assert (first / room.clamp(min=1)).where(room > 4, 0.5).double().mean().item() == pytest.approx(0.5, abs=0.02)


@given(seeds)
def test_a_crop_is_a_box_of_the_image_stretched_to_the_size(seed: int) -> None:
    ramp = (torch.arange(0, 240, 6, dtype=torch.uint8).view(1, 40) + torch.zeros(3, 40, 1, dtype=torch.uint8))[None]
    cropped = Augment(crop=0.1, size=64)(ramp.repeat(20, 1, 1, 1), 20, generator(seed))
    assert cropped.shape == (20, 3, 64, 64)
    assert cropped.dtype == torch.uint8
    boxes = random_boxes(20, 40, 40, 0.1, generator(seed))
    for image, (_, left, _, columns) in zip(cropped, boxes.tolist(), strict=True):
        centres = (torch.arange(64) + 0.5) * columns / 64 - 0.5
        expected = 6 * (left + centres.clamp(0, columns - 1))
        assert (image.float() - expected).abs().max() <= 1.5
    assert Augment(crop=0.1)(random_pixels(seed, 4, 8, 12), 4, generator(seed)).shape == (4, 3, 8, 12)
    nothing = Augment(crop=0.1, size=9)(ramp[:0], 1, generator(seed), slice(1, 1))
    assert nothing.shape == (0, 3, 9, 9), "no share"


def test_resizing_interpolates_and_keeps_images_of_that_size() -> None:
    x = random_pixels(0, 2, 8, 8)
    assert resized(x, (8, 8)) is x
    assert resized(x, (16, 24)).shape == (2, 3, 16, 24)
    stripes = (255 * (torch.arange(64) % 2)).byte().expand(1, 3, 64, 64)
    assert (resized(stripes, (8, 8)).float() - 127.5).abs().max() < 20, "no aliasing"


def test_without_augmentation_images_are_not_even_copied() -> None:
    x = random_pixels(0, 5, 6, 7)
    same = Augment()(x, len(x), generator(0))
    assert torch.equal(same, x)
    assert same.data_ptr() == x.data_ptr()


@given(seeds)
def test_images_are_posed_after_they_are_augmented(seed: int) -> None:
    split = Split(random_pixels(seed, 7, 6, 7), torch.arange(7))
    augment, poses = Augment(mirror=True, shift=1), POSES["rts"]
    draw, again = generator(seed), generator(seed)
    order = torch.arange(7).split(4)
    for chosen, (x, labels, drawn) in zip(
        order, training_batches(split, order, lambda images: images, augment, draw, poses=poses), strict=True
    ):
        augmented = augment(split.images[chosen], len(chosen), again)
        assert torch.equal(drawn, poses.draws(len(chosen), again))
        assert torch.equal(x, posed(augmented, drawn))
        assert torch.equal(labels, chosen)


augmentations = st.builds(
    Augment, mirror=st.booleans(), shift=st.sampled_from((0, 2)), crop=st.sampled_from((None, 0.3)),
    size=st.sampled_from((None, 9)), geometry=st.sampled_from((0.0, 0.2)), colour=st.sampled_from((0.0, 0.05)),
    cutout=st.sampled_from((0, 3)),
)  # fmt: skip
mixes = st.sampled_from((UNMIXED, Mix(mixup=1), Mix(cutmix=1), Mix(mixup=0.3, cutmix=0.3)))
every_pose = st.sampled_from([*POSES.values()])


@given(augmentations, every_pose, mixes, seeds, st.integers(1, 4))
def test_each_image_keeps_its_own_label_whatever_is_done_to_it(augment, poses, mix, seed: int, processes: int) -> None:
    """A class is a grey, which no augmentation changes by more than a twentieth; of a mixture it is the mean."""
    greys = torch.arange(20, 256, 40)
    labels = torch.randint(len(greys), (16,), generator=generator(seed))
    split = Split(greys[labels].byte().view(-1, 1, 1, 1).expand(-1, 3, 12, 16), labels)
    for rank in range(processes):
        batches = training_batches(
            split, shuffled(split, 6, generator(seed)), torch.Tensor.float, augment, generator(seed),
            lambda count, rank=rank: slice(*slice(rank, rank + 1 if processes > 1 else None).indices(count)[:2]),
            poses, mix, classes=len(greys),
        )  # fmt: skip
        for images, targets, _ in batches:
            shares = targets if mix != UNMIXED else torch.nn.functional.one_hot(targets, len(greys))
            assert len(images) == len(shares)
            assert ((images.mean((1, 2, 3)) - shares.float() @ greys.float()).abs() < 15).all()


EVERYTHING = Augment(mirror=True, shift=1, crop=0.5, geometry=0.2, colour=0.3, cutout=3)


def batches_of(seed: int, mix: Mix = UNMIXED) -> Iterator[tuple[torch.Tensor, ...]]:
    """Three batches with every augmentation."""
    split, draw = Split(random_pixels(0, 20, 12, 16), torch.arange(20)), generator(seed)
    return training_batches(
        split, shuffled(split, 8, draw), NORMALISE, EVERYTHING, draw, poses=POSES["rts"], mix=mix, classes=20
    )


@given(mixes, seeds)
def test_augmentation_depends_on_seed_and_step_alone_whatever_else_draws(mix: Mix, seed: int) -> None:
    """A network with dropout, another seed of the process, and NumPy take nothing from it and give nothing to it."""
    torch.manual_seed(0)
    quiet = [*batches_of(seed, mix)]
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate()
    noisy = []
    for batch in batches_of(seed, mix):
        assert torch.equal(torch.get_rng_state(), before[0]), "nor does augmentation draw what others would"
        assert random.getstate() == before[1]
        noisy.append(batch)
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002 - the global generators are the point
        before = torch.get_rng_state(), random.getstate()
    for one, other in zip(quiet, noisy, strict=True):
        assert [torch.equal(*pair) for pair in zip(one, other, strict=True)] == [True] * 3
    assert not torch.equal(quiet[0][0], next(iter(batches_of(seed + 1, mix)))[0])


@given(mixes, seeds)
def test_autocast_changes_no_bit_of_a_batch(mix: Mix, seed: int) -> None:
    plain = [*batches_of(seed, mix)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = [*batches_of(seed, mix)]
    for one, other in zip(plain, mixed, strict=True):
        assert [torch.equal(*pair) for pair in zip(one, other, strict=True)] == [True] * 3


def split_on_gpu(count: int) -> Split:
    with CUDA:
        images, labels = torch.zeros(count, 3, 32, 32, dtype=torch.uint8), torch.zeros(count, dtype=torch.long)
    return Split(images.contiguous(memory_format=torch.channels_last), labels)


@pretends_cuda
@pytest.mark.parametrize(("name", "copies"), [("tutorial", 0), ("tuned", 1), ("lite", 1), ("b16-finetune", 1)])
def test_a_batch_on_a_gpu_copies_its_draws_once_and_never_waits(name: str, copies: int) -> None:
    """Apart from the constants, in the first batch; the order is one copy for the whole epoch."""
    recipe, draw = RECIPES[name], generator(0)
    size = recipe.image_size or (32, 32)
    normalise = Normalise(NORMALISE.mean, NORMALISE.std)

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return normalise(resized(batch, size))

    with fake_cuda.gpu() as traffic:
        split = split_on_gpu(64)
        before = traffic.copies
        order = shuffled(split, 8, draw)
        assert traffic.copies - before == 1
        batches = training_batches(split, order, prepare, recipe.augment, draw)
        next(batches)
        before = traffic.copies
        for images, *others in batches:
            assert {images.device, *(each.device for each in others)} == {CUDA}
            assert images.shape == (8, 3, *size)
        assert traffic.copies - before == copies * 7
        frames = len([prepare(part) for part in split.images.split(8)]) if size != (32, 32) else 0
        assert traffic.copies - before == copies * 7 + frames
        assert traffic.waits == 0


@pretends_cuda
@pytest.mark.parametrize(("name", "most"), [("tutorial", 12), ("tuned", 36), ("lite", 36), ("b16-finetune", 96)])
def test_the_number_of_operators_does_not_depend_on_the_batch_size(name: str, most: int) -> None:
    """The launch of each takes microseconds, on a GPU as on a CPU; 5.5 for every crop of 512 were too many.

    Views count too, though they launch nothing.
    """
    recipe, counts = RECIPES[name], []
    normalise = Normalise(NORMALISE.mean, NORMALISE.std)
    with fake_cuda.gpu() as traffic:
        for size in (64, 2, 64):  # the first batch also copies constants
            split = split_on_gpu(64)
            order = shuffled(split, size, generator(0))
            before = traffic.operators
            next(training_batches(split, order, normalise, recipe.augment, generator(0)))
            counts.append(traffic.operators - before)
    assert counts[1] == counts[2] <= most


@pytest.mark.parametrize(
    ("name", "images", "after"),
    [
        ("tutorial", "cf4dc3c732785ca4", "20b7c22f702eeadf"),
        ("tuned", "7c3602f104a8012f", "b912318149e81666"),
        ("lite", "7c3602f104a8012f", "b912318149e81666"),
        ("b16-finetune", None, "2a42522a861054cb"),
    ],
)
def test_batches_have_the_bits_of_recorded_runs(name: str, images: str | None, after: str) -> None:
    """Recorded before the draws of a batch were combined: its bits, and the generator state after an epoch.

    Rounding of resampled images depends on the processor, so for crops only the boxes are compared.
    """
    draw = generator(3)
    split = Split(random_pixels(7, 100, 32, 32), torch.arange(100))
    order = shuffled(split, 32, draw)
    batches = [*training_batches(split, order, lambda images: images, RECIPES[name].augment, draw)]
    assert fingerprint(torch.cat([labels for _, labels, _ in batches])) == "cfb7287c07bca2fc"
    assert images is None or fingerprint(torch.cat([x for x, _, _ in batches])) == images
    assert fingerprint(draw.get_state()) == after


def test_boxes_have_the_bits_of_recorded_runs() -> None:
    draw = generator(3)
    assert fingerprint(random_boxes(512, 32, 32, 0.05, draw)) == "a5a865348a9f1c34"
    assert fingerprint(random_boxes(512, 40, 24, 0.05, draw)) == "54927dc3b2d5349a"


def fingerprint(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_cached_constants_are_no_setting() -> None:
    normalise = Normalise((0.5,) * 3, (0.5,) * 3)
    normalise(random_pixels(0, 2, 6, 7))
    assert dataclasses.asdict(normalise) == {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert normalise == Normalise((0.5,) * 3, (0.5,) * 3)
