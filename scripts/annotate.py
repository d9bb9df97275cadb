"""Draw annotated test images of cluttered scenes, and where a trained transformer looks in them.

    make annotate                         # 100 scenes of CIFAR-10 where it is found, else of digits
    make annotate RUN=runs/mine           # of the data of a run, with what its transformer samples

The folder holds images/, annotations.json in the format of COCO, and sheet.png, which shows up to a thousand; of a run
also overlap.csv, the intersection over union of the sampled area and the box of the object in every image.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from scripts import train_stn
from scripts.system.command_line import option, parse, path, run, whole
from scripts.system.errors import InputError
from scripts.system.folders import make_folder, timed
from scripts.system.libraries import plain_figures
from scripts.system.signals import stopping
from scripts.system.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from scripts.data.datasets import Dataset, Split


ON_THE_SHEET = 1000  # a picture has a greatest height
AT_ONCE = 1000  # images in a forward pass


@dataclass(frozen=True)
class Options:
    """Draw annotated test images of cluttered scenes, and where a trained transformer looks in them."""

    run: str | None = option(None, "folder of a run of train_stn on cluttered data, with a transformer", type=path)
    data: str | None = option(
        None, "cluttered scenes as in train_stn (default: those of --run, else cluttered:auto)", type=path
    )
    count: int = option(100, "images; all test images if there are fewer", type=whole(1))
    out: str | None = option(None, "new or empty folder (default: runs/annotated-<data>-<time>)", type=path)


def main(options: Options) -> None:
    """Write the folder, and print a line of JSON.

    Raises:
        InputError: If the folder is taken, the data are not cluttered, or the run has no transformer.
    """
    # imported here: these load torch, and flags are read before that
    from scripts.data.datasets import load
    from scripts.run.findings import evenly_spaced
    from scripts.run.folder import RunFolder
    from scripts.run.overlap import overlap

    if options.run and options.data:
        raise InputError(f"--data ({options.data}) must be left out with --run, whose data are drawn")
    if options.out:
        RunFolder.refuse_taken(Path(options.out))
    asked = flags_of(options.run) if options.run else None
    source = asked.data if asked else options.data or "cluttered:auto"
    dataset = load(source)  # all of it, however few images the run used: numbers depend on the data alone
    boxes = dataset.test.boxes
    if boxes is None:
        given = f"--run ({options.run}) must be of data that are" if asked else f"--data ({source}) must be"
        raise InputError(f"{given} cluttered, such as cluttered:digits, to have boxes")
    chosen = evenly_spaced(len(dataset.test), options.count)
    test, corners, overlaps = dataset.test[chosen], None, []
    if asked:
        corners = sampled(Path(str(options.run)), dataset, test.images)
        overlaps = [overlap(*each) for each in zip(corners, boxes[chosen, 0], strict=True)]
    out = Path(options.out) if options.out else timed(f"annotated-{dataset.name}")
    with appearing(out) as folder:
        write(folder, dataset, test, (chosen + 1).tolist(), corners, overlaps)
    if dataset.notice:
        say(dataset.notice)
    measured = {"mean_overlap": round(sum(overlaps) / len(overlaps), 4)} if overlaps else {}
    say(json.dumps({"data": dataset.name, "images": len(test), **measured, "folder": str(out)}))


def write(
    folder: Path,
    dataset: "Dataset",
    test: "Split",
    numbers: Sequence[int],
    corners: "Tensor | None",
    overlaps: Sequence[float],
) -> None:
    """Write images, annotations and sheet, and the overlaps where there are any.

    Args:
        folder: It exists, and is empty.
        dataset: What the images are from.
        test: The images, with boxes.
        numbers: Of the images, from 1.
        corners: As ``sampled`` returns them.
        overlaps: Of each sampled area and the box of the object.
    """
    from PIL import Image

    from scripts.data.coco import annotations
    from scripts.run import figures

    assert test.boxes is not None
    assert test.box_labels is not None
    files, size = [f"{number:06}.png" for number in numbers], (test.images.shape[2], test.images.shape[3])
    (folder / "images").mkdir()
    for file, image in zip(files, test.images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "images" / file)
    described = annotations(
        test.boxes, test.box_labels, numbers, files, size, dataset.classes, f"Test images, {dataset.description}"
    )
    (folder / "annotations.json").write_text(json.dumps(described, indent=1), "utf-8")
    names = titles = [dataset.classes[label] for label in test.labels]
    if corners is not None:
        titles = [f"{name} {share:.2f}" for name, share in zip(names, overlaps, strict=True)]
        with (folder / "overlap.csv").open("w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["file_name", "class", "overlap", *(f"{axis}{i}" for i in range(1, 5) for axis in "xy")])
            for file, name, share, places in zip(files, names, overlaps, corners.flatten(1), strict=True):
                writer.writerow([file, name, *(f"{number:.6g}" for number in (share, *places.tolist()))])
    few = slice(ON_THE_SHEET)
    corners = None if corners is None else corners[few]
    with plain_figures():
        figures.annotated(test.images[few], test.boxes[few], titles[few], corners, folder / "sheet.png")


def flags_of(folder: str) -> train_stn.Options:
    """Read the flags of a run.

    Raises:
        InputError: If the folder is not that of a run with a transformer.
    """
    from scripts.resuming import original_options  # loads torch

    try:
        asked = original_options(train_stn.Options(resume=folder), Path(folder))
    except InputError as error:
        raise InputError(str(error).replace("--resume", "--run", 1)) from error
    if asked.no_transformer:
        raise InputError(f"--run ({folder}) must have a transformer; it was trained with --no-transformer")
    return asked


def sampled(folder: Path, dataset: "Dataset", images: "Tensor") -> "Tensor":
    """Return the corners of what the transformer of a run samples of uint8 images: (N, 4, 2) in pixels, x before y.

    Of the checkpoint that the report of the run shows.

    Raises:
        InputError: If the checkpoint is missing or of another network, or the run had other data.
    """
    import torch

    from scripts.data.batches import resized
    from scripts.run.theta import sampled_pixels
    from scripts.subjects.trained import read_trained

    trained = read_trained(folder, flag="--run")
    if trained.classes != tuple(dataset.classes):  # auto may find other data than when the run began
        raise InputError(f"--run ({folder}) must be of {dataset.name}, which its data are now; its classes differ")
    with torch.inference_mode():
        transformer = trained.network.get_submodule("transformer")
        parts = (trained.normalise(resized(part, trained.size)) for part in images.split(AT_ONCE))
        theta = torch.cat([transformer(part, return_theta=True)[1] for part in parts])
    return sampled_pixels(theta.float(), *images.shape[-2:])


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Fill a folder that is there once all of it is written."""
    make_folder(folder.parent, f"--out ({folder})")
    folder = Path(os.path.realpath(folder))  # which gives it a name, if it is the current one
    there = folder.is_dir()  # then it stays: it is empty, and perhaps the current one, or alone on its file system
    drawing = stopping("before all was drawn", "")
    with drawing, TemporaryDirectory(dir=folder if there else folder.parent, prefix=".drawing-") as temporary:
        unfinished = Path(temporary, folder.name)
        unfinished.mkdir()
        yield unfinished
        if there:
            for file in unfinished.iterdir():
                file.rename(folder / file.name)
        else:
            unfinished.rename(folder)


if __name__ == "__main__":
    run(lambda: main(parse(Options, "annotate")), "annotate")
