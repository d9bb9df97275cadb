"""The networks of the recipes: their size, what they are trained for, and what a report shows of their transformer."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import flops
from scripts.data.poses import POSES, posed
from scripts.models.upright import UprightCNN
from scripts.run.theta import theta_angles
from scripts.subjects.stn import subject
from scripts.subjects.subject import Subject
from scripts.train_stn import RECIPES, Options
from scripts.training.evaluation import Evaluation
from tests.support.runs import PLAN
from tests.support.strategies import generator

pytestmark = pytest.mark.numerics

COUNT = 40
TEST = torch.randint(0, 256, (COUNT, 3, 32, 32), generator=generator(0), dtype=torch.uint8)
LABELS = torch.zeros(COUNT, dtype=torch.long)


def built(pose: str, recipe: str = "tuned", **options: Any) -> Subject:
    """The subject of a recipe for ten classes."""
    chosen = RECIPES[recipe]
    plan = replace(
        PLAN, image_size=(32, 32), pose=pose, poses=POSES[pose], network=chosen.network,
        label_smoothing=chosen.label_smoothing, optimizer=chosen.optimizer, classes=tuple("0123456789"),
    )  # fmt: skip
    return subject(Options(**options), plan, torch.device("cpu"))


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("pose", POSES)
def test_small_has_at_most_50_000_parameters_transformer_included(pose: str) -> None:
    with_it, alone = (size(built(pose, "small", no_transformer=plain).network) for plain in (False, True))
    assert alone < with_it <= 50_000


@pytest.mark.parametrize("pose", POSES)
def test_strong_trains_with_at_most_0_6_pflop_transformer_included(pose: str) -> None:
    """On CIFAR-10: six FLOPs for each multiply-add of a forward pass, two in it and four in the backward pass."""
    with FlopCounterMode(display=False) as counter:
        built(pose, "strong").network.eval()(torch.zeros(1, 3, 32, 32))
    multiply_adds = (counter.get_total_flops() + flops.warp(1, 32).forward) / 2
    assert multiply_adds > 20e6
    assert 6 * multiply_adds * 50_000 * RECIPES["strong"].epochs <= 0.6e15


def smoothed(logits: list[float], label: int, smoothing: float) -> float:
    """Cross entropy with a target that gives every class its part of the smoothing."""
    total = math.log(sum(map(math.exp, logits)))
    share = [smoothing / len(logits)] * len(logits)
    share[label] += 1 - smoothing
    return sum(part * (total - logit) for part, logit in zip(share, logits, strict=True))


def pose_loss(scores: list[float], pose: list[float]) -> float:
    """Cross entropy of the nearest of eight angles, and what is left of the pose, if predicted, by smooth L1."""
    step = math.pi / 4
    nearest = round(pose[0] / step)
    loss = smoothed(scores[:8], nearest % 8, 0)
    if len(scores) > 8:
        found = [step / 2 * math.tanh(scores[8 + nearest % 8]), *scores[16:]]
        errors = [abs(a - b) for a, b in zip(found, [pose[0] - nearest * step, *pose[1:]], strict=True)]
        loss += 4 * sum(5 * error**2 if error < 0.1 else error - 0.05 for error in errors)
    return loss


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("recipe", ["small", "strong"])
def test_where_poses_are_predicted_the_loss_is_that_of_smoothed_labels_and_of_the_poses(recipe: str, pose: str) -> None:
    torch.manual_seed(0)
    assert built(pose, recipe, no_transformer=True).objective is None
    made = built(pose, recipe)
    network = made.network.eval()
    nn.init.normal_(network.localization.head.weight)
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6)
    poses = POSES[pose].draws(6, generator(3))
    with torch.no_grad():
        loss, logits = made.objective(network, images, labels, poses)
        scores = network(images, return_theta=True)[2][:, 0].tolist()
        assert torch.equal(logits, network(images))
    expected = sum(smoothed(row, label, 0.1) for label, row in enumerate(logits.tolist()))
    expected += sum(map(pose_loss, scores, poses.tolist()))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert isinstance(network, UprightCNN)


def found(made: Subject, pose: str, theta: Tensor) -> dict[str, Any]:
    """Findings of a network that predicts these thetas of the test images, and the identity of all others."""
    shown = torch.arange(0, COUNT, 5)
    images = posed(TEST, POSES[pose].fixed(COUNT))
    return made.findings(images[shown], TEST[shown], Evaluation(torch.zeros(COUNT, 2), LABELS, theta))


def turned(angles: Tensor) -> Tensor:
    c, s, zero = angles.cos(), angles.sin(), torch.zeros(len(angles))
    return torch.stack([c, -s, zero, s, c, zero], 1).view(-1, 2, 3)


@pytest.mark.parametrize(("pose", "shown"), [("none", "c8"), ("c8", "c8"), ("rts", "rts")])
def test_a_few_upright_images_are_shown_in_eight_known_poses(pose: str, shown: str) -> None:
    findings = found(built(pose), pose, turned(torch.zeros(COUNT)))
    images, poses = findings["posed_images"], findings["poses"]
    assert torch.equal(poses, POSES[shown].examples())
    assert len(images) == 4
    assert all((image == TEST).flatten(1).all(1).any() for image in images)
    for image, inputs, outputs, theta in zip(
        images, findings["posed_inputs"], findings["posed_outputs"], findings["posed_theta"], strict=True
    ):
        assert torch.equal(inputs, posed(image.expand(8, -1, -1, -1), poses))
        assert torch.equal(outputs, inputs), "the network starts as the identity"
        torch.testing.assert_close(theta, torch.eye(2, 3).expand(8, -1, -1))


@pytest.mark.parametrize("pose", ("c8", "rts"))
def test_angles_taken_out_stand_beside_those_put_in(pose: str) -> None:
    """Of a transformer that leaves every image turned by 20 degrees."""
    poses = POSES[pose].fixed(COUNT)
    theta = turned(poses[:, 0] + 0.35)
    findings = found(built(pose), pose, theta)
    torch.testing.assert_close(findings["angles"], torch.stack([poses[:, 0].double(), theta_angles(theta, 32, 32)]))
    assert findings["numbers"]["pose_correlation"] == 1
    assert found(built(pose), pose, turned(torch.full((COUNT,), 0.35)))["numbers"]["pose_correlation"] == 0


def test_upright_images_have_no_angles_put_in() -> None:
    findings = found(built("none"), "none", turned(torch.zeros(COUNT)))
    assert "angles" not in findings
    assert findings["numbers"] == {"theta_spread": 0}


def test_without_a_transformer_nothing_is_found() -> None:
    made = built("c8", no_transformer=True)
    assert made.findings(TEST[:8], TEST[:8], Evaluation(torch.zeros(COUNT, 2), LABELS, None)) == {}
