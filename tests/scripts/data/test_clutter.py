"""Cluttered scenes: one object at a place that is known, among pieces of other images of the same split."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from components.transforms import Similarity
from scripts.data import datasets
from scripts.data.batches import training_batches
from scripts.data.clutter import CANVAS, DISTRACTORS, SIDES, scenes
from scripts.data.datasets import Dataset, load
from scripts.data.poses import of_boxes
from scripts.data.transforms import Augment
from scripts.run.theta import sampled_corners
from scripts.system.errors import InputError
from tests.support.strategies import generator
from tests.support.trees import CLASSES, write_tree

COUNT = 200


@pytest.fixture(scope="module")
def numbered() -> Dataset:
    """Scenes of digits each of which is a square of a grey of its own, by which it is known, and whose label it is."""
    with pytest.MonkeyPatch.context() as patch:
        return numbered_digits(patch, "cluttered")


def numbered_digits(patch: pytest.MonkeyPatch, source: str) -> Dataset:
    greys = np.arange(1, COUNT + 1)
    digits = SimpleNamespace(images=16 / 255 * greys[:, None, None] * np.ones((8, 8)), target=greys)
    patch.setattr("sklearn.datasets.load_digits", lambda: digits)
    return load(source)


def inside(box: Tensor) -> tuple[slice, slice]:
    left, top, width, height = box.tolist()
    return slice(top, top + height), slice(left, left + width)


def test_each_box_holds_what_it_says_and_nothing_else_is_on_the_canvas(numbered: Dataset) -> None:
    """So boxes are exact, on the canvas, and apart: no distractor covers the object."""
    for split in (numbered.train, numbered.test):
        assert split.images.shape[1:] == (3, CANVAS, CANVAS)
        assert torch.equal(split.box_labels[:, 0], split.labels)
        assert torch.equal(split.sources, split.labels - 1), "that a digit has in the whole data set"
        expected = torch.zeros(len(split), CANVAS, CANVAS, dtype=torch.uint8)
        for scene, boxes, labels in zip(expected, split.boxes, split.box_labels, strict=True):
            for box, label in zip(boxes, labels.tolist(), strict=True):
                assert not scene[inside(box)].any(), "boxes do not overlap"
                scene[inside(box)] = label
        assert torch.equal(split.images, expected.unsqueeze(1).expand(-1, 3, -1, -1))


def test_objects_and_distractors_are_of_both_splits_alone(numbered: Dataset) -> None:
    """A test digit is in no training scene, neither whole nor in pieces, and no object is among its distractors."""
    train, test = ({*split.images.unique().tolist()} - {0} for split in (numbered.train, numbered.test))
    assert not train & test
    assert train | test == {*range(1, COUNT + 1)}
    for split in (numbered.train, numbered.test):
        assert (split.box_labels[:, 1:] != split.labels.unsqueeze(1)).all()
        assert split.labels.bincount()[split.labels.unique()].unique().numel() == 1, "each as often as any other"


def test_places_and_sizes_are_drawn_from_all_that_there_are(numbered: Dataset) -> None:
    boxes = numbered.train.boxes[:, 0]
    sides = boxes[:, 2]
    assert torch.equal(boxes[:, 2], boxes[:, 3])
    assert [*sides.unique().tolist()] == [*range(SIDES[0], SIDES[1] + 1)]
    place = boxes[:, :2] / (CANVAS - sides).unsqueeze(1)
    assert place.min() == 0
    assert place.max() == 1
    assert (place.mean(0) - 0.5).abs().max() < 0.05
    assert (numbered.train.boxes[:, 1:, 2] > 0).float().mean() > 0.9, f"nearly all of {DISTRACTORS} find a place"


def test_scenes_are_the_same_in_every_call(numbered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    again = numbered_digits(monkeypatch, "cluttered:digits")
    for one, other in ((again.train, numbered.train), (again.test, numbered.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.boxes, other.boxes)
    assert not again.mirrors_keep_class
    assert again.name == numbered.name == "cluttered:digits"
    assert again.description == "cluttered scenes of scikit-learn digits, 60x60"
    whole = load("digits")
    assert torch.equal(again.train.sources, whole.train.sources)
    assert torch.equal(again.test.sources, whole.test.sources)


def test_scenes_of_a_folder_show_its_images_shrunk_or_magnified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their central square where they are no squares; what does not fill its box would be a wrong box."""
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "photos", side=28)
    whole, found = load("photos"), load("cluttered:photos")
    assert found.name == "cluttered:tree:photos"
    assert found.description == "cluttered scenes of image tree photos (PNG files), 60x60"
    assert found.mirrors_keep_class
    assert found.classes == [*CLASSES]
    assert torch.equal(found.train.labels, whole.train.labels)
    full_size = (found.train.boxes[:, 0, 2] == 28).nonzero().flatten().tolist()
    assert full_size
    for index in full_size:
        rows, columns = inside(found.train.boxes[index, 0])
        assert torch.equal(found.train.images[index][:, rows, columns], whole.train.images[index])
    monkeypatch.setattr(datasets, "image_tree", lambda root: replace(whole, train=whole.test))
    equal = load("cluttered:photos")
    assert not torch.equal(equal.train.boxes, equal.test.boxes), "the splits are drawn from different seeds"
    wide = torch.cat([torch.full((9, 3, 10, 3), 255), torch.full((9, 3, 10, 10), 7), torch.full((9, 3, 10, 3), 255)], 3)
    assert scenes(wide.byte(), 1, 0).images.unique().tolist() == [0, 7]


