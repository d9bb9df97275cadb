"""scripts.export from the command line: programs of both networks that compute what the run's network computes."""

import copy
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from scripts import train_stn, train_vit
from scripts.data.batches import resized
from scripts.data.datasets import Dataset, Split, load
from scripts.data.transforms import Normalise
from scripts.experiment import planned
from scripts.export import Options, main
from scripts.exporting import programs
from scripts.exporting.classifier import Classifier, metadata
from scripts.exporting.programs import FORMATS, TOLERANCE, compared, exported
from scripts.models.vit import PRESETS
from scripts.run import page
from scripts.subjects import stn, vit
from scripts.subjects.trained import Trained, read_trained
from scripts.system.command_line import command, parse
from scripts.system.errors import InputError
from scripts.system.machine import this_machine
from tests.contract.cases import randomised
from tests.support.marks import writes_onnx
from tests.support.networks import TINY_PRESETS
from tests.support.runs import flags
from tests.support.sources import ROOT
from tests.support.strategies import random_pixels
from tests.support.trees import CLASSES, write_tree

SIZE = (32, 32)
README = (ROOT / "scripts" / "README.md").read_text("utf-8")
# the language has a short name there, so that the test that runs all examples of a page without a file leaves it out
EXAMPLE = re.search(r"```py\n(.*?)```", README, re.DOTALL)[1]


def export(*arguments: str) -> None:
    main(parse(Options, "export", arguments))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Finished runs of both networks, one with validation images, and what they were trained on."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(page, "write_report", lambda folder: folder / "report.html")
        patch.setitem(PRESETS, "lite", TINY_PRESETS["lite"])
        data = str(write_tree(root / "photos"))
        for name, entry, given in (
            ("stn", train_stn, {"recipe": "small", "pose": "c8", "validation": 0.25}),
            ("vit", train_vit, {"recipe": "lite"}),
        ):
            entry.main(flags(entry.Options, data=data, epochs=2, batch_size=4, out=name, **given))
        yield {"stn": root / "stn", "vit": root / "vit", "photos": root / "photos"}


@pytest.fixture(scope="module")
def written(runs: dict[str, Path]) -> Callable[[str, str], tuple[Path, list[str]]]:
    """From a run and a format to the program of that run, and the lines that were printed; each is exported once."""

    @cache
    def write(run: str, kind: str) -> tuple[Path, list[str]]:
        with redirect_stdout(io.StringIO()) as printed:
            export(str(runs[run]), "--format", kind)
        return runs[run] / f"model.{kind}", printed.getvalue().splitlines()

    return write


def logits_of_the_run(trained: Trained, images: torch.Tensor) -> torch.Tensor:
    """As ``Trainer.prepare`` and ``Trainer.evaluate`` compute them."""
    with torch.inference_mode():
        return trained.network(trained.normalise(resized(images, trained.size)))


def test_a_run_that_was_stopped_within_an_epoch_is_named_as_it_is(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs["vit"], tmp_path / "run")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    state["progress"]["step"] = 3
    torch.save(state, tmp_path / "run" / "last.pt")
    main(Options(run=str(tmp_path / "run"), format="pt2"))
    assert f": last.pt after epoch {state['epoch']} and 3 steps of the next, " in capsys.readouterr().out


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=writes_onnx), "pt2"])
@pytest.mark.parametrize("run", ["stn", "vit"])
def test_a_program_computes_the_logits_of_its_run_for_any_batch(
    run: str, kind: str, runs: dict[str, Path], written: Callable[[str, str], tuple[Path, list[str]]]
) -> None:
    out, lines = written(run, kind)
    checkpoint = "best.pt" if run == "stn" else "last.pt"
    assert re.fullmatch(rf"{re.escape(str(out))}: {checkpoint} after epoch [12], \d+\.\d MB", lines[0])
    said = re.compile(r"(\d+) images: logits from \S+ as from the network within (.*) of .*")
    batches = [said.fullmatch(line) for line in lines[2:]]
    assert [int(match[1]) for match in batches] == [1, 3, 16]
    assert all(float(match[2]) <= TOLERANCE for match in batches)
    content = out.read_bytes()
    assert str(ROOT).encode() not in content, "no folder of this machine"
    assert b"site-packages" not in content
    opened, trained = FORMATS[kind].open(content), read_trained(runs[run])
    images = load(str(runs["photos"])).train.images
    assert len(images) == 24
    expected = logits_of_the_run(trained, images)
    assert expected.std(0).min() > 0, "images differ"
    for count in (1, 5, 24):
        torch.testing.assert_close(opened(images[:count]), expected[:count], atol=TOLERANCE, rtol=0)


