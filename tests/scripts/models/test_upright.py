"""The network that turns images upright: its pose, the loss of a pose, and its sizes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from components.transforms import Similarity
from scripts.models.cnn import Features
from scripts.models.upright import PoseNet, UprightCNN
from tests.support.strategies import random_images, seeds

angles = st.sampled_from((1, 4, 8, 24))
finenesses = st.booleans()


def pose_net(count: int, fine: bool) -> PoseNet:
    return PoseNet(nn.Flatten(), 12, angles=count, fine=fine)


def scores_of(net: PoseNet, poses: Tensor) -> Tensor:
    """Scores that are certain of these poses, whose angles differ by less than half a step from one of the net's."""
    step = 2 * math.pi / net.angles
    nearest = (poses[:, 0] / step).round()
    logits = 50 * nn.functional.one_hot(nearest.long() % net.angles, net.angles).float()
    if not net.fine:
        return logits
    share = ((poses[:, 0] - nearest * step) / (step / 2)).atanh().unsqueeze(1)
    return torch.cat([logits, share.expand(-1, net.angles), poses[:, 1:]], 1)


def random_poses(seed: int, net: PoseNet) -> Tensor:
    draw = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed)) - 0.5
    step = 2 * math.pi / net.angles
    angle = step * (torch.arange(5) - 2) + (0.9 * step * draw[:, 0] if net.fine else 0)
    return torch.cat([angle.unsqueeze(1), draw[:, 1:] if net.fine else torch.zeros(5, 3)], 1)


@given(seeds, angles, finenesses)
def test_scores_that_are_certain_of_a_pose_give_it_and_have_no_loss(seed: int, count: int, fine: bool) -> None:
    net = pose_net(count, fine)
    poses = random_poses(seed, net)
    scores = scores_of(net, poses)
    assert net.loss(scores, poses).abs().max() < 1e-6
    found = net.pose(scores)
    turns = (found[:, 0] - poses[:, 0]) / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 1:], poses[:, 1:])


@given(seeds, angles)
def test_scores_that_are_certain_of_another_pose_have_a_loss(seed: int, count: int) -> None:
    net = pose_net(count, fine=True)
    poses = random_poses(seed, net)
    for changed in torch.eye(4):
        others = poses + 0.02 * changed
        assert (net.loss(scores_of(net, others), poses) > 1e-4).all()
    if count > 1:
        others = poses + torch.tensor([2 * math.pi / count, 0, 0, 0])
        assert (net.loss(scores_of(net, others), poses) > 10).all()


@given(angles, finenesses)
def test_it_starts_at_the_identity(count: int, fine: bool) -> None:
    x = torch.rand(3, 3, 2, 2)
    assert torch.equal(pose_net(count, fine)(x), torch.zeros(3, 4))


def test_gradients_of_the_loss_reach_the_features_and_all_scores() -> None:
    net = PoseNet(nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), 6)
    nn.init.normal_(net.head.weight)
    scores = net.scores(torch.rand(9, 3, 2, 2))
    net.loss(scores, torch.cat([torch.linspace(-3, 3, 9).unsqueeze(1), torch.rand(9, 3)], 1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    assert net.head.bias.grad is not None
    assert net.head.bias.grad.all(), "each logit and each offset"


def network(**options: object) -> UprightCNN:
    return UprightCNN(7, 3, stem=4, widths=(5, 6), localization=(3, (4, 4)), **options).eval()


@given(seeds)
def test_the_classifier_sees_what_the_transformer_makes_of_the_pose(seed: int) -> None:
    torch.manual_seed(seed)
    net = network()
    nn.init.normal_(net.localization.head.weight)
    x = random_images(seed, 2, 3, 12, 16, dtype=torch.float32)
    logits, theta, scores = net(x, return_theta=True)
    torch.testing.assert_close(theta, Similarity().theta(net.localization.pose(scores), 16 / 12))
    torch.testing.assert_close(theta, net.transformer(x, return_theta=True)[1])
    torch.testing.assert_close(logits, net.head(net.features(net.transformer(x))))
    assert torch.equal(net(x), logits)
    assert scores.shape == (2, 19)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), logits)


def test_without_localization_it_is_the_classifier_alone() -> None:
    net = UprightCNN(7, stem=4, widths=(5, 6)).eval()
    x = torch.rand(2, 3, 9, 9)
    assert torch.equal(net(x), net.head(net.features(x)))
    with pytest.raises(ValueError, match=r"^UprightCNN: return_theta \(True\) needs a localization$"):
        net(x, return_theta=True)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 3))
def test_features_are_a_vector_for_every_image_of_the_smallest_side_or_more(widths, more_h: int, more_w: int) -> None:
    features = Features(2, 3, widths).eval()
    side = features.smallest
    assert features(torch.rand(2, 2, side + more_h, side + more_w)).shape == (2, widths[-1])
    with pytest.raises(RuntimeError):
        features(torch.rand(2, 2, side - 1, side + more_w))
