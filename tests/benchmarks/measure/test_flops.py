"""Closed forms of the work against torch's own counter, on the meta device."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import flops
from benchmarks.measure.calls import CALLS
from benchmarks.measure.flops import Work
from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings
from scripts.models.stn import STNClassifier
from scripts.models.vit import VisionTransformer

sizes = st.integers(1, 7)


def counted(module: Callable[[Tensor], Tensor], x: Tensor) -> tuple[int, int]:
    """FLOPs of the forward and the backward pass, with attention as products, which the counter sees everywhere."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        y = module(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def holds(work: Work, module: nn.Module, x: Tensor) -> None:
    assert (work.forward, work.backward) == counted(module, x)
    assert work.parameters == sum(parameter.numel() for parameter in module.parameters())


def image(batch: int, side: int) -> Tensor:
    return torch.empty(batch, 3, side, side, device="meta")


def tokens(batch: int, count: int, dim: int) -> Tensor:
    return torch.empty(batch, count, dim, device="meta", requires_grad=True)


COMPONENTS: dict[str, Callable[..., tuple[Work, nn.Module, Tensor]]] = {  # of five small sizes
    "LocalizationNet": lambda batch, side, *_: (
        flops.localization_net(batch, 12 * (side - 1) + batch), LocalizationNet(device="meta"),
        image(batch, 12 * (side - 1) + batch),
    ),
    "PatchEmbeddings": lambda batch, grid, patch, dim, _: (
        flops.patch_embeddings(batch, grid * patch, patch, dim),
        PatchEmbeddings(grid * patch, patch, dim=dim, device="meta"), image(batch, grid * patch),
    ),
    "Attention": lambda batch, count, heads, width, _: (
        flops.attention(batch, count, heads * width), Attention(heads * width, heads, device="meta"),
        tokens(batch, count, heads * width),
    ),
    "MLP": lambda batch, count, dim, mlp_dim, _: (
        flops.mlp(batch, count, dim, mlp_dim), MLP(dim, mlp_dim, device="meta"), tokens(batch, count, dim),
    ),
    "Block": lambda batch, count, dim, mlp_dim, _: (
        flops.block(batch, count, dim, mlp_dim), Block(dim, 1, mlp_dim=mlp_dim, device="meta"),
        tokens(batch, count, dim),
    ),
    "Encoder": lambda batch, count, dim, mlp_dim, depth: (
        flops.encoder(batch, count, dim, mlp_dim, depth),
        Encoder(dim, depth, num_heads=1, mlp_dim=mlp_dim, device="meta"), tokens(batch, count, dim),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPONENTS)
@given(st.lists(sizes, min_size=5, max_size=5))
def test_a_component_has_the_flops_of_the_counter(name: str, drawn: list[int]) -> None:
    holds(*COMPONENTS[name](*drawn))


@given(sizes, sizes, sizes, st.tuples(sizes, sizes))
def test_the_flops_of_a_warp_are_those_of_products(
    batch: int, side: int, channels: int, shape: tuple[int, int]
) -> None:
    """Theta times positions, and neighbours times weights; backward times a slope for x and one for y.

    torch's counter does not count sampling itself.
    """
    work, pixels = flops.warp(batch, side, channels, shape), batch * side**2
    theta = torch.empty(batch, *shape, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        coordinates = theta @ torch.empty(batch, shape[1], side**2, device="meta")
        torch.empty(pixels, 1, 4, device="meta") @ torch.empty(pixels, 4, channels, device="meta")
    with FlopCounterMode(display=False) as backward:
        coordinates.sum().backward()
        torch.empty(pixels, 2, 4, device="meta") @ torch.empty(pixels, 4, channels, device="meta")
    assert (work.forward, work.backward) == (forward.get_total_flops(), backward.get_total_flops())


@pytest.mark.parametrize("side", [32, 45, 64, 224])
@pytest.mark.parametrize("batch", [1, 3])
def test_stn_classifier_has_the_flops_of_the_counter_and_those_of_the_warp(batch: int, side: int) -> None:
    whole, warp = flops.stn_classifier(batch, side), flops.warp(batch, side)
    module = STNClassifier().to("meta")
    seen = Work(whole.forward - warp.forward, whole.backward - warp.backward, 0, 0, whole.parameters)
    holds(seen, module, image(batch, side))


@pytest.mark.parametrize(("preset", "side"), [("b16", 32), ("b16", 224), ("lite", 32)])
def test_a_vision_transformer_has_the_flops_of_the_counter_when_it_computes_all_tokens(preset: str, side: int) -> None:
    module = VisionTransformer.from_preset(preset, image_size=side, device="meta")
    patch, dim, mlp_dim, depth = {"b16": (16, 768, 3072, 12), "lite": (4, 256, 512, 7)}[preset]
    work = flops.vision_transformer(2, side, patch=patch, dim=dim, mlp_dim=mlp_dim, depth=depth)
    # when it returns weights, the last block computes all tokens
    whole = counted(lambda x: module(x, return_weights=True)[0], image(2, side))
    assert (work.forward, work.backward) == whole
    assert work.parameters == sum(parameter.numel() for parameter in module.parameters())
    forward, backward = counted(module, image(2, side))
    assert forward < work.forward
    assert backward < work.backward


def test_published_size_of_vit_b16() -> None:
    """As on torchvision's page of vit_b_16: 17.56 billion multiply-adds per image, and this number of parameters."""
    work = flops.vision_transformer(1, 224, patch=16, dim=768, mlp_dim=3072, depth=12, classes=1000)
    assert work.forward / 2 == pytest.approx(17.56e9, rel=0.002)
    assert work.parameters == 86_567_656


def test_numbers_moved_by_a_linear_layer() -> None:
    """Input 2x3, weight 3x5, output 2x5."""
    work = flops.linear(2, 3, 5)
    assert work.moved == 6 + 15 + 10
    assert work.moved_back == (10 + 6 + 15) + (15 + 6)  # dy, x -> dW; W -> dx


def test_numbers_moved_by_a_convolution() -> None:
    """2 images, 3x5x5 to 7x4x4 with a kernel of 2x2: input 150, weight 84, output 224."""
    for input_gradient, back in ((True, (224 + 150 + 84) + (84 + 150)), (False, 224 + 150 + 84)):
        work = flops.convolution(2, 3, 7, 2, 5, 4, input_gradient=input_gradient)
        assert (work.moved, work.moved_back) == (150 + 84 + 224, back)


def test_numbers_moved_by_attention_between_its_layers() -> None:
    """Each of q, k, v, y and their gradients has 2 x 3 x 5 numbers; weights never reach memory."""
    layers = flops.linear(6, 5, 15) + flops.linear(6, 5, 5)
    work = flops.attention(2, 3, 5)
    assert work.moved - layers.moved == 4 * 30, "q, k, v and y"
    assert work.moved_back - layers.moved_back == 8 * 30, "q, k, v, y, dy and dq, dk, dv"


def test_numbers_moved_by_a_warp() -> None:
    """2 images of 3x4x4, 96 numbers, and two thetas of 6."""
    work = flops.warp(2, 4)
    assert work.moved == 96 + 96 + 12, "image, output and theta"
    assert work.moved_back == 96 + 96 + 12 + 12, "gradient of the output and image, theta and its gradient"


def test_numbers_moved_by_patch_embeddings() -> None:
    """2 images of 3x4x4 in 4 patches of width 5, with five positions and a class token."""
    work, layer = flops.patch_embeddings(2, 4, 2, 5), flops.convolution(2, 3, 5, 2, 4, 2, input_gradient=False)
    assert (work.moved - layer.moved, work.moved_back - layer.moved_back) == (30, 30)


def test_backward_includes_forward_and_a_step_adds_the_optimizer() -> None:
    work = Work(1, 2, 10, 20, 100)
    assert [work.flops(mode) for mode in CALLS] == [1, 3, 3]
    assert [work.bytes(mode, 2) for mode in CALLS] == [20, 60, 60 + 4 * 7 * 100]
    assert work * 3 + work == work * 4


@pytest.mark.parametrize(("moved", "itemsize", "seconds"), [(1, 2, 10), (40, 2, 20), (40, 4, 40)])
def test_work_takes_the_longer_of_computing_and_moving(moved: int, itemsize: int, seconds: float) -> None:
    assert Work(1000, 0, moved, 0).least_seconds("forward", itemsize, flops=100, bandwidth=4) == seconds
