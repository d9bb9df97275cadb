"""Grad-CAM against an independent computation, on feature maps and on tokens, and its maps at the right pixels."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from components import PatchEmbeddings
from components.transforms import Affine, affine_grid, centres
from scripts.models.upright import UprightCNN
from scripts.models.vit import VisionTransformer
from scripts.run.grad_cam import carried_back, centres_of_cells, grad_cam, over_image
from tests.support.strategies import batch_sizes, generator, grid_sides, random_images, random_theta, seeds

pytestmark = pytest.mark.numerics


def cnn(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(6)
    )  # fmt: skip


def by_finite_differences(behind: nn.Module, features: Tensor, chosen: Tensor) -> Tensor:
    """Every channel's share: how the logit changes when the whole channel does, divided by its places."""
    step, total = 1e-5, torch.zeros(len(features), *features.shape[2:], dtype=torch.float64)
    for channel in range(features.shape[1]):
        moved = torch.zeros_like(features)
        moved[:, channel] = step
        change = (behind(features + moved) - behind(features - moved)).gather(1, chosen[:, None]) / (2 * step)
        weight = change / features[0, 0].numel()
        total += weight[:, :, None] * features[:, channel]
    return total.clamp(min=0)


@given(seeds)
def test_on_a_feature_map_it_is_that_of_finite_differences(seed: int) -> None:
    x = random_images(seed, 2, 3, 7, 8)
    net = cnn(seed).double()
    logits = net(x)
    for chosen, given_ in ((logits.argmax(1), None), (torch.tensor([3, 1]), torch.tensor([3, 1]))):
        expected = by_finite_differences(net[3:], net[:3](x), chosen)
        torch.testing.assert_close(grad_cam(net, net[2], x, given_), expected, atol=1e-7, rtol=1e-5)


def test_what_follows_the_layer_may_change_its_output_in_place() -> None:
    net, x = cnn(0).double(), random_images(0, 2, 3, 7, 8)
    net[3] = nn.ReLU()
    expected = grad_cam(net, net[2], x)
    net[3] = nn.ReLU(inplace=True)
    assert torch.equal(grad_cam(net, net[2], x), expected)


@given(seeds)
def test_on_tokens_it_is_that_of_finite_differences_and_the_class_token_has_no_place(seed: int) -> None:
    torch.manual_seed(seed)
    net = VisionTransformer(
        5, image_size=(8, 12), patch_size=4, dim=6, depth=3, num_heads=2, mlp_dim=7, dtype=torch.float64
    ).eval()
    nn.init.normal_(net.head.weight)
    x, chosen = random_images(seed, 2, 3, 8, 12), torch.tensor([0, 4])
    seen = []
    handle = net.encoder.blocks[1].register_forward_hook(lambda *call: seen.append(call[2]))
    net(x)
    handle.remove()
    tokens, last = seen[0], net.encoder.blocks[2]

    def behind(features: Tensor) -> Tensor:
        patches = features.flatten(2).mT  # (B, N, D)
        whole = torch.cat([tokens[:, :1], patches], 1)
        return net.head(net.encoder.norm(last(whole))[:, 0])

    expected = by_finite_differences(behind, tokens[:, 1:].mT.unflatten(2, (2, 3)), chosen)
    found = grad_cam(net, net.encoder.blocks[1], x, chosen, grid=(2, 3))
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)


@given(seeds, grid_sides, grid_sides)
def test_the_patch_that_speaks_for_the_class_is_bright_at_its_row_and_column(
    seed: int, rows: int, columns: int
) -> None:
    """The logit is a sum over all tokens; the class token, which is in it too, is nowhere on the map."""
    embeddings = PatchEmbeddings((4 * rows, 4 * columns), 4, dim=6, dtype=torch.float64).eval()
    with torch.no_grad():
        for name, parameter in embeddings.named_parameters():
            parameter.fill_({"cls_token": 1000.0}.get(name, float(parameter.ndim == 4)))  # ones in the kernel alone
    row, column = (int(torch.randint(size, (), generator=generator(seed))) for size in (rows, columns))
    image = torch.zeros(1, 3, 4 * rows, 4 * columns, dtype=torch.float64)
    image[:, 1, 4 * row + 1, 4 * column + 3] = 1

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = embeddings

        def forward(self, x: Tensor) -> Tensor:
            return self.tokens(x).sum((1, 2)).unsqueeze(1)

    expected = torch.zeros(1, rows, columns, dtype=torch.float64)
    expected[0, row, column] = 6  # the width of a token: every slope is one
    torch.testing.assert_close(grad_cam(Sum(), embeddings, image, grid=(rows, columns)), expected)


@given(seeds, st.booleans())
def test_of_features_that_a_transformer_shares_the_map_is_that_of_the_classifier(seed: int, shared: bool) -> None:
    """The classifier alone, on what the transformer shows it."""
    torch.manual_seed(seed)
    net = UprightCNN(5, stem=4, widths=(5, 6), localization=(4, (5, 6)), shared=shared, predicts="affine", steps=2)
    nn.init.normal_(net.localization.head.weight, std=0.1)
    net = net.eval()
    x, chosen = random_images(seed, 2, 3, 17, 23, dtype=torch.float32), torch.tensor([4, 1])
    with torch.no_grad():
        seen = net.transformer.warp(x, net(x, return_theta=True)[1])
    expected = grad_cam(nn.Sequential(net.features, net.head), net.features.stages[0], seen, chosen)
    assume(expected.any())  # a layer may speak against both classes everywhere
    torch.testing.assert_close(grad_cam(net, net.features.stages[0], x, chosen), expected)


