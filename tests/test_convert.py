"""The conversion as a person starts it: two files and a family in, one line for each out, errors in one line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.checkpoints import read_weights, write_weights
from scripts.command_line import parse, run
from scripts.convert import Options, heads_of_width, main
from scripts.weight_families import to_family
from scripts.weight_files import read_arrays, write_arrays
from scripts.weight_names import FAMILIES
from tests.test_checkpoints import Bomb, bits, every_family, network, with_pre_logits


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of Google's, vit.npz, in the current directory."""
    monkeypatch.chdir(tmp_path)
    write_weights(Path("vit.npz"), network().state_dict(), "google", 3)
    return tmp_path


def convert(*arguments: str) -> None:
    main(parse(Options, "convert", arguments))


@every_family
def test_a_file_goes_to_every_family_and_back_bit_for_bit(family: str) -> None:
    convert("vit.npz", "there.safetensors", "--family", family)
    assert read_weights(Path("there.safetensors")).family == family
    convert("there.safetensors", "back.npz", "--family", "google", "--num-heads", "3")
    if not family.startswith("big-vision"):
        assert bits(read_arrays(Path("back.npz"))) == bits(read_arrays(Path("vit.npz")))


def test_it_says_what_was_read_and_what_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    convert("vit.npz", "new/vit.pth", "--family", "timm")
    assert capsys.readouterr().out.splitlines() == [
        "vit.npz: google, patch_size 8, dim 12, depth 2, mlp_dim 20, in_channels 3",
        "new/vit.pth: timm",
    ]


def test_it_says_how_many_heads_it_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    write_weights(Path("lite.pt"), network(dim=256, num_heads=8).state_dict(), "timm", None)
    convert("lite.pt", "lite.npz", "--family", "google")
    assert capsys.readouterr().out.splitlines()[1] == "lite.npz: google, num_heads 4"


def test_without_a_family_the_file_is_the_kits() -> None:
    convert("vit.npz", "vit.pt")
    assert bits(torch.load("vit.pt", weights_only=True)) == bits(network().state_dict())


def test_pre_logits_can_be_left_out_with_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    with_pre_logits(Path("in21k.npz"), 21)
    convert("in21k.npz", "vit.pth", "--family", "timm", "--no-head")
    names = read_arrays(Path("vit.pth")).keys()
    assert names == {name for name in to_family(network().state_dict(), "timm", 3) if not name.startswith("head.")}
    assert "left out: pre_logits/kernel\nleft out: pre_logits/bias\n" in capsys.readouterr().out


def test_a_pooler_is_left_out_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = to_family(network().state_dict(), "huggingface", 3)
    write_arrays(Path("hub.bin"), arrays | {"vit.pooler.dense.bias": torch.ones(12)})
    convert("hub.bin", "vit.pth", "--family", "timm", "--num-heads", "3")
    assert "left out: vit.pooler.dense.bias\n" in capsys.readouterr().out


@pytest.mark.parametrize(("dim", "heads"), [(256, 4), (768, 12), (1024, 16), (1280, 16), (100, None)])
def test_the_heads_of_the_presets_are_known_by_their_width(dim: int, heads: int | None) -> None:
    assert heads_of_width(dim) == heads


def test_the_heads_of_a_file_win_over_those_of_its_width() -> None:
    write_weights(Path("wide.npz"), network(dim=256, num_heads=8).state_dict(), "google", 8)
    convert("wide.npz", "same.npz", "--family", "google")
    assert read_weights(Path("same.npz")).num_heads == 8


def page() -> list[str]:
    Path("page.npz").write_text("<html>")
    return ["page.npz", "new.pt"]


def bomb() -> list[str]:
    torch.save(Bomb(Path("boom")), "bomb.pt")
    return ["bomb.pt", "new.pt"]


def pickled() -> list[str]:
    np.savez("object.npz", cls=np.array([{}], dtype=object))
    return ["object.npz", "new.pt"]


def pre_logits() -> list[str]:
    with_pre_logits(Path("in21k.npz"), 21)
    return ["in21k.npz", "new.pt"]


def fused() -> list[str]:
    write_weights(Path("vit.pth"), network().state_dict(), "timm", 3)
    return ["vit.pth", "new.npz", "--family", "google"]


BAD: list[tuple[list[str] | Callable[[], list[str]], str]] = [
    (["vit.npz"], "the following arguments are required: TARGET"),
    (["vit.npz", "new.pt", "--family", "keras"], "--family: invalid choice: 'keras' (choose from"),
    (["vit.npz", "new.pt", "--num-heads", "0"], "--num-heads (0) must be a whole number, at least 1"),
    (["vit.npz", "new.h5"], "new.h5 must end in one of .npz, .safetensors, .pt, .pth, .bin"),
    (["vit.npz", "vit.npz"], "target (vit.npz) must be a new file; something is there already"),
    (["nowhere.npz", "new.pt"], "nowhere.npz must be a file of weights; it is not there"),
    (page, "page.npz must be a whole .npz archive; it is not a zip file, or was cut off"),
    (bomb, "bomb.pt must hold tensors alone; to open it, torch would have to run code"),
    (pickled, "object.npz: cls must be numbers; it is a pickle, which could run code"),
    (pre_logits, "in21k.npz must have the head right behind the encoder; pre_logits/kernel, pre_logits/bias lie"),
    (fused, "--num-heads must be given: vit.pth does not say it, and no preset is 12 wide"),
    (lambda: [*fused(), "--num-heads", "5"], "--num-heads (5) must divide 12, the width of vit.pth"),
    (
        ["vit.npz", "new.npz", "--family", "google", "--num-heads", "4"],
        "--num-heads (4) must be 3, as vit.npz says, or not given",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_gives_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str] | Callable[[], list[str]], message: str
) -> None:
    given = arguments() if callable(arguments) else arguments
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        run(lambda: convert(*given), "convert")
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.match(f"^convert: error: .*{re.escape(message)}", printed.err), printed.err
    assert printed.err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before, "nothing half-written, nothing run"


def test_help_names_every_argument_and_family(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Options, "convert", ["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("SOURCE", "TARGET", "--num-heads", "--no-head", "|".join(FAMILIES)))
