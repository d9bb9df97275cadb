"""The Vision Transformer: published sizes, any image size, attention of every layer; test_peers.py compares values."""

import math
import re
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from scripts.models.conv_stem import ConvStem
from scripts.models.vit import PRESETS, VisionTransformer, drop_patches, few_patches_warning
from tests.support.networks import by_heart, network
from tests.support.strategies import random_images, seeds

pytestmark = pytest.mark.numerics

PUBLISHED = {  # parameters with 1000 classes at 224x224, from the pages of torchvision's weights
    "b16": 86_567_656,
    "b32": 88_224_232,
    "l16": 304_326_632,
    "l32": 306_535_400,
    "h14": 632_045_800,
}


tiny = partial(network, dtype=torch.float64)


def count(preset: str, num_classes: int, **options: object) -> int:
    model = VisionTransformer.from_preset(preset, num_classes, device="meta", **options)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(preset: str) -> None:
    assert count(preset, 1000) == PUBLISHED[preset]


def test_vit_b16_has_the_numbers_of_the_published_configuration() -> None:
    assert count("b16", 10) == 85_806_346
    model = VisionTransformer.from_preset("b16", device="meta")
    block = model.encoder.blocks[0]
    assert (len(model.encoder.blocks), block.attn.num_heads, block.attn.dim, block.mlp.fc1.out_features) == (
        (12, 12, 768, 3072)
    )
    assert model.embeddings.pos_embed.shape == (1, 197, 768)
    rates = (model.embeddings.dropout, block.attn.dropout, block.mlp.dropout)
    assert [rate.p for rate in rates] == [0.1, 0.1, 0.1]
    assert (block.attn.attn_dropout, block.stochastic_depth, block.norm1.eps) == (0.0, 0.0, 1e-6)


def test_sizes_may_be_of_any_integer_type_and_wrong_types_are_refused_by_name() -> None:
    sizes = {"image_size": 32, "patch_size": 8, "dim": 12, "depth": 2, "num_heads": 3, "mlp_dim": 20}
    module = tiny(np.int64(7), in_channels=np.int64(3), **{name: np.int64(size) for name, size in sizes.items()})
    assert repr(module) == repr(tiny(7))
    options = {"num_classes", *sizes, "in_channels", "dropout", "patch_dropout", "qkv_bias", "checkpointing"}
    for name in options:
        with pytest.raises(TypeError, match=rf"^\w+: {name} \('7'\) must be "):
            tiny(**{name: "7"})


