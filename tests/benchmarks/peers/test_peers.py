"""The same weights give the same numbers in timm, torchvision, transformers, and in NumPy from Google's file.

Weights are renamed by the table of families and loaded strictly. Compared are the tokens at the input, after every
block and after the last norm, the attention weights of every block, and the logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer as TorchvisionTransformer

from scripts.models.vit import VisionTransformer
from scripts.weights.families import sizes, to_family
from scripts.weights.pretrained import load_weights, write_weights
from tests.reference.flax import Array, vision_transformer
from tests.support.strategies import head_counts, random_images, seeds

pytestmark = pytest.mark.numerics

BOUND = {torch.float32: 1e-5, torch.float64: 1e-10}  # absolute, for images and weights of unit scale
SOFTMAX = {"transformers": 1e-6}  # its eager attention has a softmax in float32 for any type
dtypes = st.sampled_from((torch.float32, torch.float64))
squares = st.sampled_from((((32, 32), 8), ((32, 32), 16), ((224, 224), 16)))  # sides of the image, side of a patch
frames = squares | st.sampled_from((((24, 8), 8), ((32, 48), 16), ((224, 112), 16)))


class Seen(NamedTuple):
    """What a network computes."""

    logits: Tensor
    tokens: list[Tensor]
    maps: list[Tensor]


def drawn(model: VisionTransformer) -> VisionTransformer:
    """The initial weights, but none is zero or one: biases, scales, class token and head are drawn too."""
    with torch.no_grad():
        for parameter in (*(each for each in model.parameters() if each.ndim in (1, 3)), model.head.weight):
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


def small(
    seed: int, frame: tuple[tuple[int, int], int], heads: int, width: int, depth: int, **options: object
) -> VisionTransformer:
    torch.manual_seed(seed)
    model = VisionTransformer(
        image_size=frame[0], patch_size=frame[1], dim=heads * width, depth=depth, num_heads=heads,
        mlp_dim=heads * width * 2, **options,
    )  # fmt: skip
    return drawn(model)


@contextmanager
def kept_outputs(layers: list[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of some layers, in the order of their calls."""
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in layers]
    yield outputs
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def seen_by_the_kit(model: VisionTransformer, x: Tensor) -> Seen:
    """Logits and all tokens of every layer by the fused kernel; attention weights without it."""
    with kept_outputs([model.embeddings, *model.encoder.blocks, model.encoder.norm]) as tokens:
        model.encoder(model.embeddings(x))  # the model itself computes only the class token in the last block
    return Seen(model(x), tokens, list(model(x, return_weights=True)[1].unbind(1)))


def options_of(model: VisionTransformer) -> dict[str, Any]:
    patch_size, heads = model.embeddings.patch_size, model.encoder.blocks[0].attn.num_heads
    frame = tuple(side * patch_size for side in model.embeddings.grid)
    return sizes(model.state_dict()) | {"num_heads": heads, "image_size": frame, "num_classes": model.head.out_features}


@torch.no_grad()
def seen_by_timm(model: VisionTransformer, x: Tensor) -> Seen:
    size = options_of(model)
    with torch.device("meta"):
        peer = timm.models.VisionTransformer(
            img_size=size["image_size"], patch_size=size["patch_size"], embed_dim=size["dim"], depth=size["depth"],
            num_heads=size["num_heads"], mlp_ratio=size["mlp_dim"] / size["dim"], num_classes=size["num_classes"],
            dynamic_img_size=True,
        ).eval()  # fmt: skip
    peer.load_state_dict(to_family(model.state_dict(), "timm", None), strict=True, assign=True)
    for block in peer.blocks:
        block.attn.fused_attn = False
    attention = [block.attn.attn_drop for block in peer.blocks]
    with kept_outputs([peer.pos_drop, *peer.blocks, peer.norm]) as tokens, kept_outputs(attention) as maps:
        return Seen(peer(x), tokens, maps)


