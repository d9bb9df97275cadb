"""Grad-CAM against an independent computation, on feature maps and on tokens."""

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from scripts.models.vit import VisionTransformer
from scripts.run.grad_cam import grad_cam
from tests.support.strategies import random_images, seeds

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
    (None, None, r"layer \(Linear\) must be called once; it is called 0 times"),
])  # fmt: skip
def test_another_layer_is_refused_by_name(layer: int | None, grid: tuple[int, int] | None, message: str) -> None:
    net, x = cnn(0), torch.rand(2, 3, 7, 8)
    with pytest.raises(ValueError, match=f"^grad_cam: {message}$"):
        grad_cam(net, nn.Linear(1, 1) if layer is None else net[layer], x, grid=grid)
