"""Files of DINOv2: LayerScale is folded into the layers before it; tokens are those of transformers and timm."""

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

from scripts.models.vit import VisionTransformer
from scripts.system.errors import InputError
from scripts.weights.files import write_arrays
from scripts.weights.names import FAMILIES
from scripts.weights.pretrained import load_weights, read_weights, write_weights
from tests.support.networks import network
from tests.support.strategies import generator, random_images

pytestmark = pytest.mark.numerics

SIZE = {"image_size": 56, "patch_size": 14, "dim": 24, "depth": 2, "num_heads": 3, "mlp_dim": 48}
CONFIG = {"image_size": 56, "patch_size": 14, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
          "mlp_ratio": 2, "attn_implementation": "eager"}  # fmt: skip
KINDS = ("Dinov2Model", "Dinov2ForImageClassification")
SHAPES = ((56, 56), (84, 84), (28, 70), (112, 42))


def drawn(peer: nn.Module, seed: int = 0) -> nn.Module:
    """The same module with every parameter drawn, the factors of LayerScale too."""
    draw = generator(seed)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.5)
    return peer.eval()


def huggingface(kind: str = "Dinov2Model", **options: object) -> nn.Module:
    return drawn(getattr(transformers, kind)(transformers.Dinov2Config(**(CONFIG | options))))


def original() -> nn.Module:
    """Timm has the names of the original code, but no mask_token."""
    return drawn(timm.models.VisionTransformer(
        img_size=56, patch_size=14, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, init_values=1.0, num_classes=0,
        dynamic_img_size=True,
    ))  # fmt: skip


def loaded(path: Path, **options: object) -> tuple[VisionTransformer, list[str]]:
    model = VisionTransformer(7, **(SIZE | {"interpolation": "bicubic"} | options)).eval()
    return model, [note.removeprefix(f"{path}: ") for note in load_weights(model, path)]


