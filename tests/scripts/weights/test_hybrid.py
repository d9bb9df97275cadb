"""Hybrids in Google's files and in timm: names, round trips, and the same numbers as timm."""

import tempfile
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from torch import Tensor

from scripts import convert
from scripts.models.vit import VisionTransformer
from scripts.system.command_line import parse
from scripts.system.errors import InputError
from scripts.weights.families import to_family
from scripts.weights.files import read_file, write_arrays
from scripts.weights.names import FAMILIES
from scripts.weights.pretrained import load_weights, read_weights, write_weights
from tests.support.networks import SIZE, bits, network
from tests.support.strategies import random_images, seeds

HYBRID = ("kit", "google", "google-opt-target", "timm")
hybrid_families = pytest.mark.parametrize("family", HYBRID)
every_units = st.sampled_from(((1,), (2,), (1, 2)))
hybrid = partial(network, resnet=(1, 2), patch_size=8)
BACKBONE = "patch_embed.backbone."


def drawn(model: VisionTransformer) -> VisionTransformer:
    """The initial weights with noise, and a norm3 that lets every unit add to its shortcut."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim in (1, 3) or name == "head.weight":
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
            if "norm3.weight" in name:
                parameter.uniform_(0.5, 1)
    return model.eval()


def timms(model: VisionTransformer, units: tuple[int, ...], side: int) -> timm.models.VisionTransformer:
    """A small hybrid of timm with the sizes of ``hybrid``."""
    backbone = ResNetV2(layers=units, num_classes=0, global_pool="", preact=False, stem_type="same",
                        conv_layer=partial(StdConv2dSame, eps=1e-8))  # fmt: skip
    return timm.models.VisionTransformer(
        img_size=side, patch_size=model.embeddings.patch_size, embed_dim=SIZE["dim"], depth=SIZE["depth"],
        num_heads=SIZE["num_heads"], mlp_ratio=SIZE["mlp_dim"] / SIZE["dim"], num_classes=7,
        embed_layer=partial(HybridEmbed, backbone=backbone),
    ).eval()  # fmt: skip


# the same numbers as timm


@pytest.mark.numerics
def test_r50_vit_b16_has_the_logits_of_timm_at_224_pixels() -> None:
    torch.manual_seed(0)
    model = drawn(VisionTransformer.from_preset("r50-b16", 1000))
    with torch.device("meta"):
        peer = timm.create_model("vit_base_r50_s16_224", num_classes=1000).eval()
    assert sum(parameter.numel() for parameter in peer.parameters()) == 98_659_112
    peer.load_state_dict(to_family(model.state_dict(), "timm", None), strict=True, assign=True)
    x = random_images(0, 2, 3, 224, 224, dtype=torch.float32)
    with torch.inference_mode():
        ours, theirs = model(x), peer(x)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.numerics
@given(seeds, every_units, st.sampled_from((32, 48)), st.sampled_from(("state_dict", "google")))
def test_a_small_hybrid_has_the_logits_of_timm(seed: int, units: tuple[int, ...], side: int, how: str) -> None:
    """Weights go over by names, or by timm's own reader of Google's files."""
    torch.manual_seed(seed)
    model = drawn(VisionTransformer(7, **SIZE | {"resnet": units, "patch_size": 8, "image_size": side}))
    peer, x = timms(model, units, side), random_images(seed, 2, 3, side, side)
    if how == "google":
        with tempfile.TemporaryDirectory() as folder:
            write_weights(Path(folder) / "hybrid.npz", model.state_dict(), "google", 3)
            peer.load_pretrained(str(Path(folder) / "hybrid.npz"))
    else:
        peer.load_state_dict(to_family(model.state_dict(), "timm", None), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(model.double()(x), peer.double()(x), atol=1e-10, rtol=0)


# names and shapes


def test_googles_file_of_r50_vit_b16_has_the_published_names_and_shapes() -> None:
    arrays = to_family(VisionTransformer.from_preset("r50-b16", 1000, device="meta").state_dict(), "google", 12)
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    published = {
        "conv_root/kernel": (7, 7, 3, 64),
        "gn_root/scale": (1, 1, 1, 64),
        "block1/unit1/conv1/kernel": (1, 1, 64, 64),
        "block1/unit1/conv_proj/kernel": (1, 1, 64, 256),
        "block1/unit1/gn_proj/bias": (1, 1, 1, 256),
        "block2/unit1/conv_proj/kernel": (1, 1, 256, 512),
        "block3/unit9/conv2/kernel": (3, 3, 256, 256),
        "block3/unit9/gn3/scale": (1, 1, 1, 1024),
        "embedding/kernel": (1, 1, 1024, 768),
        "Transformer/posembed_input/pos_embedding": (1, 197, 768),
    }
    assert published.items() <= shapes.items()
    assert len(shapes) == 200 + 3 + 16 * 9 + 3 * 3  # the encoder's, the stem's, those of units, and of projections
    assert not any(f"unit{i}/conv_proj" in name for name in shapes for i in range(2, 10))


@pytest.mark.parametrize("axes", [1, 4])
@pytest.mark.parametrize("family", ["google", "google-opt-target"])
def test_norms_of_googles_files_have_four_axes_and_of_its_newer_code_one(
    tmp_path: Path, family: str, axes: int
) -> None:
    """Its reader squeezes them: https://github.com/google/flax/issues/1721."""
    arrays = to_family(hybrid().state_dict(), family, 3)
    norms = {name for name, array in arrays.items() if array.shape[:3] == (1, 1, 1)}
    assert len(norms) == 2 * (1 + 3 * 3 + 2)
    arrays |= {name: arrays[name].flatten() for name in norms if axes == 1}
    write_arrays(tmp_path / "hybrid.npz", arrays)
    assert bits(read_weights(tmp_path / "hybrid.npz").state) == bits(hybrid().state_dict())