@torch.no_grad()
def seen_by_torchvision(model: VisionTransformer, x: Tensor) -> Seen:
    """Its blocks ask for no attention weights, so each attention is called once more for them."""
    size = options_of(model)
    with torch.device("meta"):
        peer = TorchvisionTransformer(
            size["image_size"][0], size["patch_size"], size["depth"], size["num_heads"], size["dim"], size["mlp_dim"],
            num_classes=size["num_classes"],
        ).eval()  # fmt: skip
    peer.load_state_dict(to_family(model.state_dict(), "torchvision", None), strict=True, assign=True)
    layers = list(peer.encoder.layers)
    with kept_outputs([peer.encoder.dropout, *layers, peer.encoder.ln]) as tokens:
        logits = peer(x)
    maps = []
    for layer, before in zip(layers, tokens, strict=False):
        normed = layer.ln_1(before)
        maps.append(layer.self_attention(normed, normed, normed, need_weights=True, average_attn_weights=False)[1])
    return Seen(logits, tokens, maps)


def vit_config(model: VisionTransformer) -> transformers.ViTConfig:
    size = options_of(model)
    return transformers.ViTConfig(
        image_size=size["image_size"], patch_size=size["patch_size"], hidden_size=size["dim"],
        num_hidden_layers=size["depth"], num_attention_heads=size["num_heads"], intermediate_size=size["mlp_dim"],
        num_labels=size["num_classes"], layer_norm_eps=1e-6,
    )  # fmt: skip


@torch.no_grad()
def seen_by_transformers(model: VisionTransformer, x: Tensor) -> Seen:
    """Tokens and logits by the fused kernel, attention weights by the eager attention."""
    config = vit_config(model)
    peer, report = transformers.ViTForImageClassification.from_pretrained(
        None, config=config, state_dict=to_family(model.state_dict(), "huggingface", None), dtype=x.dtype,
        output_loading_info=True,
    )  # fmt: skip
    assert not any(report.values()), report
    resample = {"interpolate_pos_encoding": x.shape[2:] != config.image_size}
    with kept_outputs([peer.vit.embeddings, *peer.vit.layers, peer.vit.layernorm]) as tokens:
        logits = peer.eval()(x, **resample).logits
    peer.set_attn_implementation("eager")
    return Seen(logits, tokens, list(peer(x, output_attentions=True, **resample).attentions))


def seen_by_numpy(model: VisionTransformer, x: Tensor) -> Seen:
    """In float64 for weights of any type."""
    arrays = to_family(model.state_dict(), "google", model.encoder.blocks[0].attn.num_heads)
    seen = vision_transformer({name: array.numpy() for name, array in arrays.items()}, x.permute(0, 2, 3, 1).numpy())
    return as_seen(*seen)


def as_seen(logits: Array, tokens: list[Array], maps: list[Array]) -> Seen:
    return Seen(torch.from_numpy(logits), *([torch.from_numpy(each) for each in arrays] for arrays in (tokens, maps)))


PEERS: dict[str, Callable[[VisionTransformer, Tensor], Seen]] = {
    "timm": seen_by_timm,
    "torchvision": seen_by_torchvision,
    "transformers": seen_by_transformers,
    "numpy": seen_by_numpy,
}


def assert_same(ours: Seen, theirs: Seen, bound: float, softmax: float = 0.0) -> None:
    """``softmax`` is the error of their attention weights."""
    close = {"rtol": 0, "check_dtype": False}  # NumPy's is float64
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=bound, **close)
    torch.testing.assert_close(ours.maps, theirs.maps, atol=max(bound, softmax), **close)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=bound, **close)


@pytest.mark.parametrize("peer", PEERS)
@given(st.data(), seeds, head_counts, st.sampled_from((12, 16)), st.integers(1, 3), dtypes)
def test_every_token_every_map_and_the_logits_are_the_same(
    peer: str, data: st.DataObject, seed: int, heads: int, width: int, depth: int, dtype: torch.dtype
) -> None:
    """At 32x32, 224x224 and other sizes; torchvision takes square images only."""
    frame = data.draw(squares if peer == "torchvision" else frames)
    model = small(seed, frame, heads, width, depth).to(dtype)
    x = random_images(seed, 2, 3, *frame[0], dtype=dtype)
    assert_same(seen_by_the_kit(model, x), PEERS[peer](model, x), BOUND[dtype], SOFTMAX.get(peer, 0))


