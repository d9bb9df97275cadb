"""Weights of every family: round trips keep every bit, networks load them, and errors are one line."""

import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from components.patch_embeddings import resize_pos_embed
from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.weights import hybrid
from scripts.weights.families import to_family
from scripts.weights.files import read_file, write_arrays
from scripts.weights.hybrid import HYBRIDS
from scripts.weights.names import FAMILIES, TABLE, entries
from scripts.weights.pretrained import load_weights, read_weights, write_weights
from tests.support.networks import SIZE, WRITTEN, Bomb, bits, every_family, google, network, with_pre_logits
from tests.support.strategies import (
    channels,
    generator,
    grid_sides,
    head_counts,
    head_widths,
    patch_sizes,
    random_images,
    seeds,
)

precisions = st.sampled_from((torch.float32, torch.float64, torch.float16, torch.bfloat16))
suffixes = st.sampled_from((".npz", ".safetensors", ".pth"))
BLOCK = "Transformer/encoderblock_0/"


def drawn(arrays: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same names and shapes with new numbers, one of them a negative zero."""
    draw = generator(seed)
    anew = {name: torch.randn(array.shape, generator=draw).to(array.dtype) for name, array in arrays.items()}
    for array in anew.values():
        array.view(-1)[0] = -0.0
    return anew


def refused(path: Path, message: str, model: VisionTransformer | None = None) -> None:
    """Expect one line that begins with the file."""
    with pytest.raises(InputError) as error:
        load_weights(model or network(), path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


# round trips


@given(st.sampled_from(WRITTEN), suffixes, seeds, head_counts, head_widths, patch_sizes, grid_sides, channels,
       st.integers(1, 3), st.sampled_from((0, 1, 4)), precisions)  # fmt: skip
def test_a_file_read_and_written_again_has_the_same_bits(
    family: str, suffix: str, seed: int, heads: int, width: int, patch: int, grid: int, in_channels: int, depth: int,
    num_classes: int, dtype: torch.dtype,
) -> None:  # fmt: skip
    model = VisionTransformer(
        max(num_classes, 1), image_size=patch * grid, patch_size=patch, dim=heads * width, depth=depth,
        num_heads=heads, mlp_dim=5, in_channels=in_channels, dtype=dtype,
    )  # fmt: skip
    state = {name: array for name, array in model.state_dict().items() if num_classes or not name.startswith("head.")}
    given_arrays = drawn(to_family(state, family, heads), seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{suffix}"
        write_arrays(path, given_arrays)
        weights = read_weights(path)
        assert weights.family == family
        assert weights.num_heads == (heads if FAMILIES[family].flax else None)
        write_weights(path, weights.state, family, heads)
        assert bits(read_file(path).arrays) == bits(given_arrays)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_thirds_of_a_fused_array_are_written_without_the_rest(tmp_path: Path, suffix: str) -> None:
    state = network(dim=240, depth=1).state_dict()
    for family in ("timm", "jeonsworld"):
        write_weights(tmp_path / f"{family}{suffix}", state, family, None)
    sizes = [(tmp_path / f"{family}{suffix}").stat().st_size for family in ("timm", "jeonsworld")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


@pytest.mark.parametrize("family", [name for name in WRITTEN if FAMILIES[name].flax])
def test_a_family_with_an_axis_of_heads_needs_their_number(tmp_path: Path, family: str) -> None:
    wanted = rf"^num_heads \(None\) must be given for family {family}, which has an axis of heads$"
    with pytest.raises(InputError, match=wanted):
        write_weights(tmp_path / "new.npz", network().state_dict(), family, None)
    assert not any(tmp_path.iterdir())


@every_family
def test_a_network_comes_back_as_the_same_function(tmp_path: Path, family: str) -> None:
    model, x = network(), random_images(0, 2, 3, 32, 32, dtype=torch.float32)
    write_weights(tmp_path / "vit.safetensors", model.state_dict(), family, 3)
    other = network(seed=1)
    assert load_weights(other, tmp_path / "vit.safetensors") == [
        f"{tmp_path / 'vit.safetensors'}: {family} weights, 32 arrays"
    ]
    close = {"atol": 1e-4, "rtol": 1e-4} if family.startswith("big-vision") else {"atol": 0, "rtol": 0}
    torch.testing.assert_close(other(x), model(x), **close)


# every axis has another length, as far as it can: patches are square, and so is proj
UNEQUAL = {"image_size": (32, 32), "patch_size": 8, "dim": 10, "depth": 6, "num_heads": 2, "mlp_dim": 11}


@pytest.mark.parametrize(
    ("family", "resnet"), [*((family, ()) for family in WRITTEN), *((family, (1, 2)) for family in HYBRIDS)]
)
def test_every_number_stands_where_the_layout_of_its_family_puts_it(family: str, resnet: tuple[int, ...]) -> None:
    """Torch's layers have outputs first, and kernels of Flax inputs first; heads are the slower part of either.

    A round trip hides a mistake that both ways share, and equal lengths hide axes that are exchanged.
    """
    model = network(7, **UNEQUAL | {"resnet": resnet, "in_channels": 3})
    lengths = [*(UNEQUAL[name] for name in ("dim", "num_heads", "mlp_dim", "depth", "patch_size")), 10 // 2, 7, 3, 17]
    assert len(set(lengths)) == len(lengths), "of width, heads, hidden width, depth, patch, head, classes, colours, N"
    state, flax = model.state_dict(), FAMILIES[family].flax
    arrays = to_family(state, family, 2)
    if family == "big-vision-stacked":
        arrays |= {name.replace("block/", f"block_{i}/"): array[i] for name, array in arrays.items()
                   if "block/" in name for i in range(6)}  # fmt: skip
    named = [*hybrid.entries(family, resnet), *entries(family, 6)]
    assert len(named) == len(state)
    for kit, names, _ in named:
        if kit in ("embeddings.cls_token", "embeddings.pos_embed"):
            continue
        for third, name in enumerate(names):
            assert len(names) == 1 or ("query", "key", "value")[third] in name
            array, outputs = arrays[name], len(state[kit]) // len(names)
            expected = state[kit][third * outputs : (third + 1) * outputs]
            if flax and expected.ndim == 4:
                assert array.shape == tuple(expected.shape[axis] for axis in (2, 3, 1, 0)), name
                array = torch.stack([array[..., out].permute(2, 0, 1) for out in range(outputs)])
            elif flax and expected.ndim == 2:
                array = array.reshape(-1, outputs).T
            assert torch.equal(array.reshape(expected.shape), expected), name


@every_family
def test_networks_of_unequal_lengths_come_back_as_the_same_function(tmp_path: Path, family: str) -> None:
    model, x = network(**UNEQUAL), random_images(0, 2, 3, 32, 32, dtype=torch.float32)
    write_weights(tmp_path / "vit.safetensors", model.state_dict(), family, 2)
    other = network(seed=1, **UNEQUAL)
    load_weights(other, tmp_path / "vit.safetensors")
    torch.testing.assert_close(other(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_other_precisions_are_kept_in_the_file_and_fit_any_network(
    tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    """bfloat16 in an .npz is two raw bytes a number, as in big_vision: NumPy has no such type."""
    state = network().to(dtype).state_dict()
    path = tmp_path / f"vit{suffix}"
    write_weights(path, state, "google", 3)
    assert bits(read_weights(path).state) == bits(state)
    model = network(seed=1)
    load_weights(model, path)
    assert bits(model.state_dict()) == bits({name: array.float() for name, array in state.items()})


def test_numbers_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    arrays = to_family(network().state_dict(), "google", 3)
    np.savez(tmp_path / "vit.npz", **{name: array.numpy().astype(">f4") for name, array in arrays.items()})
    assert bits(read_file(tmp_path / "vit.npz").arrays) == bits(arrays)


def test_google_files_have_the_published_arrays() -> None:
    """200 for ViT-B/16 with a head, with names and shapes of the Flax code."""
    arrays = to_family(VisionTransformer.from_preset("b16", 1000, device="meta").state_dict(), "google", 12)
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    assert len(shapes) == 200
    attention = "Transformer/encoderblock_11/MultiHeadDotProductAttention_1"
    published = {
        "cls": (1, 1, 768),
        "Transformer/posembed_input/pos_embedding": (1, 197, 768),
        "embedding/kernel": (16, 16, 3, 768),
        "Transformer/encoderblock_0/LayerNorm_0/scale": (768,),
        f"{attention}/query/kernel": (768, 12, 64),
        f"{attention}/value/bias": (12, 64),
        f"{attention}/out/kernel": (12, 64, 768),
        f"{attention}/out/bias": (768,),
        "Transformer/encoderblock_3/LayerNorm_2/bias": (768,),
        "Transformer/encoderblock_3/MlpBlock_3/Dense_0/kernel": (768, 3072),
        "Transformer/encoderblock_3/MlpBlock_3/Dense_1/kernel": (3072, 768),
        "Transformer/encoder_norm/scale": (768,),
        "head/kernel": (768, 1000),
    }
    assert published.items() <= shapes.items()


def test_big_vision_files_have_the_published_arrays() -> None:
    state = VisionTransformer.from_preset("b16", 1000, device="meta").state_dict()
    shapes = {name: tuple(array.shape) for name, array in to_family(state, "big-vision-stacked", 12).items()}
    attention = "params/Transformer/encoderblock/MultiHeadDotProductAttention_0"
    published = {
        "params/cls": (1, 1, 768),
        "params/pos_embedding": (1, 196, 768),
        "params/Transformer/encoderblock/LayerNorm_1/scale": (12, 768),
        f"{attention}/key/kernel": (12, 768, 12, 64),
        "params/Transformer/encoderblock/MlpBlock_0/Dense_1/kernel": (12, 3072, 768),
    }
    assert published.items() <= shapes.items()
    assert len(shapes) == 16 + 8
    assert "params/Transformer/encoderblock_11/MlpBlock_0/Dense_1/bias" in to_family(state, "big-vision", 12)


def test_jeonsworld_files_have_the_names_of_its_modules() -> None:
    names = {name for name in to_family(network().state_dict(), "jeonsworld", 3) if "layer.0" not in name}
    block = ("attention_norm", "attn.query", "attn.key", "attn.value", "attn.out", "ffn_norm", "ffn.fc1", "ffn.fc2")
    layers = [f"encoder.layer.1.{layer}" for layer in block] + ["encoder.encoder_norm", "embeddings.patch_embeddings"]
    published = {f"transformer.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    published |= {"transformer.embeddings.cls_token", "transformer.embeddings.position_embeddings"}
    assert names == published | {"head.weight", "head.bias"}


def test_no_name_has_a_backslash() -> None:
    """os.path.join put them there on Windows: https://github.com/jeonsworld/ViT-pytorch/issues/11."""
    assert not any("\\" in str(name) for part in TABLE for name in part)


# other names of the same weights


def test_torchvisions_first_files_are_read(tmp_path: Path) -> None:
    arrays = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): array
              for name, array in to_family(network().state_dict(), "torchvision", 3).items()}  # fmt: skip
    write_arrays(tmp_path / "vit.pth", arrays)
    model = network(seed=1)
    assert "torchvision weights" in load_weights(model, tmp_path / "vit.pth")[0]
    assert bits(model.state_dict()) == bits(network().state_dict())


