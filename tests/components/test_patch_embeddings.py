"""Laws of patch embeddings: one token per patch, the class token first, positions for any grid."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from components import Encoder, PatchEmbeddings
from components.patch_embeddings import INTERPOLATIONS, resize_pos_embed
from tests import reference
from tests.contract.cases import randomised
from tests.support.layers import WAYS
from tests.support.strategies import batch_sizes, channels, generator, grid_sides, patch_sizes, random_images, seeds

pytestmark = pytest.mark.numerics

each_interpolation = pytest.mark.parametrize("interpolation", INTERPOLATIONS)
grids = st.tuples(grid_sides, grid_sides)


def build(seed: int, grid: tuple[int, int], patch: int, *, dim: int = 5, **options: object) -> PatchEmbeddings:
    """In float64, with a class token and a bias that are not zero."""
    size = (grid[0] * patch, grid[1] * patch)
    return randomised(PatchEmbeddings(size, patch, dim=dim, dtype=torch.float64, **options), seed)


@given(seeds, grids, patch_sizes, st.data())
def test_changing_one_patch_changes_one_token(seed: int, grid: tuple[int, int], patch: int, data) -> None:
    """Patches are read row by row: swapping height and width would change another token."""
    embed, x = build(seed, grid, patch), random_images(seed, 2, 3, grid[0] * patch, grid[1] * patch)
    i, j = data.draw(st.integers(0, grid[0] - 1)), data.draw(st.integers(0, grid[1] - 1))
    changed = x.clone()
    changed[1, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] += 1
    moved = (embed(changed) != embed(x)).any(-1)
    assert moved.nonzero().tolist() == [[1, 1 + i * grid[1] + j]]


@given(seeds, batch_sizes, channels, grids, grids, patch_sizes)
def test_any_image_of_whole_patches_equals_the_reference(seed, batch, in_channels, learned, grid, patch) -> None:
    """Only one square size works in torchvision (#5025); lucidrains takes pos_embedding[:length], wrong in 2D."""
    embed = build(seed, learned, patch, in_channels=in_channels)
    x = random_images(seed, batch, in_channels, grid[0] * patch, grid[1] * patch)
    tokens = embed(x)
    assert tokens.shape == (batch, 1 + grid[0] * grid[1], 5)
    torch.testing.assert_close(tokens, reference.patch_embeddings(embed, x))


@given(seeds, batch_sizes, channels, grids, patch_sizes, st.sampled_from((1, 2, 5)))
def test_the_projection_equals_its_convolution(seed, batch, in_channels, grid, patch, dim) -> None:
    """So ``proj`` can be called alone, and its stride and kernel size are what they say."""
    embed = build(seed, grid, patch, dim=dim, in_channels=in_channels)
    x = random_images(seed, batch, in_channels, grid[0] * patch, grid[1] * patch)
    patches = embed(x)[:, 1:] - embed.pos_embed[:, 1:]
    torch.testing.assert_close(patches, embed.proj(x).flatten(2).mT)
    pixels = F.unfold(x, patch, stride=patch).mT
    torch.testing.assert_close(patches, pixels @ embed.proj.weight.flatten(1).T + embed.proj.bias)


@given(seeds, batch_sizes, grids, grids)
def test_the_class_token_comes_first_and_depends_on_no_pixel(seed: int, batch: int, learned, grid) -> None:
    embed, x = build(seed, learned, 2), random_images(seed, batch, 3, 2 * grid[0], 2 * grid[1])
    expected = embed.cls_token[0, 0] + embed.pos_embed[0, 0]
    torch.testing.assert_close(embed(x)[:, 0], expected.expand(batch, -1))


@given(seeds, grids)
def test_permuted_patches_give_permuted_tokens_until_positions_are_added(seed: int, grid: tuple[int, int]) -> None:
    """Also through an encoder: a wrong reshape of the grid or the heads would mix tokens."""
    embed, x = build(seed, grid, 2), random_images(seed, 2, 3, 2 * grid[0], 2 * grid[1])
    count = grid[0] * grid[1]
    order = torch.randperm(count, generator=generator(seed))
    patches = F.unfold(x, 2, stride=2)
    shuffled = F.fold(patches[..., order], x.shape[2:], 2, stride=2)
    encoder = Encoder(5, 1, num_heads=1, mlp_dim=5, dtype=torch.float64)
    tokens_order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + order])
    if not torch.equal(order, torch.arange(count)):
        assert not torch.allclose(embed(shuffled), embed(x)[:, tokens_order])
        assert not torch.allclose(encoder(embed(shuffled)), encoder(embed(x))[:, tokens_order])
    nn.init.zeros_(embed.pos_embed)
    torch.testing.assert_close(embed(shuffled), embed(x)[:, tokens_order])
    torch.testing.assert_close(encoder(embed(shuffled)), encoder(embed(x))[:, tokens_order])


