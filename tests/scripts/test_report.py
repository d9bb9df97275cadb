"""The report: drawn from the run folder alone, one page that works offline, and figures of the right data."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from components.spatial_transformer import PADDING_MODES
from scripts.data.datasets import load
from scripts.data.poses import POSES, posed_split
from scripts.experiment import train
from scripts.recipes.stn_arms import ARMS, ArmOptions
from scripts.run import figures, heat_maps, page
from scripts.run.findings import classification_findings, evenly_spaced
from scripts.run.page import write_report
from scripts.subjects.stn import subject
from scripts.train_stn import RECIPES, Options, main
from tests.support.runs import flags
from tests.support.strategies import generator, random_pixels
from tests.support.trees import write_tree


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs, whose images have been removed."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main(flags(Options, data=str(write_tree(root / "photos")), epochs=2, out=str(root / "run")))
        for name in ("photos", "data"):
            shutil.rmtree(root / name)
    return root / "run"


def test_the_page_is_drawn_again_from_the_folder_alone(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(finished, copy)
    for name in ("last.pt", "best.pt", "report.html", *(path.name for path in copy.glob("*.png"))):
        (copy / name).unlink()
    page = write_report(copy)
    assert page.read_text("utf-8") == (finished / "report.html").read_text("utf-8")


def test_the_figures_are_those_of_matplotlib_as_it_comes(finished: Path, tmp_path: Path) -> None:
    """Somebody's matplotlibrc may ask for TeX, for PDF or for other colours."""
    copy = tmp_path / "moved"
    shutil.copytree(finished, copy)
    with rc_context({"text.usetex": True, "savefig.format": "pdf", "axes.facecolor": "red"}):
        write_report(copy)
    assert (copy / "curves.png").read_bytes() == (finished / "curves.png").read_bytes()


def test_the_page_needs_no_network(finished: Path) -> None:
    text = (finished / "report.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{1,30})', text)
    assert len(sources) == 7
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.usefixtures("_undrawn")
def test_the_page_shows_the_last_ten_epochs_of_the_log_and_escapes_it(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "long"
    shutil.copytree(finished, copy)
    lines = (f"Epoch {i}/12, learning rate 1\nTest set: <script>alert({i})</script>\n" for i in range(1, 13))
    (copy / "train.log").write_text("".join(lines))
    text = write_report(copy).read_text("utf-8")
    log = re.search("<pre>(.*?)</pre>", text, re.DOTALL)[1]
    assert [int(epoch) for epoch in re.findall(r"Epoch (\d+)/", log)] == list(range(3, 13))
    assert log.count("&lt;script&gt;alert") == 10
    assert "<script>" not in text


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and everything that it shows or says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attributes)))
        self.said += " ".join(value or "" for _, value in attributes)

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))

    def handle_data(self, text: str) -> None:
        self.said += text


def spelled(value: object, more: str) -> object:
    """The same with more at the end of every string, and beside every entry another of that name."""
    if isinstance(value, dict):
        return {name: spelled(each, more) for name, each in value.items()} | {more: more}
    if isinstance(value, list):
        return [spelled(each, more) for each in value]
    return value + more if isinstance(value, str) else value


def test_nothing_that_a_run_folder_says_can_become_markup(finished: Path, tmp_path: Path) -> None:
    """Whatever classes, folders, options, notices, titles and the log are called, the page has the same elements."""
    outlines, names = [], ("MARK", "MARK'\"><script>alert(1)</script><b onclick='x'>&amp;&lt;i&gt;{{ title }}<!--")
    for place, name in enumerate(names):
        copy = tmp_path / str(place)
        shutil.copytree(finished, copy)
        for file in ("config.json", "environment.json", "summary.json"):
            (copy / file).write_text(json.dumps(spelled(json.loads((copy / file).read_text()), name)))
        (copy / "train.log").write_text(f"Epoch 1/1 {name}\n{name}\n")
        figure = page.ReportFigure("figure", name, name, b"")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(page, "_figures", lambda *_, figure=figure: [figure])
            patch.setattr(page, "collapse_warning", lambda row, name=name: name)
            outlines.append(Outline(write_report(copy).read_text("utf-8")))
    plain, hostile = outlines
    assert hostile.elements == plain.elements
    assert hostile.said.count("MARK") == plain.said.count("MARK") > 40
    assert hostile.said.count(names[1]) >= 10, "as it was written, where it is not in quotes"