kernels, strides, paddings = st.integers(1, 4), st.integers(1, 3), st.integers(0, 1)


@given(st.lists(st.tuples(kernels, strides, paddings, st.booleans()), min_size=1, max_size=3))
def test_a_cell_lies_in_the_middle_of_the_pixels_that_it_sees(sizes: list[tuple[int, int, int, bool]]) -> None:
    """All weights are one, so that a cell is above zero where it sees the one pixel that is."""
    layers = [
        nn.MaxPool2d(kernel, stride, padding if kernel > 1 else 0)
        if pooled
        else nn.Conv2d(1, 1, kernel, stride, padding, bias=False, dtype=torch.float64)
        for kernel, stride, padding, pooled in sizes
    ]
    for layer in layers:
        for weight in layer.parameters():
            nn.init.ones_(weight)
    side = 400
    pixels = torch.eye(side, dtype=torch.float64).view(side, 1, 1, side).expand(-1, -1, 60, -1)
    with torch.no_grad():
        seen = nn.Sequential(*layers)(pixels)[:, 0]  # (pixels, h, w)
    first, step = centres_of_cells(layers)
    cell = seen.shape[2] // 2  # far from the border
    found = seen[:, seen.shape[1] // 2, cell].nonzero().squeeze(1)
    assert (found.min() + found.max()).item() / 2 == first + step * cell


@given(seeds, batch_sizes, grid_sides, grid_sides, st.integers(1, 20), st.integers(1, 20))
def test_a_map_is_interpolated_between_its_cells_and_level_beyond_them(seed, batch, rows, columns, height, width):
    """A plane stays a plane; rows and columns have slopes of their own."""
    first, step, *slopes = (3 * torch.rand(5, generator=generator(seed), dtype=torch.float64) + 0.1).tolist()

    def plane(down: Tensor, right: Tensor) -> Tensor:
        return (slopes[0] * down[:, None] + slopes[1] * right + slopes[2]).repeat(batch, 1, 1)

    def inside(pixels: int, cells: int) -> Tensor:
        return torch.arange(pixels, dtype=torch.float64).clamp(first, first + step * (cells - 1))

    maps = plane(*(first + step * torch.arange(cells, dtype=torch.float64) for cells in (rows, columns)))
    expected = plane(inside(height, rows), inside(width, columns))
    torch.testing.assert_close(over_image(maps, (height, width), first, step), expected)


@given(seeds, batch_sizes)
def test_a_map_of_what_is_shown_is_carried_back_to_where_it_was_sampled(seed: int, batch: int) -> None:
    """A plane over the input: sampled as theta says, and carried back, it is the same wherever it was sampled."""
    height, width = 9, 14
    theta = random_theta(seed, batch, spread=0.2)
    slopes = random_images(seed, 3)

    def plane(places: Tensor) -> Tensor:
        return places @ slopes[:2] + slopes[2]

    carried = carried_back(plane(affine_grid(theta, height, width)), theta)
    pixels = torch.stack(torch.meshgrid(
        *(centres(side, theta, False) for side in (height, width)), indexing="ij"), -1).flip(-1)  # fmt: skip
    shown = affine_grid(Affine().inverse(theta), height, width)  # where each pixel is shown
    limit = 1 - 1 / torch.tensor([width, height], dtype=torch.float64)
    inside = (shown.abs() < limit).all(-1)
    outside = (shown.abs() > 2 - limit).any(-1)
    torch.testing.assert_close(carried[inside], plane(pixels).expand(batch, -1, -1)[inside])
    assert not carried[outside].any()
    assert inside.any()


def test_what_a_flattened_image_shows_is_carried_nowhere() -> None:
    theta = torch.stack([torch.eye(2, 3), torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [1, 0, 0]])])
    carried = carried_back(torch.ones(3, 4, 5), theta)
    torch.testing.assert_close(carried, torch.ones(3, 4, 5) * torch.tensor([1.0, 0, 0]).view(3, 1, 1))


def test_it_works_in_inference_and_leaves_no_gradient_and_no_hook() -> None:
    net, x = cnn(0), torch.rand(2, 3, 7, 8)
    net(x)
    with torch.no_grad():
        assert grad_cam(net, net[2], x).shape == (2, 3, 4)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net[2]._forward_hooks


@pytest.mark.parametrize(("layer", "grid", "message"), [
    (4, None, r"output \(2, 60\) of the layer must be \(B, C, h, w\)"),
    (2, (3, 4), r"output \(2, 5, 3, 4\) of the layer must be \(B, 13, D\)"),
    (None, None, r"layer \(Linear\) must be called by the network"),
])  # fmt: skip
def test_another_layer_is_refused_by_name(layer: int | None, grid: tuple[int, int] | None, message: str) -> None:
    net, x = cnn(0), torch.rand(2, 3, 7, 8)
    with pytest.raises(ValueError, match=f"^grad_cam: {message}$"):
        grad_cam(net, nn.Linear(1, 1) if layer is None else net[layer], x, grid=grid)
