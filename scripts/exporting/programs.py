"""Export a classifier as ONNX or as a program of torch.export, and run the file as its users will.

classifier -> torch.export, any batch size -> ONNX -> bytes -> onnxruntime
                                           -> bytes -> torch.export.load
"""

import copy
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from scripts.system.errors import InputError
from scripts.system.libraries import library

ONNX = ("onnx", "onnxscript", "onnxruntime")
BATCHES = (1, 3, 16)  # sizes that a written program is run with; it is traced with another one
TRACED = 2
TOLERANCE = 1e-4  # of logits up to 1, of larger ones a share of the largest
Run = Callable[[Tensor], Tensor]


class Format(NamedTuple):
    """How a program is written, and what runs it.

    Args:
        suffix: Of its file.
        check: Raises InputError if a library is missing.
        write: From a program and its metadata to the content of the file.
        open: From that content to a function of images (B, 3, H, W).
        runner: Whose function that is.
    """

    suffix: str
    check: Callable[[], None]
    write: Callable[[ExportedProgram, Mapping[str, str]], bytes]
    open: Callable[[bytes], Run]
    runner: str


def exported(classifier: nn.Module, size: tuple[int, int]) -> ExportedProgram:
    """Trace a classifier of images of this height and width, for batches of any size."""
    images = torch.zeros(TRACED, 3, *size, dtype=torch.uint8)
    program = torch.export.export(classifier, (images,), dynamic_shapes=({0: Dim("batch", min=1)},))
    for graph in program.graph_module.modules():
        if isinstance(graph, fx.GraphModule):
            for node in graph.graph.nodes:
                node.meta.pop("stack_trace", None)  # it names the folders of this machine
    return program


def onnx_there() -> None:
    """Raise InputError if a library is missing that ONNX needs."""
    for name in ONNX:
        library(name, "--format onnx", *ONNX)


def onnx_written(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Translate a program to ONNX: one file, the weights inside.

    Raises:
        InputError: If the translations that are installed lack an operation of the program.
    """
    try:
        translated = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
        )
    except (torch.onnx.OnnxExporterError, ImportError) as error:  # its message is a page
        found = f"onnxscript {version('onnxscript')} cannot translate this network for torch {torch.__version__}"
        command = f"{sys.executable} -m pip install --upgrade {' '.join(ONNX)}"
        raise InputError(f"--format onnx needs another onnxscript: {found}; {command}") from error
    assert translated is not None
    model = translated.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # of the translation: a third of a small file
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:  # only the batch has any size
                side.dim_param = "batch"
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    content: bytes = model.SerializeToString()
    return content


def onnx_opened(content: bytes) -> Run:
    """Open an ONNX file with onnxruntime, on the CPU."""
    session = library("onnxruntime", "--format onnx", *ONNX).InferenceSession(
        content, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return run


def pt2_written(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Save a program as torch does; the metadata are files inside."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(metadata))
    return file.getvalue()


def pt2_opened(content: bytes) -> Run:
    """Load a program as torch does."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(images)
        return logits

    return run


FORMATS = {
    "onnx": Format(".onnx", onnx_there, onnx_written, onnx_opened, "onnxruntime"),
    "pt2": Format(".pt2", lambda: None, pt2_written, pt2_opened, "torch.export"),
}


def compared(run: Run, classifier: nn.Module, size: tuple[int, int], runner: str) -> Iterator[str]:
    """Compare the logits of drawn images with those of the classifier, and yield a line for each batch size.

    Those of an image may differ as much as rounding in float32 changes them, where that is more than ``TOLERANCE``.

    Raises:
        InputError: If a logit differs by more.
    """
    draw, exact = torch.Generator().manual_seed(0), copy.deepcopy(classifier).double()
    for batch in BATCHES:
        images = torch.randint(256, (batch, 3, *size), generator=draw, dtype=torch.uint8)
        with torch.inference_mode():
            ours = classifier(images)
            rounding = (ours - exact(images)).abs().amax(1)  # (B,)
        theirs, largest = run(images), float(ours.abs().max())
        if ours.shape != theirs.shape:
            theirs = torch.full_like(ours, torch.inf)
        differences = (ours - theirs).abs().amax(1)
        allowed = (4 * rounding).clamp(min=TOLERANCE * max(1.0, largest))
        if not (differences <= allowed).all():
            worst = (differences / allowed).argmax()  # also where one is not a number
            wanted = f"must be those of the network within {allowed[worst]:.0e}"
            found = f"they differ by {differences[worst]:.1e}"
            raise InputError(f"logits from {runner} for {batch} images {wanted}; {found}")
        most = float(differences.max())
        yield f"{batch} images: logits from {runner} as from the network within {most:.1e} of {largest:.1f}"