@writes_onnx
def test_the_classifier_of_the_page_runs_where_there_is_no_torch(
    runs: dict[str, Path], written, tmp_path: Path
) -> None:
    assert len(EXAMPLE.strip().splitlines()) <= 24
    shutil.copy(written("stn", "onnx")[0], tmp_path / "model.onnx")
    paths = sorted(runs["photos"].glob("test/*/*.png"))
    without_torch = "import sys; sys.modules['torch'] = None; exec(sys.stdin.read())"
    done = subprocess.run(
        [sys.executable, "-c", without_torch, "model.onnx", *map(str, paths)], input=EXAMPLE, cwd=tmp_path, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths])).permute(0, 3, 1, 2)
    predicted = logits_of_the_run(read_trained(runs["stn"]), images).argmax(1)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [str(path), CLASSES[label]] for path, label in zip(paths, predicted, strict=True)
    ]


def test_pillow_resizes_as_a_run_does() -> None:
    """The page tells callers to: a run that shows its images larger or smaller does not leave that in the graph."""
    pixels = torch.randint(256, (1, 3, 40, 56), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    for height, width in ((32, 32), (24, 70), (96, 64)):
        theirs = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
        ours = resized(pixels, (height, width))[0].permute(1, 2, 0).numpy()
        assert np.abs(theirs - ours).max() <= 1


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=writes_onnx), "pt2"])
def test_a_program_tells_its_classes_and_its_run(kind: str, runs: dict[str, Path]) -> None:
    trained = read_trained(runs["stn"], "last")
    content = FORMATS[kind].write(exported(torch.nn.Flatten().eval(), SIZE), metadata(trained))
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content)
        found = session.get_modelmeta().custom_metadata_map
        assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    else:
        found = dict.fromkeys(metadata(trained), "")
        torch.export.load(io.BytesIO(content), extra_files=found)
    assert json.loads(found["classes"]) == [*CLASSES]
    assert found["input"].startswith("uint8 RGB images (B, 3, 32, 32)")
    facts = json.loads(found["run"])
    assert facts == {
        "checkpoint": "last.pt",
        "recipe": "small",
        "seed": 1,
        "epoch": 2,
        "pose": "c8",
        "tta": "none",
        "step": 0,
    }


def test_the_checkpoint_is_the_one_that_the_report_shows_unless_told(runs: dict[str, Path]) -> None:
    assert read_trained(runs["stn"]).facts["checkpoint"] == "best.pt"
    assert read_trained(runs["vit"]).facts["checkpoint"] == "last.pt"
    assert read_trained(runs["vit"], "best").facts["checkpoint"] == "best.pt"


@pytest.mark.parametrize("wrong", ["far", "not a number", "of another shape"])
def test_a_program_that_differs_is_refused_with_the_difference(wrong: str) -> None:
    classifier = Classifier(nn.Flatten(), Normalise((0.5,) * 3, (0.5,) * 3))  # logits of at most 1

    def run(images: torch.Tensor) -> torch.Tensor:
        logits = classifier(images)
        if len(images) == 16:
            logits = {"far": logits + 2e-4, "not a number": logits * torch.nan, "of another shape": logits[1:]}[wrong]
        return logits

    lines = compared(run, classifier, (2, 2), "onnxruntime")
    assert [next(lines).partition(":")[0], next(lines).partition(":")[0]] == ["1 images", "3 images"]
    number = {"far": r"2\.\de-04", "not a number": "nan", "of another shape": "inf"}[wrong]
    wanted = f"logits from onnxruntime for 16 images must be those of the network within 1e-04; they differ by {number}"
    with pytest.raises(InputError, match=f"^{wanted}$"):
        next(lines)


def test_large_logits_may_differ_by_a_share_of_the_largest() -> None:
    """Images far from those of the training give logits of hundreds, which have no four digits behind the point."""
    classifier = Classifier(nn.Flatten(), Normalise((0.5,) * 3, (1e-3,) * 3)).eval()

    def rounded(images: Tensor) -> Tensor:
        return classifier(images) * (1 + 2**-20)

    lines = [*compared(rounded, classifier, (2, 2), "onnxruntime")]
    assert [line.partition(":")[0] for line in lines] == ["1 images", "3 images", "16 images"]
    wrong = compared(lambda images: classifier(images) * 1.001, classifier, (2, 2), "onnxruntime")
    with pytest.raises(InputError, match=r"must be those of the network within 5e-02; they differ by \d\.\de-01$"):
        next(wrong)