@pytest.mark.parametrize("options", [
    {"num_classes": 0}, {"num_classes": -1}, {"in_channels": 0}, {"in_channels": 0, "stem": (4,)}, {"stem": (-1,)},
    {"stem": (4, 0)}, {"in_channels": 0, "resnet": (1,), "image_size": 32, "patch_size": 16},
])  # fmt: skip
def test_a_size_below_one_is_refused_by_name(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(ValueError, match=r"^\w+: \w+ \(.*\) must be .*at least 1$") as error:
        tiny(**options)
    assert {"stem": "widths"}.get(name, name) in str(error.value)


@pytest.mark.parametrize("name", ["stem", "resnet"])
def test_a_number_in_place_of_several_is_refused_by_name(name: str) -> None:
    with pytest.raises(TypeError, match=r"^\w+: \w+ \(8\) must be "):
        tiny(**{name: 8})


def test_lite_is_vit_lite_7_4() -> None:
    """The README of SHI-Labs/Compact-Transformers gives 3.717 M parameters, without biases of q, k and v."""
    assert round(count("lite", 10, qkv_bias=False) / 1e6, 3) == 3.717


def test_s14_is_the_small_network_of_dinov2() -> None:
    """In timm it has 22,056,192 parameters without a head; 2 x 12 x 384 of them are LayerScale's, folded here."""
    assert count("s14", 10) == 22_056_192 - 2 * 12 * 384 + 10 * 385
    model = VisionTransformer.from_preset("s14", device="meta")
    assert (model.embeddings.grid, model.embeddings.interpolation) == ((37, 37), "bicubic")
    assert (model.encoder.blocks[0].attn.num_heads, model.encoder.blocks[0].norm1.eps) == (6, 1e-6)


def test_the_first_prediction_is_uniform_and_only_the_head_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = VisionTransformer.from_preset("lite", dim=32, mlp_dim=64)
    logits = model(random_images(0, 2, 3, 32, 32, dtype=torch.float32))
    assert torch.equal(logits, torch.zeros(2, 10))
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert model.head.weight.grad.any()
    assert not model.embeddings.proj.weight.grad.any()


def test_it_learns_a_batch_by_heart() -> None:
    """Labels that nothing in the images tells, and every parameter takes part."""
    torch.manual_seed(0)
    model = VisionTransformer(5, image_size=16, patch_size=8, dim=24, depth=2, num_heads=3, mlp_dim=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = by_heart(model, random_images(0, 10, 3, 16, 16, dtype=torch.float32), torch.arange(10) % 5)
    assert losses[0] == pytest.approx(math.log(5))
    assert losses[-1] < 0.1
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []


@given(seeds, st.sampled_from((8, 24, 32, 40)), st.sampled_from((8, 16, 56)))
def test_any_image_is_classified_and_every_layer_returns_its_weights(seed: int, height: int, width: int) -> None:
    model, x = tiny(seed=seed), random_images(seed, 2, 3, height, width)
    logits, weights = model(x, return_weights=True)
    tokens = 1 + height * width // 64
    assert weights.shape == (2, 2, 3, tokens, tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    torch.testing.assert_close(logits, model(x))
    torch.testing.assert_close(logits, model.head(model.encoder(model.embeddings(x))[:, 0]), msg="the class token")


@given(seeds)
def test_the_last_block_computes_the_class_token_alone(seed: int) -> None:
    """The logits are those of a last block that computes every token."""
    model, widths = tiny(seed=seed), []
    x = random_images(seed, 2, 3, 16, 24)
    for block in model.encoder.blocks:
        block.mlp.register_forward_hook(lambda module, args, out: widths.append(out.shape[1]))
    logits = model(x)
    assert widths == [7, 1]
    torch.testing.assert_close(logits, model.head(model.encoder(model.embeddings(x))[:, 0]))


def test_options_reach_the_parts() -> None:
    model = tiny(in_channels=2, qkv_bias=False, dropout=0.1, attn_dropout=0.2, stochastic_depth=0.3,
                 checkpointing=True, interpolation="bilinear")  # fmt: skip
    assert (model.embeddings.proj.in_channels, model.embeddings.dropout.p) == (2, 0.1)
    assert (model.embeddings.interpolation, model.encoder.checkpointing) == ("bilinear", True)
    assert [block.attn.qkv.bias for block in model.encoder.blocks] == [None, None]
    last = model.encoder.blocks[-1]
    assert (last.mlp.dropout.p, last.attn.attn_dropout, last.stochastic_depth) == (0.1, 0.2, 0.3)
    assert VisionTransformer.from_preset("lite", dropout=0.5, device="meta").embeddings.dropout.p == 0.5


@given(seeds, st.sampled_from((8, 16, 40)), st.sampled_from((8, 24)))
def test_patches_are_cut_from_what_the_stem_makes_of_the_image(seed: int, height: int, width: int) -> None:
    model, x = tiny(seed=seed, stem=(4, 6), patch_size=8).eval(), random_images(seed, 2, 3, height, width)
    features = model.stem(x)
    assert features.shape == (2, 6, height // 4, width // 4)
    assert model.embeddings.proj.weight.shape[1:] == (6, 2, 2)
    torch.testing.assert_close(model(x), model.head(model.encoder(model.embeddings(features))[:, 0]))


@given(seeds, st.sampled_from((8, 24)))
def test_a_pooled_sequence_is_a_mean_of_all_patches_with_learned_weights(seed: int, width: int) -> None:
    """Compact Transformers, equation 4; the class token takes part in the encoder alone."""
    model, x = tiny(seed=seed, pool="sequence"), random_images(seed, 2, 3, 16, width)
    tokens = model.encoder(model.embeddings(x))[:, 1:]
    weights = (tokens @ model.pool.weight.T + model.pool.bias).softmax(1)
    torch.testing.assert_close(model(x), model.head((weights.transpose(1, 2) @ tokens)[:, 0]))
    logits, attention = model(x, return_weights=True)
    torch.testing.assert_close(logits, model(x))
    assert attention.shape[1] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "VisionTransformer: pool ('mean') must be token or sequence"),
        ({"stem": (4,), "resnet": (1,)}, "VisionTransformer: stem ((4,)) must be empty with a resnet ((1,))"),
        ({"stem": (4, 4), "patch_size": 2},
         "VisionTransformer: patch_size (2) must be a multiple of 4, the stride in front of the patches"),
        ({"stem": (4, 4), "image_size": 30},
         "VisionTransformer: image_size (30) must be a multiple of 4, the stride in front of the patches"),
    ],
)  # fmt: skip
def test_what_does_not_fit_in_front_of_the_patches_is_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tiny(**options)


@given(seeds, st.sampled_from((4, 6)), st.sampled_from((2, 8)))
def test_the_first_layer_of_a_stem_sees_every_pixel_with_its_neighbours_to_the_right_and_below(
    seed: int, height: int, width: int
) -> None:
    stem, x = ConvStem((4,), dtype=torch.float64).eval(), random_images(seed, 2, 3, height, width)
    larger = torch.zeros(2, 3, height + 1, width + 1, dtype=x.dtype)  # zero outside the image
    larger[..., :height, :width] = x
    values = stem.first.bias[:, None, None]
    for down, right in product((0, 1), (0, 1)):
        neighbours = larger[..., down : down + height, right : right + width]
        values = values + torch.einsum("oi,bihw->bohw", stem.first.weight[..., down, right], neighbours)
    torch.testing.assert_close(stem(x), stem.stages(F.gelu(values)))


def test_a_stem_refuses_images_that_it_cannot_halve() -> None:
    stem = ConvStem((4, 4))
    for shape in ((2, 3, 30, 32), (2, 1, 32, 32), (3, 32, 32), (2, 3, 0, 32)):
        message = f"ConvStem: input {shape} must be (B, 3, H, W) with H and W multiples of 4"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            stem(torch.zeros(shape))


@pytest.mark.parametrize("preset", ["b8", ["b16"], None])
def test_an_unknown_preset_is_refused_by_name(preset: object) -> None:
    message = f"VisionTransformer: preset ({preset!r}) must be one of {tuple(PRESETS)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VisionTransformer.from_preset(preset)


@given(seeds, st.integers(1, 4), st.integers(1, 20), st.sampled_from((0.1, 0.25, 0.5, 0.9)))
def test_dropped_patches_leave_the_class_token_and_some_of_each_image(seed, batch, count, share) -> None:
    torch.manual_seed(seed)
    tokens = torch.arange(batch * (1 + count), dtype=torch.float64).view(batch, 1 + count, 1).expand(-1, -1, 3)
    kept = drop_patches(tokens, share)
    assert kept.shape == (batch, 1 + max(1, round((1 - share) * count)), 3)
    assert torch.equal(kept[:, 0], tokens[:, 0])
    for before, after in zip(tokens[:, 1:, 0].tolist(), kept[:, 1:, 0].tolist(), strict=True):
        assert len(set(after)) == len(after), "no patch twice"
        assert set(after) <= set(before), "of the same image"


def test_all_patches_are_dropped_equally_often_and_independently_in_each_image() -> None:
    torch.manual_seed(0)
    tokens = torch.arange(9.0).view(1, 9, 1).expand(20_000, -1, -1)
    kept = drop_patches(tokens, 0.5)[:, 1:, 0].long()
    share = kept.flatten().bincount(minlength=9)[1:] / 20_000
    torch.testing.assert_close(share, torch.full((8,), 0.5), atol=0.02, rtol=0)
    assert len(kept.sort(1).values.unique(dim=0)) == 70, "all 8 over 4 choices"


@given(seeds)
def test_patches_are_dropped_only_in_training(seed: int) -> None:
    torch.manual_seed(seed)
    model, x = tiny(patch_dropout=0.5), random_images(seed, 2, 3, 32, 32)
    _, weights = model.train()(x, return_weights=True)
    assert weights.shape[-1] == 1 + 8
    model.eval()
    _, weights = model(x, return_weights=True)
    assert weights.shape[-1] == 1 + 16
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("share", (-0.1, 1.0))
def test_a_patch_dropout_out_of_range_is_refused(share: float) -> None:
    message = f"VisionTransformer: patch_dropout ({share}) must be at least 0 and less than 1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VisionTransformer.from_preset("lite", patch_dropout=share, device="meta")


def test_fewer_than_sixteen_patches_give_a_warning_with_a_better_recipe() -> None:
    """The cause of many questions about accuracy from scratch: lucidrains #12, kentaroy47 #5, jeonsworld #34."""
    assert few_patches_warning(16, (32, 32)) == ""
    assert "32x48 pixels is only 6 patches" in few_patches_warning(6, (32, 48))
    assert "recipe compact" in few_patches_warning(15, (32, 32))
    assert "recipe" not in few_patches_warning(9, (24, 24), convolutions=True), "it has what would be advised"


def test_it_compiles_into_one_graph_and_exports_for_any_image_size() -> None:
    model = tiny(depth=1)

    def image(batch: int, h: int, w: int) -> Tensor:
        return random_images(0, batch, 3, 8 * h, 8 * w)

    h, w = (torch.export.Dim(name, min=2, max=32) for name in "hw")
    shapes = ({0: torch.export.Dim("batch"), 2: 8 * h, 3: 8 * w},)
    program = torch.export.export(model, (image(2, 4, 4),), dynamic_shapes=shapes).module()
    for sizes in ((3, 4, 4), (1, 3, 5)):
        torch.testing.assert_close(program(image(*sizes)), model(image(*sizes)))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image(2, 4, 4)), model(image(2, 4, 4)))


@pytest.mark.parametrize("training", (False, True))
def test_torch_fx_traces_it_and_torchvision_returns_what_its_layers_compute(training: bool) -> None:
    model, x, seen = tiny(patch_dropout=0.5).train(training), random_images(0, 2, 3, 32, 32), []
    names = ("embeddings.proj", "encoder.blocks.0.attn.qkv", "encoder.blocks.0.mlp.fc2", "head")
    features = create_feature_extractor(model, [*names], suppress_diff_warning=True)  # patches are dropped in training
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda part, given, output: seen.append(output))

    def seeded(call: nn.Module, *options: object) -> object:
        torch.manual_seed(0)
        return call(x, *options)

    expected, computed = seeded(model), [*seen]
    assert len(computed) == len(names)
    found = seeded(features)
    torch.testing.assert_close([found[name] for name in names], computed)
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(seeded(traced), expected)
    torch.testing.assert_close(seeded(traced, True), seeded(model, True))