def test_names_of_classes_and_folders_are_drawn_as_they_are_spelled() -> None:
    """Between two dollars Matplotlib sets mathematics, and the report of a run ended with an error of its syntax."""
    names = [r"$\frac$", "$x^2$", "a_$b", r"\$"]
    every, none = torch.arange(4), torch.full((4,), 4)
    few, many = [*names, "cat"], [*names, "cat", *map(str, range(figures.MOST_CLASSES))]
    counts = torch.zeros(len(many), len(many), dtype=torch.long)
    counts[every, none] = 1
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    wrong = {"wrong_images": images, "wrong_labels": every, "wrong_predictions": none, "wrong_confidences": every}
    cam = {"cam_images": images, "cam_maps": torch.zeros(4, 8, 8), "cam_labels": every, "cam_predictions": none}
    for figure in (
        drawn_by(figures.confusion, torch.eye(5), few),
        drawn_by(figures.confusion, counts, many),
        drawn_by(figures.misclassified, wrong | {"classes": few}),
        drawn_by(heat_maps.grad_cam, cam | {"classes": few}),
        drawn_by(figures.range_curve, [0.1, 0.2], [1.0, 1.0], [1.0, 1.0], None, f"on tree:{' '.join(names)}"),
    ):
        texts = [text for text in figure.findobj(Text) if any(name in text.get_text() for name in names)]
        assert all(any(name in text.get_text() for text in texts) for name in names)
        assert not any(text.get_parse_math() for text in texts)
        figure.draw_without_rendering()


@pytest.mark.usefixtures("_undrawn")
def test_the_page_warns_of_a_transformer_that_does_the_same_to_every_image(finished: Path, tmp_path: Path) -> None:
    """As it is after two epochs from the identity; a run of an earlier version has not measured it."""
    text = (finished / "report.html").read_text("utf-8")
    (notice,) = re.findall(r'<p class="notice"><strong>Warning:</strong> (.*)</p>', text)
    assert notice.startswith("the spatial transformer does the same to every image: ")
    spread = json.loads((finished / "summary.json").read_text())["theta_spread"]
    assert f"<b>{spread:.2f}</b>spread of theta in pixels" in text
    copy = tmp_path / "earlier"
    shutil.copytree(finished, copy)
    for name in ("metrics.csv", "summary.json"):
        (copy / name).write_text((copy / name).read_text().replace("theta_spread", "unknown"))
    text = write_report(copy).read_text("utf-8")
    assert "same to every image: " not in text.split("<pre>")[0]
    assert "spread of theta" not in text


@pytest.mark.parametrize("known", [None, False, True])
def test_an_unknown_commit_is_called_unknown(known: bool | None) -> None:
    config: dict[str, dict[str, object]] = {"asked": {}, "resolved": {}}
    facts = dict(page.facts(config, {"commit": None, "uncommitted_changes": known}))
    assert facts == {"commit": "unknown", "uncommitted changes": "unknown" if known is None else str(known)}


def coloured(path: Path) -> float:
    """Share of the picture that is not white."""
    pixels = torch.tensor(list(Image.open(path).convert("L").tobytes()))
    return (pixels < 250).double().mean().item()