def test_hugging_faces_encoder_alone_gets_a_zero_head_and_no_pooler(tmp_path: Path) -> None:
    arrays = to_family(network().state_dict(), "huggingface", 3)
    arrays = {name.removeprefix("vit."): array for name, array in arrays.items() if "classifier" not in name}
    arrays |= {"pooler.dense.weight": torch.ones(12, 12), "pooler.dense.bias": torch.ones(12)}
    write_arrays(tmp_path / "model.safetensors", arrays, num_heads=3)
    model = network(seed=1)
    lines = load_weights(model, tmp_path / "model.safetensors")
    assert lines[1:] == [
        f"{tmp_path / 'model.safetensors'}: the rest of the file is ignored: pooler",
        f"{tmp_path / 'model.safetensors'}: the head is zero: the file has none",
    ]
    assert not model.head.weight.any()
    state = {name: array for name, array in network().state_dict().items() if not name.startswith("head.")}
    assert bits({name: model.state_dict()[name] for name in state}) == bits(state)


# into a slightly different network


@every_family
def test_another_number_of_classes_gives_a_zero_head_and_a_note(tmp_path: Path, family: str) -> None:
    path = tmp_path / "vit.safetensors"
    write_weights(path, network(9).state_dict(), family, 3)
    model = network(seed=1)
    assert load_weights(model, path)[1:] == [f"{path}: the head is zero: the file has 9 classes, the model 7"]
    assert not model.head.weight.any()
    assert not model.head.bias.any()


