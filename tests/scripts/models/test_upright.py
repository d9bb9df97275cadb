"""The network that turns images upright."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from components.transforms import Similarity
from scripts.models.cnn import Features, places
from scripts.models.upright import UprightCNN


def network(**options: object) -> UprightCNN:
    torch.manual_seed(5)
    net = UprightCNN(7, 3, stem=4, widths=(5, 6), **{"localization": (3, (4, 4))} | options).eval()
    nn.init.normal_(net.localization.head.weight)
    return net


@pytest.mark.parametrize("options", [
    {}, {"fine": False}, {"angles": 24}, {"steps": 2}, {"steps": 3, "predicts": "pose"}, {"predicts": "similarity"},
    {"predicts": "affine", "steps": 2}, {"shared": True}, {"padding_mode": "mean"}, {"samples": 2},
    {"skip": True}, {"skip": True, "steps": 2}, {"skip": True, "shared": True},
    {"places": True}, {"places": True, "skip": True, "predicts": "pose", "output_size": 10, "steps": 2},
], ids=str)  # fmt: skip
def test_the_classifier_sees_what_the_transformer_makes_of_the_image(options: dict) -> None:
    net = network(**options)
    x = torch.rand(2, 3, 12, 16)
    logits, theta, scores = net(x, return_theta=True)
    warped, expected = net.transformer(x, return_theta=True)
    torch.testing.assert_close(theta, expected)
    described = net.localization.features(x)
    read = [net.features(warped), described] if "skip" in options else [net.features(warped)]
    torch.testing.assert_close(logits, net.head(torch.cat(read, 1)))
    assert torch.equal(net(x), logits)
    assert scores.shape == (2, options.get("steps", 1), net.localization.head.out_features)
    torch.testing.assert_close(scores[:, 0], net.localization.scores(described))
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), logits)


@pytest.mark.parametrize("options", [
    {}, {"steps": 2, "predicts": "pose"}, {"predicts": "similarity"}, {"predicts": "affine"}, {"shared": True},
    {"places": True, "skip": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_it_computes_in_the_type_of_its_parameters(options: dict, dtype: torch.dtype) -> None:
    net, x = network(**options), torch.rand(2, 3, 12, 16)
    nn.init.zeros_(net.localization.head.weight)  # another pose would be another image
    expected = net(x)
    found = net.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-4 if dtype == torch.float64 else 0.05, rtol=0)


@pytest.mark.parametrize("predicts", ["angle", "pose"])
def test_the_loss_of_a_later_step_is_that_of_the_pose_which_is_left(predicts: str) -> None:
    """On images of 3 by 2, where a shift and a turn do not commute."""
    net, aspect, similarity = network(predicts=predicts, steps=2), 1.5, Similarity()
    poses = torch.tensor([[0.3, 0.1, 0.2, -0.1], [-0.2, -0.3, 0.1, 0.2]])
    scores = torch.randn(2, 2, net.localization.head.out_features, generator=torch.Generator().manual_seed(1))
    first = similarity.theta(net.localization.params(scores[:, 0]), aspect)
    left = similarity.compose(similarity.inverse(first), similarity.theta(poses, aspect))
    expected = net.localization.loss(scores[:, 0], poses)
    expected = expected + net.localization.loss(scores[:, 1], similarity.params(left, aspect))
    torch.testing.assert_close(net.pose_loss(scores, poses, aspect), expected)


def test_a_pose_that_is_found_leaves_nothing_for_the_next_step() -> None:
    net, poses = network(predicts="pose", steps=2), torch.tensor([[0.3, 0.1, 0.2, -0.1]])
    right = torch.cat([poses[:, :1].cos(), poses[:, :1].sin(), poses[:, 1:]], 1)
    nothing = torch.tensor([[1.0, 0, 0, 0, 0]])
    assert net.pose_loss(torch.stack([right, nothing], 1), poses, 1.3) < 1e-10
    assert net.pose_loss(torch.stack([right, right], 1), poses, 1.3) > 0.1


@pytest.mark.parametrize(("changed", "named"), [
    ({"num_classes": 0}, "UprightCNN: num_classes (0)"), ({"in_channels": -1}, "UprightCNN: in_channels (-1)"),
    ({"stem": 0}, "Features: stem (0)"), ({"widths": (4, 0)}, "Features: widths (0)"),
])  # fmt: skip
def test_a_size_below_one_is_refused_by_name(changed: dict, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(named)} must be at least 1$"):
        UprightCNN(**{"stem": 4, "widths": (4, 6), **changed})


def test_what_is_predicted_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"^UprightCNN: predicts \('turn'\) must be angle, pose, similarity or affine$"
    ):
        UprightCNN(stem=2, widths=(2,), localization=(2, (2,)), predicts="turn")


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"skip": True}], ids=str)
def test_without_localization_it_is_the_classifier_alone(options: dict) -> None:
    net = UprightCNN(7, stem=4, widths=(5, 6), **options).eval()
    x = torch.rand(2, 3, 9, 9)
    assert torch.equal(net(x), net.head(net.features(x)))
    with pytest.raises(ValueError, match=r"^UprightCNN: return_theta \(True\) needs a localization$"):
        net(x, return_theta=True)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 3))
def test_features_are_a_vector_for_every_image_of_the_smallest_side_or_more(widths, more_h: int, more_w: int) -> None:
    """Also if a batch has one image alone: norms need more than one value."""
    features = Features(2, 3, widths)
    side = features.smallest
    assert features(torch.rand(1, 2, side + more_h, side + more_w)).shape == (1, widths[-1])
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        features(torch.rand(1, 2, side - 1, side - 1))


def test_the_place_of_a_channel_is_where_it_is_large() -> None:
    """Where nothing is larger than anything else it is the middle."""
    peaks = torch.zeros(2, 3, 4, 8)
    peaks[0, 0, 0, 7] = peaks[0, 1, 2, 3] = peaks[1, 2, 3, 0] = 100
    x, y = places(peaks).chunk(2, 1)
    torch.testing.assert_close(x, torch.tensor([[7 / 8, -1 / 8, 0], [0, 0, -7 / 8]]))
    torch.testing.assert_close(y, torch.tensor([[-3 / 4, 1 / 4, 0], [0, 0, 3 / 4]]))
    features = Features(3, 2, (4, 5), places=True).eval()
    image = torch.rand(2, 3, 24, 16)
    described = features(image)
    assert described.shape == (2, features.width) == (2, 15)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(features(image)[:, 5:], described[:, 5:], atol=0.02, rtol=0)