def test_no_figure_is_blank(finished: Path) -> None:
    shares = {path.stem: coloured(path) for path in finished.glob("*.png")}
    assert set(shares) == {"curves", "theta", "transformer", "poses", "grad_cam", "confusion", "misclassified"}
    assert all(share > 0.02 for share in shares.values()), shares
    assert shares["transformer"] > 0.3


@pytest.mark.usefixtures("tree")
def test_a_run_on_posed_images_draws_the_pose_taken_out_against_the_one_put_in(tmp_path: Path) -> None:
    main(flags(Options, data="photos", epochs=1, pose="rts", out="run"))
    correlation = json.loads((tmp_path / "run" / "summary.json").read_text())["pose_correlation"]
    assert -1 <= correlation <= 1
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"<b>{correlation:.2f}</b>correlation of pose and theta" in text
    for name, title in (("poses", "The same image in eight poses"), ("angles", "The angle taken out")):
        assert coloured(tmp_path / "run" / f"{name}.png") > 0.02
        assert f'alt="{title}' in text


@pytest.mark.usefixtures("_undrawn")
def test_the_page_says_which_views_the_accuracy_is_an_average_over(finished: Path, tmp_path: Path) -> None:
    """A run of an earlier version knows of none."""
    for tta, shown in (("mirror", ["mirror"]), ("none", []), (None, [])):
        copy = tmp_path / str(tta)
        shutil.copytree(finished, copy)
        numbers = json.loads((copy / "summary.json").read_text())
        assert numbers.pop("tta") == "none"
        if shown:
            numbers["test_accuracy_without_tta"] = 12.5
        (copy / "summary.json").write_text(json.dumps(numbers | ({"tta": tta} if tta else {})))
        text = write_report(copy).read_text("utf-8")
        assert re.findall("<b>(.*)</b>test-time augmentation", text) == shown
        assert re.findall("<b>(.*)</b>test accuracy, last epoch, without it", text) == ["12.50 %"] * len(shown)


@pytest.mark.usefixtures("_undrawn")
def test_large_numbers_are_in_groups_of_three_digits(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    large = {"parameters": 21538954, "seconds": 13809.2, "images_per_second": 20892, "peak_memory_mib": 1856}
    path.write_text(json.dumps(json.loads(path.read_text()) | large))
    shown = re.findall("<b>(.*)</b>", write_report(tmp_path / "run").read_text("utf-8"))
    assert {"21,538,954", "13,809", "20,892", "1,856"} <= {*shown}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"recipe": "tuned"}, ""),
        ({"recipe": "small"}, " The training loss includes label smoothing and the loss of the predicted pose."),
        ({"recipe": "small", "no_transformer": True}, " The training loss includes label smoothing."),
        ({"recipe": "affine"}, " The training loss includes label smoothing."),
        ({"recipe": "similarity-prior"}, " The training loss includes label smoothing and the prior of theta."),
    ],
)
@pytest.mark.usefixtures("tree", "_undrawn")
def test_the_caption_of_the_curves_says_what_else_is_in_the_training_loss(
    given: dict[str, object], more: str, tmp_path: Path
) -> None:
    entry = ArmOptions if given["recipe"] in ARMS else Options
    train(flags(entry, data="photos", epochs=1, out="run", **given), RECIPES | ARMS, subject)
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"<p>Training set (during the epoch) and test set (after it).{more}</p>" in text


@pytest.mark.parametrize(
    ("recipe", "outside"),
    [
        ("tuned", "is zero, the mean of the normalisation,"),
        ("tutorial", "is zero, the mean of the normalisation,"),
        ("small", "mirrors the image"),
        ("angle-mean", "has the mean colour of the image"),
    ],
)
@pytest.mark.usefixtures("tree", "_undrawn")
def test_a_caption_says_what_lies_outside_the_frame(recipe: str, outside: str, tmp_path: Path) -> None:
    entry = ArmOptions if recipe in ARMS else Options
    train(flags(entry, data="photos", epochs=1, recipe=recipe, out="run"), RECIPES | ARMS, subject)
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"Lower rows: the input of the classifier, which {outside} outside the frame.</p>" in text
    assert set(page.OUTSIDE) == set(PADDING_MODES)


