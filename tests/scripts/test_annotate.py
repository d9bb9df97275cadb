"""scripts.annotate: annotated scenes that pycocotools reads, and what a trained transformer looks at in them."""

import csv
import json
import math
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from components import SpatialTransformer
from scripts import annotate, train_stn
from scripts.data.datasets import Dataset, load
from scripts.run.folder import read_metrics
from scripts.system.command_line import parse
from scripts.system.errors import InputError, Stopped
from tests.support.runs import flags
from tests.support.servers import go_offline
from tests.support.trees import CLASSES, write_tree

pytestmark = pytest.mark.numerics

LOOKS_AT = (15, 15, 30, 30)  # of the run below: the middle of every image


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on cluttered photos, whose transformer was made to look at the middle of every image."""
    folder = tmp_path_factory.mktemp("annotate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tree(folder / "photos", per_class=16)
        train_stn.main(flags(train_stn.Options, data="cluttered:photos", recipe="zoom", epochs=1, out="run"))
    state = torch.load(folder / "run" / "last.pt", weights_only=True)
    torch.nn.init.zeros_(state["model"]["transformer.localization.head.weight"])
    state["model"]["transformer.localization.head.bias"].copy_(torch.tensor([1, 0, math.log(0.5), 0, 0]))
    torch.save(state, folder / "run" / "last.pt")
    return folder


@pytest.fixture
def scenes(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The scenes of the run."""
    monkeypatch.chdir(root)
    return load("cluttered:photos")


def annotated(*arguments: object) -> None:
    annotate.main(parse(annotate.Options, "annotate", [*map(str, arguments)]))


@pytest.fixture(scope="module")
def drawn(root: Path) -> Path:
    """All test images of the run, annotated from another folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root.parent)
        annotated("--run", root / "run", "--out", root / "drawn")
    return root / "drawn"


def test_the_current_folder_may_be_drawn_into(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    annotated("--data", f"cluttered:{root / 'photos'}", "--count", 2, "--out", ".")
    kept = "data"  # decoded photos
    assert {path.name for path in Path.cwd().iterdir()} == {kept, "images", "annotations.json", "sheet.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_into_a_folder_that_exists_nothing_is_moved_from_elsewhere(root: Path, tmp_path: Path, monkeypatch) -> None:
    """It may be the only one that can be written, or on a file system of its own."""
    (tmp_path / "mine").mkdir()
    rename, moved = Path.rename, []
    monkeypatch.setattr(Path, "rename", lambda self, to: (moved.append(self), rename(self, to))[1])
    annotated("--data", f"cluttered:{root / 'photos'}", "--count", 2, "--out", tmp_path / "mine")
    assert len(moved) == 3
    assert all(path.is_relative_to((tmp_path / "mine").resolve()) for path in moved)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"images", "annotations.json", "sheet.png"}


def test_the_sheet_is_no_larger_than_a_picture_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of matplotlib refuse more than 65,535 pixels a side."""
    drawn = []
    monkeypatch.setattr("scripts.run.figures.annotated", lambda images, *_: drawn.append(len(images)))
    dataset = load("cluttered:digits")
    many = dataset.test[torch.zeros(1001, dtype=torch.long)]
    annotate.write(tmp_path, dataset, many, [*range(1001)], None, [])
    assert drawn == [1000]
    assert len([*(tmp_path / "images").iterdir()]) == 1001


