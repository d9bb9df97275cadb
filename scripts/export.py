"""Export the network of a run as a program that needs none of this code, and compare the two.

    python -m scripts.export runs/<folder>                  # runs/<folder>/model.onnx, for onnxruntime
    python -m scripts.export runs/<folder> --format pt2     # runs/<folder>/model.pt2, for torch.export.load

The program takes uint8 images and normalises them itself.
"""

from dataclasses import dataclass
from pathlib import Path

from scripts.system.command_line import argument, option, parse, path, run


@dataclass
class Options:
    """Export the network of a run as a program that needs none of this code, and compare the two."""

    run: str = argument("the folder of a run of train_stn or train_vit")
    format: str = option("onnx", "onnx for onnxruntime; pt2 for torch.export.load", choices=("onnx", "pt2"))
    checkpoint: str = option(
        "auto", "auto is the one that the figures of the report show: best if validation images chose it, else last",
        choices=("auto", "best", "last"),
    )  # fmt: skip
    out: str | None = option(None, "the new file (default: model.onnx or model.pt2 in the run folder)", type=path)


def main(options: Options) -> None:
    """Read the network, export it, compare the program with it, write the file, and print a line for each.

    Raises:
        InputError: If there is no such run, the file exists, a library is missing, or the program differs.
    """
    # imported here: these load torch, and flags are read before that
    from scripts.exporting.classifier import Classifier, metadata
    from scripts.exporting.programs import FORMATS, compared, exported
    from scripts.subjects.trained import read_trained
    from scripts.system.errors import InputError
    from scripts.system.files import write_bytes
    from scripts.system.terminal import say

    kind = FORMATS[options.format]
    trained = read_trained(Path(options.run), options.checkpoint)
    target = Path(options.out) if options.out else Path(options.run) / f"model{kind.suffix}"
    if target.suffix != kind.suffix:
        raise InputError(f"--out ({target}) must end in {kind.suffix} with --format {options.format}")
    if target.exists():
        raise InputError(f"--out ({target}) must be a new file; it exists already")
    kind.check()
    classifier, about = Classifier(trained.network, trained.normalise).eval(), metadata(trained)
    content = kind.write(exported(classifier, trained.size), about)
    lines = [*compared(kind.open(content), classifier, trained.size, kind.runner)]
    write_bytes(target, content)
    done = f"epoch {trained.facts['epoch']}"
    if step := trained.facts["step"]:
        done += f" and {step} steps of the next"
    say("\n".join([
        f"{target}: {trained.facts['checkpoint']} after {done}, {len(content) / 1e6:.1f} MB",
        f"{about['input']} -> logits of {len(trained.classes)} classes",
        *lines,
    ]))  # fmt: skip


if __name__ == "__main__":
    run(lambda: main(parse(Options, "export")), "export")