@pytest.mark.parametrize("old", ((16, 16), (37, 37), (5, 9)))
def test_resized_positions_have_the_exact_length_for_every_grid(old: tuple[int, int]) -> None:
    """A rounded scale factor lost a row: dinov2 #378, at 3 sizes from 224/14 and 6 from 518/14; transformers #32410."""
    pos_embed = torch.zeros(1, 1 + old[0] * old[1], 1)
    for h, w in itertools.product(range(1, 41), repeat=2):
        assert resize_pos_embed(pos_embed, old, (h, w)).shape == (1, 1 + h * w, 1)


@each_interpolation
@given(seeds, grids, grids, st.integers(0, 3))
def test_each_interpolation_equals_the_reference(interpolation, seed, old, new, prefix: int) -> None:
    """For old and new grids of any shape (timm #2317); prefix tokens do not change."""
    pos_embed = torch.randn(1, prefix + old[0] * old[1], 3, generator=generator(seed), dtype=torch.float64)
    resized = resize_pos_embed(pos_embed, old, new, prefix=prefix, interpolation=interpolation)
    assert torch.equal(resized[:, :prefix], pos_embed[:, :prefix])
    expected = reference.resize(pos_embed[0, prefix:].reshape(*old, 3), new, interpolation)
    torch.testing.assert_close(resized[0, prefix:].reshape(*new, 3), expected)


@each_interpolation
@pytest.mark.parametrize("dim", (1, 3))
def test_no_shape_of_a_small_grid_is_special(dim: int, interpolation: str) -> None:
    """One column among them."""
    for old in itertools.product((1, 2, 3), repeat=2):
        pos_embed = random_images(0, 1, 1 + old[0] * old[1], dim)
        for new in itertools.product((1, 2, 3, 5), repeat=2):
            resized = resize_pos_embed(pos_embed, old, new, interpolation=interpolation)
            expected = reference.resize(pos_embed[0, 1:].reshape(*old, dim), new, interpolation)
            torch.testing.assert_close(resized[0, 1:].reshape(*new, dim), expected, msg=f"{old} -> {new}")


@given(seeds, grids, grids)
def test_bilinear_corners_equals_the_zoom_of_scipy(seed: int, old, new) -> None:
    """Google and jeonsworld use ``zoom(order=1)``, which aligns the corner cells; torch by default does not."""
    pos_embed = torch.randn(1, 1 + old[0] * old[1], 3, generator=generator(seed), dtype=torch.float64)
    zoomed = ndimage.zoom(pos_embed[0, 1:].reshape(*old, 3).numpy(), (new[0] / old[0], new[1] / old[1], 1), order=1)
    resized = resize_pos_embed(pos_embed, old, new, interpolation="bilinear-corners")
    torch.testing.assert_close(resized[0, 1:].reshape(*new, 3), torch.from_numpy(zoomed))


@pytest.mark.parametrize("interpolation", [name for name in INTERPOLATIONS if name != "bicubic-antialias"])
def test_every_interpolation_differs_from_the_default(interpolation: str) -> None:
    pos_embed = random_images(0, 1, 1 + 35, 3)
    other = resize_pos_embed(pos_embed, (5, 7), (4, 3), interpolation=interpolation)
    assert (resize_pos_embed(pos_embed, (5, 7), (4, 3)) - other).abs().max() > 0.01


@each_interpolation
@given(seeds, grids)
def test_the_same_grid_changes_nothing(interpolation: str, seed: int, grid: tuple[int, int]) -> None:
    pos_embed = torch.randn(1, 1 + grid[0] * grid[1], 3, generator=generator(seed))
    assert resize_pos_embed(pos_embed, grid, grid, interpolation=interpolation) is pos_embed


def test_sizes_may_be_numbers_of_numpy() -> None:
    pos_embed = torch.randn(1, 1 + 12, 1)
    found = resize_pos_embed(pos_embed, (4, 3), (np.int64(6), np.int64(1)))
    assert torch.equal(found, resize_pos_embed(pos_embed, (4, 3), (6, 1)))