@pytest.mark.parametrize(("peer", "interpolation"), [("timm", "bicubic-antialias"), ("transformers", "bicubic")])
@given(seeds, st.sampled_from((1, 2, 3, 4, 5, 8)), st.sampled_from((1, 2, 3, 6, 7)), dtypes)
def test_another_image_size_is_the_same_too(
    peer: str, interpolation: str, seed: int, rows: int, columns: int, dtype: torch.dtype
) -> None:
    """Timm resamples in float32 for weights of any type; torchvision refuses other sizes."""
    model = small(seed, ((32, 32), 8), 3, 4, 2, interpolation=interpolation).to(dtype)
    x = random_images(seed, 2, 3, 8 * rows, 8 * columns, dtype=dtype)
    bound = 1e-6 if (peer, dtype) == ("timm", torch.float64) else BOUND[dtype]
    assert_same(seen_by_the_kit(model, x), PEERS[peer](model, x), bound, SOFTMAX.get(peer, 0))


class Case(NamedTuple):
    model: VisionTransformer
    x: Tensor
    seen: Seen


@pytest.fixture(scope="module", params=BOUND, ids=str)
def vit_b16(request: pytest.FixtureRequest) -> Case:
    """ViT-B/16 at 32 pixels, with the spread of 0.02 that timm and transformers start with; and what it computes."""
    torch.manual_seed(0)
    model = VisionTransformer.from_preset("b16", image_size=32).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.02)
    model.to(request.param)
    x = random_images(0, 1, 3, 32, 32, dtype=request.param)
    return Case(model, x, seen_by_the_kit(model, x))


@pytest.mark.parametrize("peer", PEERS)
def test_vit_b16_is_the_same(vit_b16: Case, peer: str) -> None:
    model, x, seen = vit_b16
    assert_same(seen, PEERS[peer](model, x), BOUND[x.dtype], SOFTMAX.get(peer, 0))


def test_numpy_reads_googles_file(tmp_path: Path) -> None:
    """From the .npz itself, by its own names."""
    model, x = small(0, ((32, 32), 8), 3, 4, 2).double(), random_images(0, 2, 3, 32, 32)
    write_weights(tmp_path / "vit.npz", model.state_dict(), "google", 3)
    with np.load(tmp_path / "vit.npz", allow_pickle=False) as arrays:
        theirs = as_seen(*vision_transformer(arrays, x.permute(0, 2, 3, 1).numpy()))
    assert_same(seen_by_the_kit(model, x), theirs, 1e-10)


def test_transformers_reads_the_file_written_for_it(tmp_path: Path) -> None:
    model, x = small(0, ((32, 32), 8), 3, 4, 2), random_images(0, 2, 3, 32, 32, dtype=torch.float32)
    vit_config(model).save_pretrained(tmp_path)
    write_weights(tmp_path / "model.safetensors", model.state_dict(), "huggingface", None)
    peer, report = transformers.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    torch.testing.assert_close(peer(x).logits, model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTModel"])
def test_files_of_transformers_and_its_state_in_memory_are_read(tmp_path: Path, kind: str) -> None:
    """Version 5 has new names for its modules, but keeps the older names in files."""
    model, x = small(0, ((32, 32), 8), 3, 4, 2), random_images(0, 2, 3, 32, 32, dtype=torch.float32)
    peer = getattr(transformers, kind)(vit_config(model)).eval()
    peer.save_pretrained(tmp_path)
    torch.save(peer.state_dict(), tmp_path / "memory.pth")
    for name in ("model.safetensors", "memory.pth"):
        assert "huggingface weights" in load_weights(model, tmp_path / name)[0]
        tokens = model.encoder(model.embeddings(x))
        encoder = peer if kind == "ViTModel" else peer.vit
        torch.testing.assert_close(encoder(x).last_hidden_state, tokens, atol=1e-5, rtol=0)


def test_the_numbers_on_the_page_about_peers() -> None:
    """The epsilon of transformers, and the difference between the two forms of the GELU."""
    assert transformers.ViTConfig().layer_norm_eps == 1e-12
    x = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
    assert (F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max().item() == pytest.approx(4.7e-4, abs=0.05e-4)
