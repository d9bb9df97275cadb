"""What a report shows of the spatial transformer: images in known poses, and angles taken out beside those put in."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.data.poses import POSES, posed
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


def built(pose: str, **options: Any) -> Subject:
    plan = replace(PLAN, image_size=(32, 32), pose=pose, poses=POSES[pose], network=RECIPES["tuned"].network)
    return subject(Options(**options), plan, torch.device("cpu"))


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
