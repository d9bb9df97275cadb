"""Localizations: the pose that scores stand for, and the loss of scores given the pose."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from components.transforms import Affine, Similarity
from scripts.models.localizations import Localization, PoseClassification, PoseRegression
from tests.support.strategies import random_images, seeds

angles = st.sampled_from((1, 4, 8, 24))
finenesses = st.booleans()


def pose_net(count: int, fine: bool) -> PoseClassification:
    return PoseClassification(nn.Flatten(), 12, angles=count, fine=fine)


def scores_of(net: PoseClassification, poses: Tensor) -> Tensor:
    """Scores that are certain of these poses, whose angles differ by less than half a step from one of the net's."""
    step = 2 * math.pi / net.angles
    nearest = (poses[:, 0] / step).round()
    logits = 50 * nn.functional.one_hot(nearest.long() % net.angles, net.angles).float()
    if not net.fine:
        return logits
    share = ((poses[:, 0] - nearest * step) / (step / 2)).atanh().unsqueeze(1)
    return torch.cat([logits, share.expand(-1, net.angles), poses[:, 1:]], 1)


def random_poses(seed: int, net: PoseClassification) -> Tensor:
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
    found = net.params(scores)
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
    net = PoseClassification(nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), 6)
    nn.init.normal_(net.head.weight)
    scores = net.scores(net.features(torch.rand(9, 3, 2, 2)))
    net.loss(scores, torch.cat([torch.linspace(-3, 3, 9).unsqueeze(1), torch.rand(9, 3)], 1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    assert net.head.bias.grad is not None
    assert net.head.bias.grad.all(), "each logit and each offset"


@given(seeds)
def test_a_regression_that_says_the_pose_has_no_loss_and_any_other_has(seed: int) -> None:
    net = PoseRegression(nn.Flatten(), 12)
    poses = random_images(seed, 5, 4, dtype=torch.float32) / 2
    scores = torch.cat([poses[:, :1].cos(), poses[:, :1].sin(), poses[:, 1:]], 1)
    assert net.loss(scores, poses).abs().max() < 1e-10
    torch.testing.assert_close(net.params(3 * scores)[:, 0], poses[:, 0])
    assert (net.loss(scores + 0.05, poses) > 1e-3).all()


@pytest.mark.parametrize("transform", [Affine(), Similarity()], ids=str)
def test_the_prior_keeps_upright_images_at_the_identity_and_leaves_others_alone(transform) -> None:
    net = Localization(nn.Flatten(), 12, transform, prior=2.0)
    poses = torch.tensor([[0.0, 0, 0, 0], [0.1, 0, 0, 0]])
    identity = net.scores(net.features(torch.rand(2, 3, 2, 2)))
    assert torch.equal(net.loss(identity, poses), torch.zeros(2))
    torch.testing.assert_close(net.loss(identity + 0.5, poses), torch.tensor([2 * 0.25 * transform.num_params, 0]))


@pytest.mark.parametrize("net", [PoseRegression(nn.Flatten(), 12), Localization(nn.Flatten(), 12, Affine())])
def test_others_start_at_the_identity_too_and_compute_in_float32_under_autocast(net: Localization) -> None:
    x = torch.rand(3, 3, 2, 2)
    assert torch.equal(net(x), torch.tensor(net.transform.identity).expand(3, -1))
    nn.init.normal_(net.head.weight)
    expected = net.scores(net.features(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net.scores(net.features(x)), expected)
