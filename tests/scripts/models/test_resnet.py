"""The ResNet in front of the patches, and the hybrid made with it; test_hybrid.py compares its values with timm."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.models.resnet import Bottleneck, ResNet, StdConv
from scripts.models.vit import VisionTransformer
from tests.support.networks import network
from tests.support.strategies import random_images, seeds

pytestmark = pytest.mark.numerics

PUBLISHED = 98_659_112  # R50+ViT-B_16 with 1000 classes at 224 pixels, in models_test.py of google-research


def test_the_preset_has_the_published_number_of_parameters() -> None:
    model = VisionTransformer.from_preset("r50-b16", 1000, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED


def test_the_preset_has_the_numbers_of_the_published_configuration() -> None:
    model = VisionTransformer.from_preset("r50-b16", device="meta")
    assert [len(stage) for stage in model.resnet.stages] == [3, 4, 9]
    assert (model.resnet.stride, model.resnet.out_channels) == (16, 1024)
    assert (model.embeddings.patch_size, model.embeddings.in_channels, model.embeddings.grid) == (1, 1024, (14, 14))
    assert (len(model.encoder.blocks), model.encoder.blocks[0].attn.num_heads) == (12, 12)
    assert model.encoder.blocks[0].mlp.dropout.p == 0.1


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@given(seed=seeds, height=st.sampled_from((8, 10)), width=st.sampled_from((8, 12)))
def test_a_convolution_pads_as_tensorflow_does_and_standardises_each_filter(
    size: int, stride: int, seed: int, height: int, width: int
) -> None:
    """SAME: as many rows as there are strides, and what is odd goes to the end."""
    conv, x = StdConv(3, 5, size, stride, dtype=torch.float64), random_images(seed, 2, 3, height, width)
    flat = conv.weight.detach().flatten(1)
    filters = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, correction=0, keepdim=True) + 1e-8).sqrt()
    frame: list[int] = []
    for side in (width, height):
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        frame += [total // 2, total - total // 2]
    expected = F.conv2d(F.pad(x, frame), filters.view_as(conv.weight), stride=stride)
    assert expected.shape == (2, 5, height // stride, width // stride)
    torch.testing.assert_close(conv(x), expected)


def test_a_filter_may_be_scaled_and_shifted_without_effect() -> None:
    conv, x = StdConv(3, 5, 3, dtype=torch.float64), random_images(0, 2, 3, 8, 8)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
    torch.testing.assert_close(conv(x), before, atol=1e-5, rtol=1e-5)


def test_each_unit_starts_as_its_shortcut() -> None:
    torch.manual_seed(0)
    unit, x = Bottleneck(256, 64, 1), random_images(0, 2, 256, 4, 4, dtype=torch.float32)
    assert torch.equal(unit(x), x.relu())


@given(seeds, st.sampled_from((8, 16, 24)), st.sampled_from((8, 32)))
def test_the_map_has_a_cell_for_each_stride_and_the_encoder_a_token_for_each_cell(
    seed: int, height: int, width: int
) -> None:
    resnet, x = ResNet((1, 1)), random_images(seed, 2, 3, height, width, dtype=torch.float32)
    assert resnet(x).shape == (2, resnet.out_channels, height // 8, width // 8) == (2, 512, height // 8, width // 8)
    model = network(resnet=(1, 1), patch_size=8)
    logits, weights = model(x, return_weights=True)
    assert weights.shape == (2, 2, 3, 1 + height * width // 64, 1 + height * width // 64)
    torch.testing.assert_close(logits, model.head(model.encoder(model.embeddings(model.resnet(x)))[:, 0]))


def test_patches_may_be_larger_than_a_cell_of_the_map() -> None:
    model = network(resnet=(1,), patch_size=8, in_channels=1)
    assert (model.embeddings.patch_size, model.embeddings.grid) == (2, (4, 4))
    assert model(random_images(0, 2, 1, 16, 32, dtype=torch.float32)).shape == (2, 7)


@pytest.mark.parametrize(("options", "message"), [
    ({"resnet": (1, 1), "patch_size": 4},
     "VisionTransformer: patch_size (4) must be a multiple of 8, the stride in front of the patches"),
    ({"resnet": (1,), "image_size": (32, 30)},
     "VisionTransformer: image_size (30) must be a multiple of 4, the stride in front of the patches"),
    ({"resnet": (3, 0)}, "ResNet: units (0) must be at least 1"),
    ({"resnet": (1, 1, 1, 1, 1)}, "ResNet: units ((1, 1, 1, 1, 1)) must be one to four numbers"),
    ({"resnet": (1,), "in_channels": 0}, "ResNet: in_channels (0) must be at least 1"),
])  # fmt: skip
def test_bad_sizes_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        network(**options)


def test_wrong_types_are_refused_by_name() -> None:
    for name, value in (("resnet", ("7",)), ("patch_size", "7"), ("image_size", "7"), ("in_channels", "7")):
        with pytest.raises(TypeError, match=r"^\w+: \w+ \('7'\) must be an integer$"):
            network(**({"resnet": (1,)} | {name: value}))


@pytest.mark.parametrize("shape", [(2, 3, 32, 30), (2, 3, 0, 32), (2, 1, 32, 32), (3, 32, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    message = f"ResNet: input {shape} must be (B, 3, H, W) with H and W multiples of 4"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        network(resnet=(1,))(torch.zeros(shape))


def test_every_parameter_gets_a_gradient() -> None:
    model = network(resnet=(1, 2))
    model(random_images(0, 2, 3, 32, 32, dtype=torch.float32)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_it_compiles_into_one_graph_exports_for_any_image_size_and_torch_fx_traces_it() -> None:
    model = network(resnet=(1,), depth=1, dtype=torch.float64)

    def image(batch: int, h: int, w: int) -> Tensor:
        return random_images(0, batch, 3, 8 * h, 8 * w)

    h, w = (torch.export.Dim(name, min=2, max=32) for name in "hw")
    shapes = ({0: torch.export.Dim("batch"), 2: 8 * h, 3: 8 * w},)
    program = torch.export.export(model, (image(2, 4, 4),), dynamic_shapes=shapes).module()
    traced: nn.Module = torch.fx.symbolic_trace(model)
    for sizes in ((3, 4, 4), (1, 3, 5)):
        torch.testing.assert_close(program(image(*sizes)), model(image(*sizes)))
        torch.testing.assert_close(traced(image(*sizes)), model(image(*sizes)))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image(2, 4, 4)), model(image(2, 4, 4)))


def test_new_weights_are_those_of_the_flax_code() -> None:
    """LeCun normal convolutions; scales are one, but zero before each sum."""
    torch.manual_seed(0)
    resnet = ResNet((1, 1))
    for name, parameter in resnet.named_parameters():
        if "conv" in name:
            assert parameter.std().item() == pytest.approx(parameter[0].numel() ** -0.5, rel=0.05), name
        else:
            wanted = name.endswith("weight") and "norm3" not in name
            assert torch.equal(parameter, torch.full_like(parameter, wanted)), name
