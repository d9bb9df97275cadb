"""The networks of the recipes: their size, what they are trained for, and what a report shows of their transformer."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import flops
from components.transforms import Similarity
from scripts.data.poses import POSES, posed
from scripts.data.transforms import Normalise
from scripts.models.upright import UprightCNN
from scripts.recipes.stn_arms import ARMS, ArmOptions
from scripts.run.findings import evenly_spaced
from scripts.run.grad_cam import carried_back, centres_of_cells, grad_cam, over_image
from scripts.run.theta import collapse_warning, theta_angles, theta_statistics
from scripts.subjects.stn import CAM_SHOWN, classifier_findings, classifier_layer, subject, unavoidable
from scripts.subjects.subject import Subject
from scripts.train_stn import RECIPES, Options
from scripts.training.evaluation import Evaluation
from scripts.training.optimizers import Muon
from tests.support.runs import PLAN
from tests.support.strategies import generator, random_pixels

pytestmark = pytest.mark.numerics

COUNT = 40
TEST = torch.randint(0, 256, (COUNT, 3, 32, 32), generator=generator(0), dtype=torch.uint8)
LABELS = torch.zeros(COUNT, dtype=torch.long)


def built(pose: str, recipe: str = "tuned", placed: bool = False, side: int = 32, **options: Any) -> Subject:
    """The subject of a recipe for ten classes."""
    chosen = RECIPES[recipe]
    plan = replace(
        PLAN, image_size=(side, side), pose=pose, poses=POSES[pose], network=chosen.network,
        label_smoothing=chosen.label_smoothing, optimizer=chosen.optimizer, classes=tuple("0123456789"),
        placed=placed,
    )  # fmt: skip
    return subject(Options(**options), plan, torch.device("cpu"))


@pytest.mark.parametrize(
    ("pose", "recipe", "options", "said"),
    [
        ("none", "small", {}, True),
        ("none", "strong", {}, True),
        ("rts", "small", {}, False),
        ("none", "small", {"no_transformer": True}, False),
        ("none", "tuned", {}, False),
    ],
)
def test_a_transformer_that_is_told_that_all_images_are_upright_has_nothing_to_do_and_the_log_says_so(
    pose: str, recipe: str, options: dict[str, bool], said: bool
) -> None:
    assert any("--pose rts" in remark for remark in built(pose, recipe, **options).remarks) == said


@pytest.mark.parametrize("recipe", ["small", "strong", "zoom"])
def test_where_objects_have_places_of_their_own_the_localization_predicts_scale_and_shift_too(recipe: str) -> None:
    found = built("none", recipe, placed=True).network.localization
    scores = torch.randn(8, found.head.out_features, generator=generator(0))
    assert (found.params(scores)[:, 1:].std(0) > 0).all(), "log of the scale, x and y"


@pytest.mark.parametrize(("placed", "scale"), [(False, 1.0), (True, 2.0)])
def test_a_whole_image_that_is_shown_smaller_is_not_shrunk_but_a_whole_scene_is(placed: bool, scale: float) -> None:
    """Both are of 64x64 pixels, and the classifier of zoom sees 32x32."""
    describe = built("none", "zoom", placed, side=64).describe
    assert describe is not None
    statistics, said = describe(torch.eye(2, 3).repeat(4, 1, 1))
    assert statistics["theta_scale_mean"] == pytest.approx(scale)
    assert ("of their size" in said) == placed


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("pose", POSES)
def test_small_has_at_most_50_000_parameters_transformer_included(pose: str) -> None:
    with_it, alone = (size(built(pose, "small", no_transformer=plain).network) for plain in (False, True))
    assert alone < with_it <= 50_000


def test_zoom_and_the_network_without_transformer_that_it_is_compared_with_are_equally_large() -> None:
    """In parameters; of multiply-adds, the transformer's crop of 32 pixels takes it less than a canvas of 60."""
    built_for_it, alone = (built("none", "zoom", no_transformer=plain).network for plain in (False, True))
    assert size(alone) == pytest.approx(size(built_for_it), rel=0.01)
    counted = []
    for network in (built_for_it, alone):
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, 3, 60, 60))
        counted.append(counter.get_total_flops())
    assert counted[0] < counted[1]


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


def test_the_localization_may_have_a_rate_of_its_own() -> None:
    for arm, factor in (("similarity", 1.0), ("similarity-slow", 0.1)):
        recipe = {name: getattr(ARMS[arm], name) for name in ("network", "localization_lr")}
        plan = replace(PLAN, lr=0.5, image_size=(32, 32), optimizer="muon", **recipe)
        made = subject(ArmOptions(recipe=arm), plan, torch.device("cpu"))
        rates = {
            id(each): group["lr"] for one in made.optimizers for group in one.param_groups for each in group["params"]
        }
        localization = {*map(id, made.network.transformer.parameters())}
        assert rates.keys() == {*map(id, made.network.parameters())}
        for name, parameter in made.network.named_parameters():
            whole = 0.5 if parameter.ndim == 4 and "stem" not in name else 0.1
            expected = whole * (factor if id(parameter) in localization else 1)
            assert rates[id(parameter)] == pytest.approx(expected), name


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
    return made.findings(images[shown], TEST[shown], LABELS[shown], Evaluation(torch.zeros(COUNT, 2), LABELS, theta))


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


def test_without_a_transformer_only_the_classifier_has_findings() -> None:
    made = built("c8", no_transformer=True)
    findings = made.findings(TEST[:8], TEST[:8], LABELS[:8], Evaluation(torch.zeros(COUNT, 2), LABELS, None))
    assert findings.keys() == {"cam_images", "cam_labels", "cam_predictions", "cam_maps"}