def test_a_grid_of_the_same_length_is_another_grid() -> None:
    """Comparing lengths is not enough: timm does, and returns the positions of 8x2 unchanged for 4x4."""
    pos_embed = random_images(0, 1, 17, 3)
    resized = resize_pos_embed(pos_embed, (8, 2), (4, 4))
    assert resized.shape == pos_embed.shape
    assert not torch.allclose(resized[:, 1:], pos_embed[:, 1:])
    embed, x = build(0, (8, 2), 2), random_images(0, 1, 3, 8, 8)
    torch.testing.assert_close(embed(x), reference.patch_embeddings(embed, x))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 196, 8), {}, r"pos_embed \(1, 196, 8\) must be \(1, 1 \+ 28 \* 7, D\)"),
        ((1, 197, 8), {"prefix": 0}, r"pos_embed \(1, 197, 8\) must be \(1, 0 \+ 28 \* 7, D\)"),
        ((197, 8), {}, r"pos_embed \(197, 8\) must be \(1, 1 \+ 28 \* 7, D\)"),
        ((1, 197, 8), {"interpolation": "nearest"}, r"interpolation \('nearest'\) must be one of \('bicubic-anti.*\)"),
    ],
)
def test_positions_that_do_not_fit_their_grid_are_refused(shape, options: dict, message: str) -> None:
    """196 positions are a grid without a class token, not a class token with 195 patches: google #317."""
    with pytest.raises(ValueError, match=f"^resize_pos_embed: {message}$"):
        resize_pos_embed(torch.zeros(shape), (28, 7), (7, 7), **options)


@each_interpolation
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_half_precision_positions_are_resampled_in_float32(dtype: torch.dtype, interpolation: str) -> None:
    pos_embed = random_images(0, 1, 1 + 35, 3, dtype=torch.float32).to(dtype)
    resized = resize_pos_embed(pos_embed, (5, 7), (4, 3), interpolation=interpolation)
    expected = resize_pos_embed(pos_embed.float(), (5, 7), (4, 3), interpolation=interpolation)
    assert torch.equal(resized, expected.to(dtype))


@each_interpolation
def test_the_module_uses_its_interpolation(interpolation: str) -> None:
    embed, x = build(0, (5, 7), 2, interpolation=interpolation), random_images(0, 1, 3, 8, 6)
    torch.testing.assert_close(embed(x), reference.patch_embeddings(embed, x))


def test_patches_are_projected_by_a_matrix_product_which_is_faster() -> None:
    with torch.autograd.profiler.profile() as profile, torch.no_grad():
        PatchEmbeddings(8, 4, dim=6)(torch.zeros(2, 3, 8, 8))
    names = {event.name for event in profile.function_events}
    assert "aten::linear" in names
    assert "aten::conv2d" not in names


def test_one_number_is_a_square() -> None:
    assert PatchEmbeddings(32, 16, dim=3).grid == PatchEmbeddings((32, 32), 16, dim=3).grid == (2, 2)
    assert PatchEmbeddings((32, 48), 16, dim=3).grid == (2, 3)


def test_dropout_acts_on_class_token_patches_and_positions() -> None:
    torch.manual_seed(0)
    embed, x = build(0, (4, 4), 2, dropout=0.2), random_images(0, 64, 3, 8, 8)
    ratio = embed(x) / embed.eval()(x)
    kept = ratio != 0
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / 0.8))
    for part in (kept, kept[:, :1]):
        assert abs(part.double().mean() - 0.8) < 5 * math.sqrt(0.2 * 0.8 / part.numel())


@pytest.mark.parametrize(("patch", "in_channels"), ((4, 3), (16, 3), (2, 1)))
def test_at_the_start_a_patch_keeps_the_scale_of_its_pixels(patch: int, in_channels: int) -> None:
    torch.manual_seed(0)
    embed = PatchEmbeddings(4 * patch, patch, dim=256, in_channels=in_channels)
    x = random_images(0, 60, in_channels, 4 * patch, 4 * patch, dtype=torch.float32)
    tokens = embed(x)
    assert tokens[:, 1:].std().item() == pytest.approx(1, rel=0.08)
    assert tokens[:, 0].std().item() == pytest.approx(0.02, rel=0.3), "the class token starts as its position"


def test_parameters_start_as_in_the_original_code() -> None:
    torch.manual_seed(0)
    embed, before = PatchEmbeddings(64, 8, dim=96), (torch.zeros(1), torch.zeros(1))
    for _ in ("constructor", "reset_parameters"):
        assert not embed.cls_token.any()
        assert not embed.proj.bias.any()
        unit = embed.proj.weight * math.sqrt(3 * 8 * 8)  # LeCun: variance 1 / (number of inputs)
        assert 0.98 * 2 < unit.abs().max() * 0.87962566 <= 2 + 1e-5, "truncated at two standard deviations"
        for values in (unit, embed.pos_embed / 0.02):
            assert abs(values.mean()) < 5 / math.sqrt(values.numel())
            assert abs(values.square().mean() - 1) < 5 * math.sqrt(2 / values.numel())
        assert not torch.equal(before[0], embed.proj.weight)
        assert not torch.equal(before[1], embed.pos_embed)
        before = embed.proj.weight.clone(), embed.pos_embed.clone()
        nn.init.ones_(embed.cls_token)
        nn.init.ones_(embed.proj.bias)
        embed.reset_parameters()