def test_memory_grows_by_the_scenes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling needs floating-point numbers, of so many images at once however many there are."""
    most = []
    from scripts.data import clutter

    original = clutter.resampled
    monkeypatch.setattr(clutter, "AT_ONCE", 20)
    monkeypatch.setattr(
        clutter, "resampled", lambda images, *how: (most.append(len(images)), original(images, *how))[1]
    )
    found = scenes(torch.zeros(200, 3, 8, 8, dtype=torch.uint8), 4, 0)
    assert max(most) == 20
    assert found.images.dtype == torch.uint8
    assert found.images.is_contiguous(memory_format=torch.channels_last), "as a run wants it, without a copy"


def test_the_pose_of_a_box_is_the_theta_that_samples_it() -> None:
    boxes = torch.tensor([[0, 0, 60, 60], [10, 20, 30, 30], [39, 1, 20, 20]])
    corners = (sampled_corners(Similarity().theta(of_boxes(boxes, 60, 60), 1.0)) + 1) * 30
    left, top, width, height = boxes.float().unbind(1)
    for corner, x, y in (
        (0, left, top),
        (1, left + width, top),
        (2, left + width, top + height),
        (3, left, top + height),
    ):
        torch.testing.assert_close(corners[:, corner], torch.stack([x, y], 1))


def test_a_batch_comes_with_the_poses_of_its_objects(numbered: Dataset) -> None:
    train = numbered.train[:40]
    chosen = torch.tensor([7, 3, 30, 9])
    share = slice(1, 3)
    batches = training_batches(
        train, [chosen], lambda images: images.float(), Augment(), generator(0), lambda count: share
    )
    ((images, labels, poses),) = [*batches]
    assert torch.equal(images, train.images[[3, 30]].float())
    assert torch.equal(labels, train.labels[[3, 30]])
    assert torch.equal(poses, of_boxes(train.boxes[[3, 30], 0], CANVAS, CANVAS))


@pytest.mark.parametrize("nested", ("cluttered:cluttered", "cluttered:cluttered:digits", "cluttered:"))
def test_clutter_of_clutter_is_refused_in_one_line(nested: str) -> None:
    wanted = "must name digits, cifar10, auto or a folder behind cluttered:"
    with pytest.raises(InputError, match=f"^{re.escape(f'--data ({nested}) {wanted}')}$"):
        load(nested)