NAMES = ("great white shark, white shark, man-eater, Carcharodon carcharias", "tiger shark, Galeocerdo cuvieri", "ray")


@given(st.text("abc ", max_size=40), st.integers(3, 20))
def test_a_long_name_keeps_both_ends(name: str, most: int) -> None:
    shown = figures.short(name, most)
    assert len(shown) == min(len(name), most)
    if len(name) > most:
        start, end = shown.split("\N{HORIZONTAL ELLIPSIS}")
        assert name.startswith(start)
        assert name.endswith(end)


@pytest.mark.parametrize("count", [3, 50])
def test_names_of_any_length_leave_room_for_the_figure(count: int) -> None:
    classes = [f"{NAMES[i % 3]} {i}" for i in range(count)]
    counts = torch.arange(count * count).view(count, count)
    figure = drawn_by(lambda file: figures.confusion(counts, classes, file))
    (axes,) = figure.axes
    FigureCanvasAgg(figure).draw()  # lays it out
    canvas, area = figure.bbox, axes.get_window_extent()
    assert area.width > 0.3 * canvas.width
    assert area.height > 0.3 * canvas.height
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        drawn = label.get_window_extent()
        assert not label.get_text() or (drawn.x0 >= canvas.x0 and drawn.y0 >= canvas.y0), label.get_text()


def test_titles_of_long_names_end_where_the_next_image_begins() -> None:
    wrong = {"wrong_images": torch.zeros(20, 3, 8, 8, dtype=torch.uint8), "wrong_labels": torch.zeros(20).long(),
             "wrong_predictions": torch.ones(20).long(), "wrong_confidences": torch.ones(20),
             "classes": NAMES}  # fmt: skip
    cam = {"cam_images": torch.zeros(8, 3, 8, 8, dtype=torch.uint8), "cam_maps": torch.zeros(8, 8, 8),
           "cam_labels": torch.zeros(8).long(), "cam_predictions": torch.ones(8).long(), "classes": NAMES}  # fmt: skip
    for figure in (drawn_by(figures.misclassified, wrong), drawn_by(heat_maps.grad_cam, cam)):
        titles = [axes.title for axes in figure.axes if axes.get_title()]
        for one, following in pairwise(titles):
            left, right = one.get_window_extent(), following.get_window_extent()
            assert left.x1 <= right.x0 or left.y0 != right.y0


def test_names_of_all_scripts_are_listed_as_they_are() -> None:
    config = {"asked": {}, "resolved": {"classes": ["\u05e9\u05dc\u05d5\u05dd", "cat"]}}
    environment = {"commit": "a", "uncommitted_changes": False}
    assert ("classes", '["\u05e9\u05dc\u05d5\u05dd", "cat"]') in page.facts(config, environment)


def test_angles_are_drawn_on_one_turn_with_their_correlation(tmp_path: Path) -> None:
    """The more images there are of a pair, the larger is its dot."""
    put_in = torch.tensor([0.0, 315, -100, -45]).deg2rad()
    angles = torch.stack([put_in, torch.tensor([370.0, 0, 260, 360]).deg2rad()])
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
        figures.angles(angles, 0.857, tmp_path / "angles.png")
    (axes,) = drawn[0].axes
    (dots,) = axes.collections
    assert dots.get_offsets().tolist() == [[-100, -100], [-45, 0], [0, 10]]
    assert dots.get_sizes()[1] > dots.get_sizes()[0] == dots.get_sizes()[2]
    assert "0.86" in axes.get_title(loc="left")


def drawn_by(draw: Callable[..., None], *data: object) -> Figure:
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
        draw(*data, Path("figure.png"))
    return drawn[0]