@pytest.mark.parametrize("example", ((4, 4), (3, 5)), ids=("learned", "other"))
def test_an_exported_graph_serves_every_image_size(example: tuple[int, int]) -> None:
    """Also if the size of the example needs no resizing; in dinov2 #216 the graph kept that size."""
    embed = build(0, (4, 4), 2)
    batch, h, w = torch.export.Dim("batch"), torch.export.Dim("h", min=2, max=64), torch.export.Dim("w", min=2, max=64)
    shapes = ({0: batch, 2: 2 * h, 3: 2 * w},)
    image = random_images(0, 2, 3, 2 * example[0], 2 * example[1])
    program = torch.export.export(embed, (image,), dynamic_shapes=shapes).module()
    for batch, h, w in ((1, 4, 4), (3, 2, 7), (2, 9, 3)):
        image = random_images(0, batch, 3, 2 * h, 2 * w)
        torch.testing.assert_close(program(image), embed(image))


@pytest.mark.parametrize("way", [None, "adapter", *WAYS])
def test_changes_to_the_projection_take_effect(way: str | None) -> None:
    """Then the layer itself is called, and not a product with its weight."""
    embed = PatchEmbeddings(8, 4, dim=6, dtype=torch.float64)
    x = torch.randn(2, 3, 8, 8, generator=generator(0), dtype=torch.float64)
    upstream = torch.randn(2, 4, 6, generator=generator(1), dtype=torch.float64)

    def run(patches: Callable[[Tensor], Tensor]) -> list[Tensor]:
        image = x.clone().requires_grad_()
        out = patches(image)
        return [out, *torch.autograd.grad(out, image, upstream)]

    def tokens(image: Tensor) -> Tensor:
        return (embed(image) - embed.pos_embed)[:, 1:]

    plain = run(tokens)
    if way == "adapter":
        embed.proj = nn.Sequential(embed.proj, nn.Conv2d(6, 6, 1, dtype=torch.float64))
    elif way is not None:
        WAYS[way](embed.proj)
    found = run(tokens)
    torch.testing.assert_close(found, run(lambda image: embed.proj(image).flatten(2).mT))
    assert (way is None) == all(torch.allclose(one, other) for one, other in zip(found, plain, strict=True))


@pytest.mark.parametrize("options", [
    {"kernel_size": 6, "stride": 4, "padding": 1},
    {"kernel_size": 4, "stride": 4, "padding": 2},
    {"kernel_size": 4, "stride": 2},
    {"kernel_size": 4, "stride": 4, "groups": 3},
    {"kernel_size": 4, "stride": 4, "dilation": 2},
    {"kernel_size": (8, 2), "stride": 4},
    {"kernel_size": (2, 8), "stride": 4, "padding": (0, 2)},
], ids=str)  # fmt: skip
def test_a_projection_with_other_options_is_the_one_that_is_used(options: dict) -> None:
    """Patches may overlap; another number of them has no positions."""
    embed, x = PatchEmbeddings(8, 4, dim=6), random_images(0, 2, 3, 8, 8, dtype=torch.float32)
    embed.proj = nn.Conv2d(3, 6, **options)
    patches = embed.proj(x).flatten(2).mT
    if patches.shape[1] == 4:
        torch.testing.assert_close(embed(x)[:, 1:], patches + embed.pos_embed[:, 1:])
    else:
        with pytest.raises(RuntimeError, match="size of tensor"):
            embed(x)


@pytest.mark.parametrize("listen", [
    nn.modules.module.register_module_forward_pre_hook,
    nn.modules.module.register_module_forward_hook,
    nn.modules.module.register_module_full_backward_pre_hook,
    nn.modules.module.register_module_full_backward_hook,
])  # fmt: skip
def test_whoever_listens_at_all_modules_hears_the_projection(listen) -> None:
    """So do tools that list operations by module."""
    embed, heard = PatchEmbeddings(8, 4, dim=6), []
    handle = listen(lambda layer, *_: heard.append(layer))
    try:
        embed(torch.randn(2, 3, 8, 8, requires_grad=True)).sum().backward()
    finally:
        handle.remove()
    assert heard.count(embed.proj) == 1