def trained(network: nn.Module) -> nn.Module:
    """With heads that are not zero, and batch norms that have seen images."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()(torch.randn(20, 3, 32, 40))
    return network.eval()


@pytest.mark.parametrize(("recipe", "options"), [
    ("tuned", {}), ("tuned", {"no_transformer": True}), ("small", {}), ("small", {"no_transformer": True}),
    ("angle-shared", {}), ("angle-two-steps", {}), ("affine", {}), ("plain", {}), ("zoom", {}),
])  # fmt: skip
def test_grad_cam_is_of_what_the_classifier_sees_carried_back_to_the_image(
    recipe: str, options: dict[str, Any]
) -> None:
    """The map of the classifier alone, with the transformer's outputs as its images."""
    torch.manual_seed(0)
    chosen = (RECIPES | ARMS)[recipe]
    plan = replace(PLAN, image_size=(32, 40), network=chosen.network, optimizer="muon", classes=tuple("0123456789"))
    options = Options(**options) if recipe in RECIPES else ArmOptions(**options)
    network = trained(subject(options, plan, torch.device("cpu")).network)
    images, normalise = random_pixels(3, 4, 32, 40), Normalise((0.4, 0.5, 0.6), (0.3, 0.25, 0.2))
    found = classifier_findings(network, images, torch.arange(4), normalise)
    inputs = normalise(images)
    with torch.no_grad():
        assert torch.equal(found["cam_predictions"], network(inputs).argmax(1))
    layer, before = classifier_layer(network, 32)
    maps = grad_cam(network, layer, inputs)
    assert min(maps.shape[1:]) >= 5
    over = over_image(maps, (32, 32) if recipe == "zoom" else (32, 40), *centres_of_cells(before))
    assert over.any()
    if network.transformer is None:
        torch.testing.assert_close(found["cam_maps"], over)
        return
    with torch.no_grad():
        seen, theta = network.transformer(inputs, return_theta=True)
    torch.testing.assert_close(found["cam_seen_maps"], over)
    assert torch.equal(found["cam_seen"], normalise.undo(seen))
    assert (theta - torch.eye(2, 3)).abs().max() > 0.05
    torch.testing.assert_close(found["cam_theta"], theta)
    torch.testing.assert_close(found["cam_maps"], carried_back(over, theta, (32, 40)))
    alone = subject(
        Options(no_transformer=True),
        replace(plan, network={name: value for name, value in plan.network.items() if name != "alone"}),
        torch.device("cpu"),
    ).network  # the same classifier without transformer
    weights = {name: value for name, value in network.state_dict().items() if "transformer" not in name}
    if isinstance(network, UprightCNN):  # a skip connection adds to the logits what this layer does not change
        weights["head.weight"] = weights["head.weight"][:, : alone.head.in_features]
    alone.load_state_dict(weights)
    expected = grad_cam(alone, classifier_layer(alone, 32)[0], seen, found["cam_predictions"])
    torch.testing.assert_close(maps, expected)


def test_grad_cam_shows_a_few_test_images_with_their_labels() -> None:
    made = built("none")
    test = evenly_spaced(COUNT)
    labels = torch.arange(COUNT) % 10
    theta = turned(torch.zeros(COUNT))
    findings = made.findings(TEST[test], TEST[test], labels[test], Evaluation(torch.zeros(COUNT, 2), labels, theta))
    shown = test[evenly_spaced(len(test), CAM_SHOWN)]
    assert torch.equal(findings["cam_images"], TEST[shown])
    assert torch.equal(findings["cam_labels"], labels[shown])


@pytest.mark.parametrize(("side", "cells"), [(16, 7), (32, 7), (40, 9), (48, 5), (224, 27)])
def test_the_map_is_of_the_deepest_stage_with_five_cells_a_side(side: int, cells: int) -> None:
    network = built("none", "strong").network
    layer, _ = classifier_layer(network, side)
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    assert seen[-1].shape[2:] == (cells, cells)


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (16, 64), (40, 9)])
@pytest.mark.parametrize("name", POSES)
def test_who_undoes_the_poses_of_a_run_has_not_collapsed(name: str, size: tuple[int, int]) -> None:
    """Corners of images that are not square lie outside wherever they are turned."""
    height, width = size
    undone = Similarity().theta(POSES[name].fixed(500), width / height)
    columns, allowed = theta_statistics(undone, height, width), unavoidable(POSES[name], height, width)
    assert collapse_warning(columns, allowed) == ""
    away = undone + torch.tensor([[0, 0, 4.0], [0, 0, 0]])
    assert collapse_warning(theta_statistics(away, height, width), allowed), "a shift by twice the width"


def test_who_shows_the_object_that_it_is_told_has_not_collapsed() -> None:
    """At the size of the whole scene, which magnifies it."""
    theta = Similarity().theta(torch.tensor([[0.0, math.log(0.4), 0.3, 0], [0.0, math.log(0.5), -0.3, 0]]), 1)
    columns = theta_statistics(theta, 60, 60)
    assert collapse_warning(columns), "else nobody told it to"
    assert collapse_warning(columns, None) == ""
    assert collapse_warning(columns | {"theta_scale_mean": math.nan}, None)
    for placed, warned in ((True, False), (False, True)):
        made = built("none", "small", placed=placed, side=60)
        assert made.describe is not None
        assert ("shows the images at" in made.describe(theta)[1]) == warned


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_muon_computes_in_the_type_of_the_plan_on_every_machine(precision: str) -> None:
    """Else processes on two kinds of CPU would drift apart, and a run that goes on elsewhere would be another."""
    plan = replace(PLAN, precision=precision, image_size=(32, 32), network=RECIPES["small"].network, optimizer="muon")
    first, _ = subject(Options(), plan, torch.device("cpu")).optimizers
    assert isinstance(first, Muon)
    assert first.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