@pytest.mark.parametrize("interpolation", ["bicubic-antialias", "bilinear-corners"])
@every_family
def test_positions_of_another_grid_are_resampled_with_a_note(tmp_path: Path, family: str, interpolation: str) -> None:
    path = tmp_path / "vit.safetensors"
    source = network()
    write_weights(path, source.state_dict(), family, 3)
    model = network(seed=1, image_size=(24, 48), interpolation=interpolation)
    lines = load_weights(model, path)
    assert lines[1:] == [f"{path}: positions resampled from 4x4 to 3x6 patches, {interpolation}"]
    wanted = resize_pos_embed(source.embeddings.pos_embed, (4, 4), (3, 6), interpolation=interpolation)
    torch.testing.assert_close(model.embeddings.pos_embed[:, 1:], wanted[:, 1:], atol=0, rtol=0)
    torch.testing.assert_close(
        (model.embeddings.pos_embed[:, 0] + model.embeddings.cls_token)[0],
        (source.embeddings.pos_embed[:, 0] + source.embeddings.cls_token)[0],
        atol=0, rtol=0,
    )  # fmt: skip


def test_a_grid_of_as_many_patches_in_another_shape_is_resampled(tmp_path: Path) -> None:
    """Timm once compared only the number of patches, and used 8x2 as 4x4."""
    write_weights(tmp_path / "vit.npz", network().state_dict(), "timm", 3)
    lines = load_weights(network(seed=1, image_size=(16, 64)), tmp_path / "vit.npz")
    assert "resampled from 4x4 to 2x8" in lines[2]