class Cancels(nn.Module):
    """Rounding in float32 changes its logits by up to 5e-4."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 1e4) - 1e4).flatten(1)


def test_logits_may_differ_as_much_as_rounding_changes_them() -> None:
    classifier = Classifier(Cancels(), Normalise((0.5,) * 3, (0.5,) * 3))
    exact = copy.deepcopy(classifier).double()
    assert len([*compared(lambda images: exact(images).float(), classifier, (2, 2), "onnxruntime")]) == 3
    wrong = compared(lambda images: classifier(images) + 0.01, classifier, (2, 2), "onnxruntime")
    with pytest.raises(InputError, match=r"must be those of the network within \de-03; they differ by 1\.0e-02$"):
        next(wrong)


class CancelsForWhite(nn.Module):
    """The same for images that are white at their first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.where(flat[:, :1] > 0, (flat + 1e6) - 1e6, flat)


def test_what_rounding_changes_in_one_image_excuses_no_other() -> None:
    classifier = Classifier(CancelsForWhite(), Normalise((0.5,) * 3, (0.5,) * 3))
    wrong = compared(lambda images: classifier(images) + 0.01, classifier, (2, 2), "onnxruntime")
    with pytest.raises(InputError, match=r"within 1e-04; they differ by 1\.0e-02$"):
        list(wrong)


def test_a_program_that_differs_is_not_written(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = FORMATS["pt2"]
    monkeypatch.setitem(programs.FORMATS, "pt2", kind._replace(open=lambda content: lambda images: torch.zeros(1, 3)))
    with pytest.raises(InputError, match=r"^logits from torch\.export for 1 images must be "):
        export(str(runs["vit"]), "--format", "pt2", "--out", str(tmp_path / "model.pt2"))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", programs.ONNX)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    name: str, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in programs.ONNX:
        monkeypatch.setitem(sys.modules, each, None if each == name else sys)
    with pytest.raises(InputError) as error:
        export(str(runs["stn"]), "--out", str(tmp_path / "new.onnx"))
    installs = command("-m", "pip", "install", "onnx", "onnxscript", "onnxruntime")
    assert str(error.value) == f"{name} must be installed for --format onnx: {installs}"
    assert not [*tmp_path.iterdir()]


@writes_onnx
def test_translations_that_do_not_fit_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("a page\nof advice")

    monkeypatch.setattr(torch.onnx, "export", fails)
    wanted = (
        r"--format onnx needs another onnxscript: onnxscript \S+ cannot translate this network for torch \S+; \S+ -m "
    )
    with pytest.raises(InputError, match=f"^{wanted}pip install --upgrade onnx onnxscript onnxruntime$"):
        FORMATS["onnx"].write(exported(torch.nn.Flatten().eval(), SIZE), {})


def test_a_classifier_normalises_as_its_run_does(runs: dict[str, Path]) -> None:
    trained = read_trained(runs["vit"])
    images = load(str(runs["photos"])).test.images
    seen = Classifier(torch.nn.Identity(), trained.normalise)(images)
    torch.testing.assert_close(seen, trained.normalise(images), atol=1e-6, rtol=1e-6)


STN, VIT = (train_stn, stn.subject), (train_vit, vit.subject)


@pytest.mark.parametrize(
    ("recipe", "entry", "given"),
    [
        *((recipe, STN, {}) for recipe in train_stn.RECIPES),
        *((recipe, STN, {"no_transformer": True}) for recipe in ("tuned", "small")),
        *((recipe, VIT, {"weights": "read.npz", "resume": "begun"}) for recipe in train_vit.RECIPES),
    ],
)
def test_the_network_of_every_recipe_is_read_again(
    recipe: str, entry: tuple, given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for preset, sizes in TINY_PRESETS.items():
        monkeypatch.setitem(PRESETS, preset, sizes)
    monkeypatch.chdir(tmp_path)
    Path("begun").mkdir()
    Path("begun/last.pt").touch()
    (script, build), split = entry, Split(random_pixels(0, 2, *SIZE), torch.arange(2))
    options = replace(flags(script.Options, recipe=recipe), **given)
    data = Dataset("two", "two images", ("a", "b"), split, split)
    plan = planned(script.RECIPES[recipe], options, data, split, this_machine(torch.device("cpu")))
    subject = build(options, plan, torch.device("cpu"))
    randomised(subject.network, 0)
    (tmp_path / "config.json").write_text(json.dumps({"asked": {}, "resolved": {}}))
    state = {
        **plan.record(),
        **subject.settings,
        "epoch": 1,
        "model": subject.network.state_dict(),
        "progress": {"step": 0},
    }
    torch.save(state, tmp_path / "last.pt")
    trained = read_trained(tmp_path)
    x = plan.normalise(resized(split.images, plan.image_size))
    torch.testing.assert_close(trained.network(x), subject.network.eval()(x))
    assert (trained.size, trained.classes, trained.normalise) == (plan.image_size, ("a", "b"), plan.normalise)