def is_coloured(pixels: np.ndarray) -> bool:
    return bool((np.ptp(np.asarray(pixels, dtype=float), axis=-1) > 0.05).any())


@pytest.mark.parametrize(
    ("count", "layers", "heads", "cells"), [(2, 7, 4, (8, 8)), (1, 12, 12, (2, 3)), (2, 1, 1, (1, 1))]
)
def test_attention_of_every_layer_and_head_is_drawn_at_its_row_and_column(
    count: int, layers: int, heads: int, cells: tuple[int, int]
) -> None:
    """In a figure that is no wider than the page shows it, whatever the number of heads."""
    maps = torch.zeros(count, layers, heads, *cells)
    maps[count - 1, layers // 2, heads - 1, -1, 0] = 0.3
    side = 4
    images = torch.full((8, 3, side * cells[0], side * cells[1]), 100, dtype=torch.uint8)
    figure = drawn_by(heat_maps.attention_layers, {"attention_layers": maps, "attention_images": images})
    assert figure.get_figwidth() <= 11.21
    (axes,) = figure.axes
    assert len(axes.images) == count * (1 + layers * heads)
    (bright,) = (image for image in axes.images if is_coloured(image.get_array()))
    left, right, bottom, top = bright.get_extent()
    aspect = cells[1] / cells[0]
    assert (right - left) / (bottom - top) == pytest.approx(aspect)
    names = {text.get_text(): text.get_position() for text in axes.texts}  # of several images, the last one's heads
    assert set(names) == {*(f"layer {i + 1}" for i in range(layers)), *(f"head {i + 1}" for i in range(heads))}
    assert top < names[f"layer {layers // 2 + 1}"][1] < bottom
    assert left < names[f"head {heads}"][0] < right
    pixels = np.ptp(np.asarray(bright.get_array()), axis=-1)
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (row // side, column // side) == (cells[0] - 1, 0)


def test_an_image_stands_beside_its_poses_and_each_pose_above_its_output() -> None:
    """Each pose with the sampled area, here all of it."""
    height, width, count = 4, 6, 3
    images, before = random_pixels(0, 2, height, width), random_pixels(1, 2 * count, height, width)
    after = random_pixels(2, 2 * count, 2, 3)  # as a transformer with an output size has it
    inputs, outputs = before.unflatten(0, (2, count)), after.unflatten(0, (2, count))
    found = {
        "posed_images": images, "posed_inputs": inputs, "posed_outputs": outputs, "poses": torch.zeros(count, 4),
        "posed_theta": torch.eye(2, 3).expand(2, count, 2, 3),
    }  # fmt: skip
    (axes,) = drawn_by(figures.poses, found).axes
    shown, places = {}, {}
    for image in axes.images:
        left, right, bottom, top = image.get_extent()
        assert (right - left, bottom - top) == (width, height)
        place = (int((top + 0.5) // height), int((left + 0.5) // width))
        shown[place], places[left, top, right, bottom] = torch.from_numpy(np.asarray(image.get_array())), place
    expected = {(2 * i, 0): image for i, image in enumerate(images)}
    for i, j in np.ndindex(2, count):
        expected |= {(2 * i, 1 + j): inputs[i, j], (2 * i + 1, 1 + j): outputs[i, j]}
    assert shown.keys() == expected.keys()
    assert all(torch.equal(shown[place], image.permute(1, 2, 0)) for place, image in expected.items())
    outlined = {places[(*patch.get_xy().min(0), *patch.get_xy().max(0))] for patch in axes.patches}
    assert outlined == {(2 * i, 1 + j) for i, j in np.ndindex(2, count)}
    assert [text.get_text() for text in axes.texts] == ["upright", *["0°"] * count]


@pytest.mark.parametrize("behind", [False, True])
def test_grad_cam_is_drawn_below_each_image_with_truth_and_prediction(behind: bool) -> None:
    images = torch.full((3, 3, 8, 12), 50, dtype=torch.uint8)
    maps = torch.zeros(3, 8, 12)
    maps[1, 2, 3] = 1e-3
    found = {
        "cam_images": images, "cam_maps": maps, "cam_labels": torch.tensor([0, 1, 2]),
        "cam_predictions": torch.tensor([0, 2, 2]), "classes": ["cat", "dog", "ship"],
    }  # fmt: skip
    if behind:
        theta = torch.eye(2, 3).expand(3, -1, -1)
        found |= {"cam_seen": images + 9, "cam_seen_maps": maps.flip(0, 1), "cam_theta": theta}
    figure = drawn_by(heat_maps.grad_cam, found)
    grid = np.array(figure.axes).reshape(-1, 3)
    assert len(grid) == 2 + behind
    assert [axes.get_title() for axes in grid[0]] == ["cat", "dog\n→ ship", "ship"]
    assert [axes.get_title() for axes in grid[1:].flat] == [""] * grid[1:].size
    shown = [[np.asarray(axes.images[0].get_array(), dtype=float) for axes in row] for row in grid]
    assert [[is_coloured(pixels) for pixels in row] for row in shown] == [
        [False] * 3,
        *[[False, True, False]] * (1 + behind),
    ]
    assert np.ptp(shown[1][1], axis=-1).argmax() == 2 * 12 + 3
    np.testing.assert_allclose(shown[1][0], 50 / 255)
    assert [len(axes.patches) for axes in grid[0]] == [int(behind)] * 3
    if behind:
        assert np.ptp(shown[2][1], axis=-1).argmax() == 5 * 12 + 3
        np.testing.assert_allclose(shown[2][0], 59 / 255)


def test_a_class_taken_for_one_whose_name_is_cut_to_the_same_is_drawn_as_wrong() -> None:
    found = {
        "cam_images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "cam_maps": torch.zeros(2, 8, 8),
        "cam_labels": torch.tensor([0, 1]), "cam_predictions": torch.tensor([1, 1]),
        "classes": ["dataset-cat-photos", "dataset-dog-photos"],
    }  # fmt: skip
    first, second, *_ = drawn_by(heat_maps.grad_cam, found).axes
    assert ("→" in first.get_title(), "→" in second.get_title()) == (True, False)


def test_findings_of_an_earlier_version_are_drawn_without_the_figures_that_it_lacks(
    finished: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "earlier"
    shutil.copytree(finished, copy)
    found = torch.load(copy / "findings.pt", weights_only=True)
    torch.save({name: value for name, value in found.items() if not name.startswith("cam_")}, copy / "findings.pt")
    assert "Grad-CAM" in (finished / "report.html").read_text("utf-8")
    assert "Grad-CAM" not in write_report(copy).read_text("utf-8")


def test_every_misclassified_image_is_on_the_sheet(tmp_path: Path) -> None:
    count = 120
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)  # black squares on white
    logits = torch.tensor([[0.0, 2.0]]).repeat(count, 1)
    found = classification_findings(images, logits, torch.zeros(count, dtype=torch.long), ["cat", "dog"])
    assert found["wrong_total"] == count
    assert found["wrong_images"].shape == (100, 3, 8, 8)
    assert found["wrong_confidences"].tolist() == pytest.approx([0.880797] * 100)
    shares = []
    for shown in (0, 7, 30):
        first = {name: value[:shown] if torch.is_tensor(value) else value for name, value in found.items()}
        figures.misclassified(first, tmp_path / "sheet.png")
        shares.append(coloured(tmp_path / "sheet.png"))
    assert shares[0] == 0
    assert 0.2 < shares[1] < shares[2]
    assert shares[2] > 0.35


@pytest.mark.parametrize(("count", "kinds"), [(0, 2), (9, 2), (25, 5)])
def test_every_image_on_the_sheet_is_a_test_image_with_its_label_and_what_was_said(count: int, kinds: int) -> None:
    """Byte for byte, with truth, prediction and confidence above it; none that was classified correctly."""
    images, draw = random_pixels(0, count, 5, 7), generator(1)
    logits, labels = torch.randn(count, kinds, generator=draw), torch.randint(kinds, (count,), generator=draw)
    classes = [f"class {number}" for number in range(kinds)]
    found = classification_findings(images, logits, labels, classes)
    shown = {}
    for axes in drawn_by(figures.misclassified, found).axes:
        for image in axes.images:
            pixels = np.asarray(image.get_array())
            assert pixels.dtype == np.uint8
            shown[pixels.tobytes()] = axes.get_title()
    expected = {}
    confidences, said = logits.softmax(1).max(1)
    for image, label, prediction, confidence in zip(images, labels, said, confidences, strict=True):
        if label != prediction:
            title = f"{classes[label]}\n→ {classes[prediction]}, {confidence:.0%}"
            expected[image.permute(1, 2, 0).numpy().tobytes()] = title
    assert shown == expected


@pytest.mark.usefixtures("_no_report")
def test_the_images_that_a_run_shows_are_those_that_it_was_tested_on(tree: Path, tmp_path: Path) -> None:
    """As they were decoded and posed, not as they were normalised; each with the label of its class."""
    main(flags(Options, data=str(tree), epochs=1, lr=1e-9, pose="rts", out="run"))  # it learns nothing
    test = load(str(tree)).test
    tested = posed_split(test, POSES["rts"]).images
    found = torch.load(tmp_path / "run" / "findings.pt", weights_only=True)
    assert found["wrong_total"] == len(found["wrong_images"]) > 0
    for name, images in {"wrong": tested, "cam": tested, "transformer": tested, "posed": test.images}.items():
        shown = found["transformer_inputs" if name == "transformer" else f"{name}_images"]
        assert shown.dtype == torch.uint8
        same = (shown.unsqueeze(1) == images).flatten(2).all(2)  # (shown, tested)
        assert (same.sum(1) == 1).all(), name
        if f"{name}_labels" in found:
            assert torch.equal(test.labels[same.long().argmax(1)], found[f"{name}_labels"]), name


def test_of_many_classes_the_pairs_that_are_confused_most_are_shown(tmp_path: Path) -> None:
    """A thousand classes took three quarters of an hour and 12 GB as a matrix with numbers."""
    counts = torch.diag(torch.full((1000,), 9))
    counts[3, 7], counts[7, 3], counts[999, 0] = 5, 2, 4
    names = [f"class {number}" for number in range(1000)]
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file: drawn.append(figure))
        figures.confusion(counts, names, tmp_path / "confusion.png")
    (axes,) = drawn[0].axes
    pairs = ["class 3 → class 7", "class 999 → class 0", "class 7 → class 3"]
    assert [text.get_text() for text in axes.get_yticklabels()] == pairs
    assert [bar.get_width() for bar in axes.patches] == [5, 4, 2]
    figures.confusion(torch.diag(torch.ones(30)), names[:30], tmp_path / "none.png")


def test_the_confusion_matrix_counts_truth_by_row() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2])
    predicted = torch.tensor([0, 1, 1, 1, 0])
    logits = torch.nn.functional.one_hot(predicted, 3).float()
    found = classification_findings(torch.zeros(5, 3, 2, 2, dtype=torch.uint8), logits, labels, ["a", "b", "c"])
    assert found["confusion"].tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]
    assert sorted(zip(found["wrong_labels"].tolist(), found["wrong_predictions"].tolist(), strict=True)) == [
        (0, 1), (0, 1), (2, 0),
    ]  # fmt: skip


def test_examples_are_evenly_spaced() -> None:
    assert evenly_spaced(10_000, 5).tolist() == [0, 2500, 5000, 7499, 9999]
    assert evenly_spaced(3, 24).tolist() == [0, 1, 2]