def test_a_checkpoint_of_the_kit_keeps_its_grid(tmp_path: Path) -> None:
    wide = network(image_size=(16, 64))
    torch.save(wide.state_dict(), tmp_path / "last.pt")
    other = network(seed=1, image_size=(16, 64))
    assert not any("resampled" in line for line in load_weights(other, tmp_path / "last.pt"))
    assert bits(other.state_dict()) == bits(wide.state_dict())


@pytest.mark.parametrize("family", ["google", "google-opt-target"])
def test_pre_logits_are_dropped_with_the_head(tmp_path: Path, family: str) -> None:
    path = with_pre_logits(tmp_path / "in21k.npz", 21, family)
    prefix = FAMILIES[family].prefix
    lines = load_weights(network(), path)
    why = "the head is zero: the file has 21 classes, the model 7"
    assert lines[1:] == [f"{path}: {why}; dropped {prefix}pre_logits/kernel, {prefix}pre_logits/bias"]


def test_pre_logits_before_a_head_that_fits_are_an_error(tmp_path: Path) -> None:
    message = "must have no layer between encoder and head; it has pre_logits/kernel"
    refused(with_pre_logits(tmp_path / "vit.npz", 7), message)


# files that are refused


@given(st.sampled_from((".npz", ".safetensors", ".pt", ".bin")), st.integers(0, 999))
def test_a_truncated_download_is_refused(suffix: str, thousandths: int) -> None:
    """https://github.com/faustomorales/vit-keras/issues/27: the only message was "not a zip file"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"vit{suffix}"
        write_weights(path, network(dim=3, mlp_dim=2).state_dict(), "google", 3)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * thousandths // 1000])
        refused(path, "must be a complete")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_a_bit_that_was_flipped_anywhere_changes_no_number_silently(tmp_path: Path, suffix: str) -> None:
    """A bit of a bad disk or download: what nothing checks would be read as another network."""
    path, state = tmp_path / f"vit{suffix}", network(4, image_size=6, patch_size=2, dim=4, depth=1, num_heads=2,
                                                     mlp_dim=3).state_dict()  # fmt: skip
    write_weights(path, state, "timm", 2)
    whole, found = path.read_bytes(), read_weights(path)
    refusals = []
    for place in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            other = read_weights(path)
        except InputError as refusal:
            said = str(refusal)
            assert re.match(rf"{re.escape(str(path))}(: .*)? must ", said)
            refusals.append(said.removeprefix(f"{path} "))
        else:
            assert (bits(other.state), other.num_heads) == (bits(found.state), found.num_heads), place
    assert len(refusals) > 15
    if suffix == ".safetensors":
        assert "must hold the numbers that were written; its checksum says that some differ" in refusals


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vit.npz"
    write_arrays(path, google())
    content = bytearray(path.read_bytes())
    content[content.index(b"embedding/kernel.npy") + 600] ^= 255
    path.write_bytes(content)
    refused(path, "embedding/kernel must be a complete array; it cannot be read")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_torch_file_that_needs_code_is_refused_and_runs_none(tmp_path: Path, suffix: str) -> None:
    path, target = tmp_path / f"vit{suffix}", tmp_path / "boom"
    torch.save({"model": network().state_dict(), "optimizer": Bomb(target)}, path)
    refused(path, "must hold only tensors and plain values; loading it would run code")
    assert not target.exists()
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists(), "the bomb works"


def timm(**options: int) -> dict[str, Tensor]:
    return to_family(network(**options).state_dict(), "timm", 3)


def stacked(scale: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    arrays = to_family(network().state_dict(), "big-vision-stacked", 3)
    name = "params/Transformer/encoderblock/LayerNorm_1/scale"
    return arrays | {name: scale(arrays[name])}


@pytest.mark.parametrize(("content", "message"), [
    (lambda: google(Transformer__encoder_norm__scale=None),
     "must hold Transformer/encoder_norm/scale, as google files do; it is missing"),
    (lambda: google(head__kernel=None), "must hold head/kernel"),
    (lambda: {name: array for name, array in timm(depth=3).items() if ".1." not in name},
     "must hold blocks.1.norm1.weight, as timm files do; it is missing"),
    (lambda: timm() | {f"ls{i}.gamma": torch.ones(12) for i in range(5)},
     "must hold only a Vision Transformer; unknown names: ls0.gamma, ls1.gamma, ls2.gamma and 2 more"),
    (lambda: timm() | {"module.cls_token": timm()["cls_token"]},
     "must hold only a Vision Transformer; unknown names: module.cls_token"),
    (lambda: timm() | {"blocks.0._orig_mod.norm1.bias": torch.ones(12)},
     "must hold blocks.0.norm1.bias once; blocks.0._orig_mod.norm1.bias is another name of it"),
    (lambda: stacked(lambda scale: scale[:1]), "must hold params/Transformer/encoderblock_1/LayerNorm_1/scale"),
    (lambda: stacked(lambda scale: torch.tensor(1.0)), "must hold params/Transformer/encoderblock_0/LayerNorm_1/scale"),
    (lambda: torch.ones(3), "must hold arrays by name; it holds none"),
    (lambda: dict.fromkeys(("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight"), torch.ones(3)),
     "of a known family; it holds conv1.weight, bn1.weight, layer1.0.conv1.weight and 1 more"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_missing_and_unknown_arrays_are_named(tmp_path: Path, content: Callable[[], object], message: str) -> None:
    torch.save(content(), tmp_path / "vit.pt")
    refused(tmp_path / "vit.pt", message)


@every_family
def test_a_wrong_size_is_named_with_the_right_one(tmp_path: Path, family: str) -> None:
    arrays = to_family(network().state_dict(), family, 3)
    name = next(name for name in arrays if "norm1.weight" in name or "LayerNorm_0/scale" in name or "ln_1" in name
                or "attention_norm.weight" in name or "layernorm_before.weight" in name)  # fmt: skip
    write_arrays(tmp_path / "vit.pt", arrays | {name: arrays[name][..., :-1]})
    refused(tmp_path / "vit.pt", "(11,) must be (12,)")


@pytest.mark.parametrize("name", google())
def test_an_array_with_an_axis_too_many_is_named(tmp_path: Path, name: str) -> None:
    write_arrays(tmp_path / "vit.npz", google(**{name.replace("/", "__"): google()[name][None]}))
    refused(tmp_path / "vit.npz", f"vit.npz: {name} (1, ")


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("embedding/kernel", (12, 3), "embedding/kernel (12, 3) must have 4 axes"),
    ("embedding/kernel", (8, 4, 3, 12), "embedding/kernel (8, 4, 3, 12) must be (8, 8, 3, 12)"),
    ("Transformer/posembed_input/pos_embedding", (17, 12), "pos_embedding (17, 12) must have 3 axes"),
    ("Transformer/posembed_input/pos_embedding", (1, 1, 12), "must hold the shapes of a Vision Transformer; Patch"),
    (f"{BLOCK}MultiHeadDotProductAttention_1/query/bias", (5, 3), "Transformer; Attention: dim (12) must be div"),
    (f"{BLOCK}MultiHeadDotProductAttention_1/key/kernel", (12, 4, 3), "(12, 4, 3) must be (12, 3, 4)"),
    (f"{BLOCK}MlpBlock_3/Dense_0/kernel", (20, 12), "(20, 12) must be (12, 20)"),
    ("head/kernel", (7, 12), "head/kernel (7, 12) must be (12, 7)"),
])  # fmt: skip
def test_wrong_shapes_of_google_arrays_are_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    write_arrays(tmp_path / "vit.npz", google(**{name.replace("/", "__"): torch.ones(shape)}))
    refused(tmp_path / "vit.npz", message)


def test_text_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "vit.npz", **{name: array.numpy() for name, array in google().items()}, note=np.array("hello"))
    refused(tmp_path / "vit.npz", "note must be floating-point numbers; can't convert np.ndarray of type numpy.str_")


@pytest.mark.parametrize(("option", "value"), [
    ("dim", 24), ("depth", 3), ("mlp_dim", 24), ("patch_size", 4), ("in_channels", 1),
])  # fmt: skip
@every_family
def test_another_architecture_is_named_with_the_models(tmp_path: Path, family: str, option: str, value: int) -> None:
    write_weights(tmp_path / "vit.npz", network(**{option: value}).state_dict(), family, 3)
    own = (SIZE | {"in_channels": 3})[option]
    model = network()
    refused(
        tmp_path / "vit.npz", f"must hold the weights of the model ({option} {own}); it has {option} {value}", model
    )
    assert bits(model.state_dict()) == bits(network().state_dict()), "the model is unchanged"


def test_positions_of_a_grid_that_is_not_square_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "vit.npz", network(image_size=(16, 24)).state_dict(), "google", 3)
    refused(tmp_path / "vit.npz", "must have positions of a square grid; it has 6 patches")