def tokens(model: VisionTransformer, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.encoder(model.embeddings(x))


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_transformers_give_its_tokens_at_any_image_size(tmp_path: Path, kind: str) -> None:
    peer = huggingface(kind)
    peer.save_pretrained(tmp_path)
    model, notes = loaded(tmp_path / "model.safetensors")
    assert notes[0] == "dinov2 weights, 30 arrays"
    assert not any("num_heads" in note for note in notes), "config.json beside it has them"
    body = peer if kind == "Dinov2Model" else peer.dinov2
    for height, width in SHAPES:
        x = random_images(1, 2, 3, height, width, dtype=torch.float32)
        with torch.inference_mode():
            wanted = body(x).last_hidden_state
        assert relative(tokens(model, x), wanted) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_has_in_memory_is_read_under_its_other_names(tmp_path: Path, kind: str) -> None:
    peer = huggingface(kind)
    torch.save(peer.state_dict(), tmp_path / "memory.pt")
    peer.save_pretrained(tmp_path)
    in_memory, on_disk = (read_weights(tmp_path / name).state for name in ("memory.pt", "model.safetensors"))
    assert in_memory.keys() == on_disk.keys()
    assert all(torch.equal(in_memory[name], on_disk[name]) for name in on_disk)


def test_files_with_the_original_names_give_timms_tokens_at_any_image_size(tmp_path: Path) -> None:
    peer = original()
    torch.save(peer.state_dict() | {"mask_token": torch.ones(1, 24)}, tmp_path / "vits14.pth")
    model, notes = loaded(tmp_path / "vits14.pth", interpolation="bicubic-antialias")
    assert notes == [
        "dinov2-original weights, 30 arrays", "the rest of the file is ignored: mask_token",
        "num_heads 3 of the model is assumed: the file does not tell", "the head is zero: the file has none",
    ]  # fmt: skip
    for height, width in SHAPES:
        x = random_images(1, 2, 3, height, width, dtype=torch.float32)
        with torch.inference_mode():
            wanted = peer.forward_features(x)
        assert relative(tokens(model, x), wanted) < 1e-5


def test_a_checkpoint_of_the_original_training_has_its_blocks_in_chunks(tmp_path: Path) -> None:
    """With FSDP the first block is blocks.0.0, the last one of twelve in four chunks blocks.3.11."""
    state = original().state_dict()
    chunks = {name.replace("blocks.", "blocks.0.").replace("blocks.0.1.", "blocks.1.1."): array
              for name, array in state.items()}  # fmt: skip
    backbone = {f"backbone.{name}": array for name, array in chunks.items()}
    torch.save({"teacher": backbone | {"dino_head.mlp.0.bias": torch.ones(3)}}, tmp_path / "teacher.pth")
    torch.save(state, tmp_path / "released.pth")
    trained, released = (read_weights(tmp_path / f"{name}.pth") for name in ("teacher", "released"))
    assert trained.notes == (
        f"{tmp_path / 'teacher.pth'}: the prefix teacher/backbone. of every name is removed",
        f"{tmp_path / 'teacher.pth'}: the rest of the file is ignored: teacher/dino_head",
    )
    assert all(torch.equal(trained.state[name], released.state[name]) for name in released.state)


def test_the_mask_token_and_the_classifier_are_ignored_with_a_note(tmp_path: Path) -> None:
    """Hugging Face's classifier reads the class token and the mean of the patches, twice the width."""
    huggingface("Dinov2ForImageClassification").save_pretrained(tmp_path)
    _, notes = loaded(tmp_path / "model.safetensors")
    assert notes[1:] == [
        "the rest of the file is ignored: classifier, dinov2.embeddings.mask_token",
        "the head is zero: the file has none",
    ]


def test_rows_and_bias_are_multiplied_by_the_factors_and_nothing_else_is(tmp_path: Path) -> None:
    state = original().state_dict()
    torch.save(state, tmp_path / "vits14.pth")
    read = read_weights(tmp_path / "vits14.pth").state
    for theirs, scale, ours in (("attn.proj", "ls1", "attn.proj"), ("mlp.fc2", "ls2", "mlp.fc2")):
        factors = state[f"blocks.1.{scale}.gamma"]
        assert torch.equal(read[f"encoder.blocks.1.{ours}.weight"],
                           state[f"blocks.1.{theirs}.weight"] * factors[:, None])  # fmt: skip
        assert torch.equal(read[f"encoder.blocks.1.{ours}.bias"], state[f"blocks.1.{theirs}.bias"] * factors)
    for layer in ("attn.qkv", "mlp.fc1", "norm1", "norm2"):
        assert torch.equal(read[f"encoder.blocks.1.{layer}.weight"], state[f"blocks.1.{layer}.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_of_half_precision_are_kept_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """LayerScale starts at 1e-5: times a weight of 0.002 that is 0 in float16."""
    state = {name: array.to(dtype) for name, array in original().state_dict().items()}
    state |= {f"blocks.{i}.ls{n}.gamma": torch.full((24,), 1e-5, dtype=dtype) for i in (0, 1) for n in (1, 2)}
    state["blocks.0.attn.proj.weight"] = torch.full((24, 24), 0.002, dtype=dtype)
    write_arrays(tmp_path / "half.safetensors", state)
    folded = read_weights(tmp_path / "half.safetensors").state["encoder.blocks.0.attn.proj.weight"]
    assert folded.dtype == torch.float32
    exact = float(torch.tensor(0.002, dtype=dtype)) * float(torch.tensor(1e-5, dtype=dtype))
    torch.testing.assert_close(folded, torch.full((24, 24), exact), atol=0, rtol=1e-6)


@pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family].layer_scale])
def test_these_families_are_not_written_and_the_line_says_why(tmp_path: Path, family: str) -> None:
    with pytest.raises(InputError) as error:
        write_weights(tmp_path / "new.pt", network().state_dict(), family, 3)
    assert str(error.value) == (
        f"family ({family}) must be another one to write: it has LayerScale, which reading folds into the layers "
        "before it, and which cannot be recovered from them"
    )
    assert not (tmp_path / "new.pt").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"blocks.0.ls2.gamma": None}, "must hold blocks.0.ls2.gamma, as dinov2-original files do; it is missing"),
    ({"blocks.1.ls1.gamma": torch.ones(23)}, "blocks.1.ls1.gamma (23,) must be (24,)"),
    ({"blocks.1.ls1.gamma": torch.ones(24, 1)}, "blocks.1.ls1.gamma (24, 1) must be (24,)"),
    ({"blocks.1.ls1.gamma": torch.full((24,), torch.nan)}, "blocks.1.ls1.gamma (24,) must be finite"),
    ({"blocks.1.ls1.gamma": torch.full((24,), 3e38), "blocks.1.attn.proj.bias": torch.full((24,), 3e38)},
     "blocks.1.ls1.gamma (24,) must be small enough that its products with attn.proj are finite"),
    ({"register_tokens": torch.ones(1, 4, 24)},
     "must hold no register tokens, which the kit has no place for; it has register_tokens"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state = original().state_dict() | change
    torch.save({name: array for name, array in state.items() if array is not None}, tmp_path / "vits14.pth")
    with pytest.raises(InputError) as error:
        loaded(tmp_path / "vits14.pth")
    assert str(error.value).startswith(str(tmp_path / "vits14.pth"))
    assert message in str(error.value)


@pytest.mark.parametrize("kind", ["Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"])
def test_registers_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    getattr(transformers, kind)(transformers.Dinov2WithRegistersConfig(**CONFIG)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError) as error:
        loaded(path)
    assert str(error.value) == (
        f"{path} must hold no register tokens, which the kit has no place for; it has dinov2.embeddings.register_tokens"
    )


def test_the_preset_is_the_small_network_at_any_image_size(tmp_path: Path) -> None:
    """The tokens at 518 pixels, with positions of 37x37, and of an image that is small and not square."""
    config = transformers.Dinov2Config(
        image_size=518, patch_size=14, hidden_size=384, num_hidden_layers=12, num_attention_heads=6, mlp_ratio=4
    )
    peer = drawn(transformers.Dinov2Model(config))
    for parameter in peer.parameters():
        parameter.data *= 0.04  # a spread of 0.02, as they start with
    peer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["layer_norm_eps"] == 1e-6
    model = VisionTransformer.from_preset("s14").eval()
    load_weights(model, tmp_path / "model.safetensors")
    for shape in ((518, 518), (70, 98)):
        x = random_images(1, 1, 3, *shape, dtype=torch.float32)
        with torch.inference_mode():
            wanted = peer(x).last_hidden_state
        assert float((tokens(model, x) - wanted).abs().max()) < 1e-5
