"""scripts.convert from the command line: a source, a target and a family."""

from pathlib import Path

import pytest
import torch

from scripts.convert import Options, main
from scripts.models.vit import heads_of_width
from scripts.system.command_line import parse
from scripts.weights.families import to_family
from scripts.weights.files import read_file, write_arrays
from scripts.weights.names import FAMILIES
from scripts.weights.pretrained import read_weights, write_weights
from tests.support.networks import bits, every_family, network, with_pre_logits
from tests.support.runs import full_disk


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with vit.npz, a small file in Google's layout."""
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
        assert bits(read_file(Path("back.npz")).arrays) == bits(read_file(Path("vit.npz")).arrays)


def test_it_prints_what_was_read_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    convert("vit.npz", "new/vit.pth", "--family", "timm")
    read = "vit.npz: google, patch_size 8, dim 12, depth 2, mlp_dim 20, in_channels 3"
    assert capsys.readouterr().out.splitlines() == [read, "new/vit.pth: timm"]
    write_weights(Path("lite.pt"), network(dim=256, num_heads=8).state_dict(), "timm", None)
    convert("lite.pt", "lite.npz", "--family", "google")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "lite.npz: google, num_heads 4",
        "lite.pt: num_heads 4 of the preset of width 256 is assumed: the file does not tell",
    ]


@pytest.mark.parametrize("name", ("vit.npz.pt", "other.npz", "vit.safetensors"))
def test_a_full_disk_is_one_line_and_leaves_no_file(name: str) -> None:
    with full_disk(1000), pytest.raises(OSError, match=rf"^cannot write {name}: File too large$"):
        convert("vit.npz", name)
    assert [path.name for path in Path.cwd().iterdir()] == ["vit.npz"]


def test_the_default_family_is_the_kit() -> None:
    convert("vit.npz", "vit.pt")
    assert bits(torch.load("vit.pt", weights_only=True)) == bits(network().state_dict())


def test_pre_logits_can_be_left_out_with_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    with_pre_logits(Path("in21k.npz"), 21)
    convert("in21k.npz", "vit.pth", "--family", "timm", "--no-head")
    names = read_file(Path("vit.pth")).arrays.keys()
    assert names == {name for name in to_family(network().state_dict(), "timm", 3) if not name.startswith("head.")}
    assert "left out: pre_logits/kernel\nleft out: pre_logits/bias\n" in capsys.readouterr().out


def test_a_pooler_is_left_out_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = to_family(network().state_dict(), "huggingface", 3)
    write_arrays(Path("hub.bin"), arrays | {"vit.pooler.dense.bias": torch.ones(12)})
    convert("hub.bin", "vit.pth", "--family", "timm", "--num-heads", "3")
    assert "hub.bin: the rest of the file is ignored: vit.pooler\n" in capsys.readouterr().out


@pytest.mark.parametrize(("dim", "heads"), [(256, 4), (384, 6), (768, 12), (1024, 16), (1280, 16), (100, None)])
def test_the_heads_of_the_presets_are_known_by_their_width(dim: int, heads: int | None) -> None:
    assert heads_of_width(dim) == heads


def test_the_heads_of_a_file_win_over_those_of_its_width() -> None:
    write_weights(Path("wide.npz"), network(dim=256, num_heads=8).state_dict(), "google", 8)
    convert("wide.npz", "hub.safetensors", "--family", "huggingface")
    convert("hub.safetensors", "same.npz", "--family", "google")
    assert read_weights(Path("same.npz")).num_heads == 8


def test_help_names_every_argument_and_family(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Options, "convert", ["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("SOURCE", "TARGET", "--num-heads", "--no-head", "|".join(FAMILIES)))