def test_a_run_on_cluttered_images_moves_no_object_and_its_report_shows_what_the_classifier_sees(root: Path) -> None:
    resolved = json.loads((root / "run" / "config.json").read_text())["resolved"]
    assert (resolved["augment"]["mirror"], resolved["augment"]["shift"], resolved["image_size"]) == (False, 0, [60, 60])
    found = torch.load(root / "run" / "findings.pt", weights_only=True)
    assert found["transformer_inputs"].shape[1:] == found["cam_images"].shape[1:] == (3, 60, 60)
    assert found["transformer_outputs"].shape[1:] == found["cam_seen"].shape[1:] == (3, 32, 32)
    drawn = {path.name for path in (root / "run").iterdir()}
    assert {"theta.png", "transformer.png", "grad_cam.png"} <= drawn
    assert "poses.png" not in drawn, "it was not asked to undo any"
    assert "test_accuracy_in_poses" not in json.loads((root / "run" / "summary.json").read_text())
    (row,) = read_metrics(root / "run")
    assert 1 < row["theta_scale_mean"] < 2.2, "60 pixels of the canvas are shown on 32"


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_pycocotools_reads_every_box_of_every_scene(
    drawn: Path, scenes: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    coco, test = COCO(drawn / "annotations.json"), scenes.test
    capsys.readouterr()
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [*CLASSES, "distractor"]
    assert coco.getImgIds() == [*range(1, len(test) + 1)]
    for number, image, label, boxes in zip(coco.getImgIds(), test.images, test.labels, test.boxes, strict=True):
        (described,) = coco.loadImgs(number)
        pixels = np.asarray(Image.open(drawn / "images" / described["file_name"]))
        assert np.array_equal(pixels, image.permute(1, 2, 0)), "of the image itself"
        assert pixels.shape == (described["height"], described["width"], 3)
        (whole,) = coco.loadAnns(coco.getAnnIds(number, [label.item() + 1]))
        assert whole["bbox"] == boxes[0].tolist()
        every = coco.loadAnns(coco.getAnnIds(number))
        assert [each["bbox"] for each in every] == boxes[boxes[:, 2] > 0].tolist()
        for each in every:
            left, top, width, height = each["bbox"]
            mask = np.zeros((60, 60), dtype=np.uint8)
            mask[top : top + height, left : left + width] = 1
            assert np.array_equal(coco.annToMask(each), mask)
            assert each["area"] == mask.sum()
            assert each["iscrowd"] == 0
            assert (each["category_id"] == 4) == ("piece_of" in each)
        assert len(coco.getAnnIds(number, [4])) == len(every) - 1
    assert len(set(coco.getAnnIds())) == (test.boxes[..., 2] > 0).sum()


def test_fewer_images_keep_their_numbers_and_files(drawn: Path, root: Path, scenes: Dataset) -> None:
    annotated("--data", "cluttered:photos", "--count", 5, "--out", root / "few")
    few, every = (json.loads((folder / "annotations.json").read_text()) for folder in (root / "few", drawn))
    assert len(few["images"]) == 5
    for kind in ("images", "annotations"):
        assert [each for each in few[kind] if each not in every[kind]] == []
    assert few["categories"] == every["categories"]
    assert {path.name for path in (root / "few").iterdir()} == {"images", "annotations.json", "sheet.png"}
    for path in (root / "few" / "images").iterdir():
        assert path.read_bytes() == (drawn / "images" / path.name).read_bytes()


def test_images_of_a_run_with_few_have_the_numbers_of_all(drawn: Path, root: Path, scenes: Dataset) -> None:
    limited = root / "limited"
    shutil.copytree(root / "run", limited)
    config = json.loads((limited / "config.json").read_text())
    config["asked"]["limit_test"] = 5
    (limited / "config.json").write_text(json.dumps(config))
    annotated("--run", limited, "--out", root / "drawn-limited")
    files = [*(root / "drawn-limited" / "images").iterdir()]
    assert len(files) >= 5
    for file in files:
        assert file.read_bytes() == (drawn / "images" / file.name).read_bytes()


def test_a_run_of_other_classes_is_refused(root: Path, scenes: Dataset) -> None:
    """Data ``auto`` may be others by now."""
    other = root / "other"
    shutil.copytree(root / "run", other)
    config = json.loads((other / "config.json").read_text())
    config["asked"]["data"] = "cluttered:digits"
    (other / "config.json").write_text(json.dumps(config))
    wanted = r"^--run \(other\) must be of cluttered:digits, which its data are now; its classes differ$"
    with pytest.raises(InputError, match=wanted):
        annotated("--run", "other", "--out", root / "drawn-other")
    assert not (root / "drawn-other").exists()


def test_a_transformer_sees_few_images_at_once(
    drawn: Path, root: Path, scenes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are drawn, they fit into memory."""
    batches, warp = [], SpatialTransformer.forward

    def seen(transformer: SpatialTransformer, x: torch.Tensor, **options: object) -> object:
        batches.append(len(x))
        return warp(transformer, x, **options)

    monkeypatch.setattr(SpatialTransformer, "forward", seen)
    monkeypatch.setattr(annotate, "AT_ONCE", 7)
    annotated("--run", "run", "--out", root / "drawn-in-parts")
    assert max(batches) == 7
    assert sum(batches) == len(scenes.test)
    whole, parts = ((folder / "overlap.csv").read_text() for folder in (drawn, root / "drawn-in-parts"))
    assert parts == whole


def test_the_overlap_is_that_of_the_sampled_area_and_the_box(drawn: Path, scenes: Dataset) -> None:
    with (drawn / "overlap.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    expected = []
    for box in scenes.test.boxes[:, 0].tolist():
        shared = math.prod(
            max(0, min(a + side, b + other) - max(a, b))
            for a, b, side, other in zip(box[:2], LOOKS_AT[:2], box[2:], LOOKS_AT[2:], strict=True)
        )
        expected.append(shared / (box[2] * box[3] + LOOKS_AT[2] * LOOKS_AT[3] - shared))
    assert [float(row["overlap"]) for row in rows] == pytest.approx(expected, abs=1e-4)
    corners = [float(rows[0][name]) for name in ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")]
    assert corners == pytest.approx([15, 15, 45, 15, 45, 45, 15, 45], abs=0.01)
    assert [row["class"] for row in rows] == [CLASSES[label] for label in scenes.test.labels]
    assert len({*expected}) > 1


def test_the_last_line_says_what_was_measured_and_where_it_is(
    root: Path, scenes: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    annotated("--run", "run", "--count", 4)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    folder = Path(said["folder"])
    assert re.fullmatch(r"runs/annotated-cluttered-tree-photos-\d{8}-\d{6}", said["folder"])
    with (folder / "overlap.csv").open(newline="") as file:
        each = [float(row["overlap"]) for row in csv.DictReader(file)]
    assert said == {
        "data": "cluttered:tree:photos",
        "images": 4,
        "mean_overlap": pytest.approx(sum(each) / 4, abs=1e-3),
        "folder": said["folder"],
    }
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    with pytest.raises(InputError, match="must be a new or empty folder; it exists already"):
        annotated("--run", "run", "--out", folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_the_sheet_shows_box_and_sampled_area(drawn: Path, root: Path, scenes: Dataset) -> None:
    """In green and red, on grey images of noise."""
    annotated("--data", "cluttered:photos", "--out", root / "boxes")
    for folder, red_there in ((drawn, True), (root / "boxes", False)):
        red, green, blue = np.moveaxis(np.asarray(Image.open(folder / "sheet.png").convert("RGB")).astype(int), 2, 0)
        assert ((green > red + 60) & (green > blue + 60)).sum() > 100 * len(scenes.test)
        assert (((red > green + 90) & (red > blue + 90)).sum() > 100 * len(scenes.test)) == red_there


def test_a_signal_leaves_an_empty_folder_empty(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(annotate, "write", interrupted)
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM before all was drawn$"):
        annotated("--data", f"cluttered:{root / 'photos'}", "--count", 2, "--out", tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_link_to_itself_is_no_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((InputError, OSError), match="loop"):
        annotated("--data", f"cluttered:{root / 'photos'}", "--count", 2, "--out", tmp_path / "loop")


def test_without_cifar10_it_draws_digits_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    go_offline(monkeypatch)
    few = SimpleNamespace(images=np.ones((20, 8, 8)), target=np.arange(20) % 10)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)
    annotated("--count", 2, "--out", "drawn")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("CIFAR-10 is not available")
    assert json.loads(last) == {"data": "cluttered:digits", "images": 2, "folder": "drawn"}


def test_weights_of_another_network_are_refused_and_nothing_is_left(
    root: Path, scenes: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_bytes((root / "run" / "config.json").read_bytes())
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "run" / "last.pt")
    wanted = f"{tmp_path / 'run' / 'last.pt'} must hold a network of this kit; it holds something else"
    with pytest.raises(InputError, match=f"^{re.escape(wanted)}$"):
        annotated("--run", tmp_path / "run", "--out", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