@given(st.sampled_from(HYBRID), st.sampled_from((".npz", ".safetensors")), seeds, every_units, st.sampled_from((1, 3)),
       st.sampled_from((torch.float32, torch.bfloat16)))  # fmt: skip
def test_a_hybrids_file_read_and_written_again_has_the_same_bits(
    family: str, suffix: str, seed: int, units: tuple[int, ...], in_channels: int, dtype: torch.dtype
) -> None:
    model = hybrid(seed=seed, resnet=units, in_channels=in_channels, depth=1, dtype=dtype)
    arrays = to_family(model.state_dict(), family, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{suffix}"
        write_arrays(path, arrays)
        weights = read_weights(path)
        assert weights.family == family
        same(weights.state, model.state_dict())
        write_weights(path, weights.state, family, 3)
        same(read_file(path).arrays, arrays)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """As ``bits``, for arrays that take too long as lists."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert torch.equal(*(each.contiguous().view(torch.uint8) for each in (found[name], array))), name


@hybrid_families
def test_a_hybrid_comes_back_as_the_same_function_also_for_another_image_size(tmp_path: Path, family: str) -> None:
    path, x = tmp_path / "hybrid.safetensors", random_images(0, 2, 3, 32, 32, dtype=torch.float32)
    write_weights(path, hybrid().state_dict(), family, 3)
    other = hybrid(seed=1)
    assert load_weights(other, path) == [f"{path}: {family} weights, {len(hybrid().state_dict())} arrays"]
    assert torch.equal(other(x), hybrid()(x))
    notes = load_weights(hybrid(image_size=(24, 48)), path)
    assert notes[1:] == [f"{path}: positions resampled from 4x4 to 3x6 patches, bicubic-antialias"]


def test_convert_says_which_resnet_it_read_and_comes_back_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_weights(Path("hybrid.npz"), hybrid().state_dict(), "google", 3)
    for source, target, family in (
        ("hybrid.npz", "timm.safetensors", "timm"),
        ("timm.safetensors", "back.npz", "google"),
    ):
        convert.main(parse(convert.Options, "convert", (source, target, "--family", family)))
    same(read_file(Path("back.npz")).arrays, read_file(Path("hybrid.npz")).arrays)
    read = "hybrid.npz: google, patch_size 8, dim 12, depth 2, mlp_dim 20, in_channels 3, resnet (1, 2)"
    assert capsys.readouterr().out.splitlines()[0] == read


# errors


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in HYBRID])
def test_other_families_have_no_hybrid(family: str) -> None:
    with pytest.raises(InputError) as error:
        to_family(hybrid().state_dict(), family, 3)
    assert str(error.value) == f"family ({family}) must be one of {', '.join(HYBRID)} for a network with a ResNet"


def refused(path: Path, message: str, model: VisionTransformer) -> None:
    with pytest.raises(InputError) as error:
        load_weights(model, path)
    assert str(error.value) == f"{path}{message}"


@hybrid_families
def test_another_resnet_is_named_with_the_models(tmp_path: Path, family: str) -> None:
    path = tmp_path / "hybrid.npz"
    write_weights(path, hybrid().state_dict(), family, 3)
    refused(path, " must hold the weights of the model (resnet (1, 1)); it has resnet (1, 2)",
            hybrid(resnet=(1, 1)))  # fmt: skip
    refused(path, " must hold the weights of the model (resnet ()); it has resnet (1, 2)", network())
    write_weights(path, network().state_dict(), family, 3)
    refused(path, " must hold the weights of the model (resnet (1, 2)); it has resnet ()", hybrid())


GOOGLE = "block2/unit1/conv2/kernel"


@pytest.mark.parametrize(("family", "changes", "message"), [
    ("google", {"conv_root/kernel": None}, " must hold conv_root/kernel, as google files do; it is missing"),
    ("google", {GOOGLE: None}, f" must hold {GOOGLE}, as google files do; it is missing"),
    ("timm", {f"{BACKBONE}stages.1.blocks.0.downsample.norm.bias": None},
     f" must hold {BACKBONE}stages.1.blocks.0.downsample.norm.bias, as timm files do; it is missing"),
    ("google", {GOOGLE: torch.ones(3, 3, 64, 128)}, f": {GOOGLE} (3, 3, 64, 128) must be (3, 3, 128, 128)"),
    ("google", {"gn_root/scale": torch.ones(1, 64)}, ": gn_root/scale (1, 64) must be (1, 1, 1, 64)"),
    ("google", {"conv_root/kernel": torch.ones(3, 64)}, ": conv_root/kernel (3, 64) must have 4 axes"),
    ("google", {"embedding/kernel": torch.ones(1, 1, 256, 12)},
     ": embedding/kernel (1, 1, 256, 12) must be (1, 1, 512, 12)"),
    ("google", {"block5/unit1/conv1/kernel": torch.ones(1)},
     " must hold only a Vision Transformer; unknown names: block5/unit1/conv1/kernel"),
    ("google", {"block4/unit1/conv1/kernel": torch.ones(1)},
     " must hold block4/unit1/gn1/scale, as google files do; it is missing"),
    ("timm", {f"{BACKBONE}stages.1.blocks.99999999999999999999.conv1.weight": torch.ones(1)},
     f" must hold {BACKBONE}stages.1.blocks.2.conv1.weight, as timm files do; it is missing"),
    ("kit", {"resnet.stages.0.7.conv1.weight": torch.ones(1)},
     " must hold resnet.stages.0.1.conv1.weight, as kit files do; it is missing"),
])  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, family: str, changes: dict[str, Tensor | None], message: str
) -> None:
    arrays = to_family(hybrid().state_dict(), family, 3) | changes
    write_arrays(tmp_path / "hybrid.npz", {name: array for name, array in arrays.items() if array is not None})
    refused(tmp_path / "hybrid.npz", message, hybrid())


def test_a_whole_stage_that_is_missing_is_an_error(tmp_path: Path) -> None:
    arrays = to_family(hybrid().state_dict(), "google", 3)
    write_arrays(tmp_path / "hybrid.npz", {name: arrays[name] for name in arrays if not name.startswith("block1")})
    refused(tmp_path / "hybrid.npz", " must hold the shapes of a Vision Transformer; "
            "ResNet: units (0) must be at least 1", hybrid())  # fmt: skip


def test_a_resnet_alone_is_no_vision_transformer(tmp_path: Path) -> None:
    arrays = to_family(hybrid().state_dict(), "google", 3)
    write_arrays(tmp_path / "resnet.npz", {name: arrays[name] for name in arrays if name.startswith("block")})
    with pytest.raises(InputError, match="must hold a Vision Transformer of a known family"):
        read_weights(tmp_path / "resnet.npz")
