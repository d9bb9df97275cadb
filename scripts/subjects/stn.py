"""The spatial transformer network, its optimizers, and its theta for log and report."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.transforms import Similarity
from scripts.data.poses import POSES, UPRIGHT, Poses, posed
from scripts.data.transforms import Normalise
from scripts.models.localizations import PoseClassification, PoseRegression
from scripts.models.stn import STNClassifier
from scripts.models.upright import UprightCNN
from scripts.recipes.stn import Options
from scripts.recipes.stn_arms import ArmOptions
from scripts.run.findings import evenly_spaced, grad_cam_findings
from scripts.run.grad_cam import carried_back, centres_of_cells
from scripts.run.theta import circular_correlation, theta_angles, theta_remark, theta_statistics
from scripts.subjects.subject import Subject
from scripts.system.errors import InputError
from scripts.training.evaluation import Evaluation
from scripts.training.optimizers import Muon, muon_type
from scripts.training.plan import Plan, Recipe
from scripts.training.step import Objective
from scripts.training.untraced import SGD, AdamW

ANGLES = 8  # that are told apart where poses are no multiples of an angle
POSED_SHOWN = 4  # images that are shown in eight poses
CAM_SHOWN = 8  # images with a map of Grad-CAM
LEAST_CELLS = 5  # a side of that map: the last stage has 3 for images of 32 pixels, too few to see anything
Network = STNClassifier | UprightCNN
NOTHING_TO_DO = (
    "NOTICE: this run poses no images, so the transformer is told that each is upright, and learns to change "
    "nothing; --pose rts or c8 gives it something to do"
)


def groups(network: Network, parameters: Iterable[Tensor], lr: float, share: float) -> list[dict[str, Any]]:
    """One group of parameters, or two where the localization learns at another rate, a share of the others'."""
    if share == 1 or network.transformer is None:
        return [{"params": list(parameters), "lr": lr}]
    localization = {*map(id, network.transformer.parameters())}
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in parameters:
        parts[id(parameter) in localization].append(parameter)
    return [{"params": parts[0], "lr": lr}, {"params": parts[1], "lr": lr * share}]


def sgd(network: Network, plan: Recipe) -> list[torch.optim.Optimizer]:
    """SGD with momentum 0.9."""
    learned = groups(network, network.parameters(), plan.lr, plan.localization_lr)
    return [SGD(learned, lr=plan.lr, momentum=0.9, fused=True)]


def muon(network: Network, plan: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for hidden layers; AdamW at 1/5 of its rate for the rest (1/50 in the localization of the tutorial)."""
    if isinstance(network, UprightCNN):
        hidden: list[Tensor] = [
            weight for name, weight in network.named_parameters() if weight.ndim == 4 and "stem" not in name
        ]
        slow: list[Tensor] = []
    else:
        hidden = [network.conv1.weight, network.conv2.weight, network.fc1.weight]
        slow = [] if network.transformer is None else list(network.transformer.parameters())
    elsewhere = {id(parameter) for parameter in [*hidden, *slow]}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in elsewhere]
    lr, share = plan.lr, plan.localization_lr
    others = groups(network, rest, lr / 5, share) + groups(network, slow, lr / 50, share)
    adamw = AdamW([group for group in others if group["params"]], weight_decay=0.01, fused=True)
    dtype = muon_type(plan.precision)
    return [Muon(groups(network, hidden, lr, share), lr=lr, weight_decay=0.01, dtype=dtype), adamw]


OPTIMIZERS = {"sgd": sgd, "muon": muon}  # by their names in recipes


def subject(options: Options | ArmOptions, plan: Plan, device: torch.device) -> Subject:
    """Build the network on its device.

    Raises:
        InputError: If the images are too small.
    """
    network = build(plan.network, len(plan.classes), plan.poses, plan.placed, not options.no_transformer)
    height, width = plan.image_size
    if min(height, width) < network.smallest:
        wanted = f"images of at least {network.smallest}x{network.smallest} pixels"
        raise InputError(f"--data ({options.data}) must hold {wanted}")
    network.to(device).to(memory_format=torch.channels_last)
    transform = network.transformer is not None
    told = told_poses(network)
    # at the size of a whole scene, an object that is found is magnified
    magnified = told and plan.placed and shown_size(network, plan.image_size) == plan.image_size
    allowed = None if magnified else unavoidable(plan.poses, height, width)
    upright = told and plan.poses == UPRIGHT and not plan.placed

    def statistics(theta: Tensor) -> dict[str, float]:
        # an upright image that is shown whole has a scale of 1, a crop of a scene that is not magnified too
        return theta_statistics(theta, height, width, shown_size(network, plan.image_size) if plan.placed else None)

    def describe(theta: Tensor) -> tuple[dict[str, float], str]:
        columns = statistics(theta)
        return columns, theta_remark(columns, height, width, allowed)

    def findings(images: Tensor, upright: Tensor, labels: Tensor, result: Evaluation) -> dict[str, Any]:
        chosen = evenly_spaced(len(images), CAM_SHOWN).to(images.device)
        found = classifier_findings(network, images[chosen], labels[chosen], plan.normalise)
        if result.extra is None:
            return found
        found |= warped(network, images, plan.normalise)
        if not plan.placed:
            found |= seen_in_poses(network, upright, plan)
        found["outside_allowed"] = allowed
        spread = statistics(result.extra).get("theta_spread")
        found["numbers"] = {} if spread is None else {"theta_spread": round(spread, 2)}
        if plan.poses != UPRIGHT:
            put_in, taken_out = plan.poses.fixed(len(result.labels))[:, 0], theta_angles(result.extra, height, width)
            found["angles"] = torch.stack([put_in.double(), taken_out])
            found["numbers"]["pose_correlation"] = round(circular_correlation(*found["angles"]), 3)
        return found

    return Subject(
        network=network,
        optimizers=OPTIMIZERS[plan.optimizer](network, plan),
        objective=objective(network, plan),
        predict=(lambda images: network(images, return_theta=True)[:2]) if transform else None,
        describe=describe if transform else None,
        remarks=[NOTHING_TO_DO] if upright else [],
        tested_in=() if plan.placed else tuple(POSES),
        findings=findings,
    )


def unavoidable(poses: Poses, height: int, width: int) -> float:
    """Return the share of points outside the frame that undoing the poses of images of this size takes."""
    if poses == UPRIGHT:
        return 0.0
    undone = Similarity().theta(poses.fixed(1000), width / height)
    return theta_statistics(undone, height, width)["theta_outside"]


def build(options: Mapping[str, Any], classes: int, poses: Poses, placed: bool, transform: bool) -> Network:
    """Build the network of the tutorial, or a CNN that sees images upright, for the poses of a run.

    Args:
        options: Those of the recipe; ``alone`` is stem and widths of a CNN without transformer, as large as both.
        classes: How many there are.
        poses: What the localization of the CNN predicts.
        placed: Whether objects have places of their own, whose scale and shift it predicts too.
        transform: False leaves the transformer out.
    """
    if "dropout" in options:
        return STNClassifier(classes, transform=transform, **options)
    given: dict[str, Any] = {"angles": max(poses.turns, ANGLES), "fine": poses.fine or placed, **options}
    alone = given.pop("alone", (given["stem"], given["widths"]))
    if not transform:
        given["localization"] = None
        given["stem"], given["widths"] = alone
    return UprightCNN(classes, **given)


def told_poses(network: Network) -> bool:
    """Whether the localization is told the pose of every image, rather than trained by the classes alone."""
    return network.transformer is not None and isinstance(
        network.transformer.localization, PoseClassification | PoseRegression
    )


def objective(network: Network, plan: Plan) -> Objective | None:
    """What the network is trained for where it predicts poses: these and the classes."""
    if isinstance(network, STNClassifier) or network.transformer is None:
        return None
    height, width = plan.image_size

    def classes_and_poses(model: nn.Module, images: Tensor, labels: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        logits, _, scores = model(images, return_theta=True)
        loss = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=plan.label_smoothing)
        return loss + network.pose_loss(scores, poses, width / height).sum(), logits

    return classes_and_poses


def seen_in_poses(network: Network, upright: Tensor, plan: Plan) -> dict[str, Any]:
    """Return a few images, and each in eight poses of the run (C8 where nothing is posed), as in ``warped``."""
    images = upright[evenly_spaced(len(upright), POSED_SHOWN).to(upright.device)]
    poses = (POSES["c8"] if plan.poses == UPRIGHT else plan.poses).examples()
    inputs = posed(images.repeat_interleave(len(poses), 0), poses.repeat(len(images), 1).to(images.device))
    found = warped(network, inputs, plan.normalise)
    names = {"posed_inputs": "transformer_inputs", "posed_outputs": "transformer_outputs", "posed_theta": "theta"}
    each = {name: found[other].unflatten(0, (len(images), len(poses))) for name, other in names.items()}
    return {"posed_images": images.cpu(), "poses": poses, **each}


def warped(network: Network, images: Tensor, normalise: Normalise) -> dict[str, Any]:
    """Return images before and after the transformer, and its theta."""
    assert network.transformer is not None
    with torch.inference_mode():
        outputs, theta = network.transformer(normalise(images), return_theta=True)
    return {
        "transformer_inputs": images.cpu(),
        "transformer_outputs": normalise.undo(outputs).cpu(),
        "theta": theta.float().cpu(),
        "padding_mode": network.transformer.padding_mode,
    }


def classifier_findings(network: Network, images: Tensor, labels: Tensor, normalise: Normalise) -> dict[str, Any]:
    """Return images, and where a layer of the classifier speaks for the class.

    Behind a transformer that is a map of what the classifier sees; ``cam_maps`` has it carried back to the images.
    """
    size = (images.shape[-2], images.shape[-1])
    shown = shown_size(network, size)
    layer, before = classifier_layer(network, min(shown))
    first, step = centres_of_cells(before)
    found = grad_cam_findings(network, layer, images, normalise(images), labels, first=first, step=step, size=shown)
    if network.transformer is not None:
        seen = warped(network, images, normalise)
        found |= {"cam_seen": seen["transformer_outputs"], "cam_theta": seen["theta"]}
        found |= {"cam_seen_maps": found["cam_maps"], "cam_maps": carried_back(found["cam_maps"], seen["theta"], size)}
    return found


def shown_size(network: Network, size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of what the classifier sees of images of a size."""
    if network.transformer is None or network.transformer.output_size is None:
        return size
    height, width = network.transformer.output_size
    return height, width


def classifier_layer(network: Network, side: int) -> tuple[nn.Module, list[nn.Conv2d | nn.MaxPool2d]]:
    """Return the last layer of the classifier with a feature map to look at, and all that it sees an image through.

    Args:
        network: The network.
        side: The shorter side of the images that the classifier sees.
    """
    if isinstance(network, STNClassifier):
        return network.conv2, [network.conv1, nn.MaxPool2d(2), network.conv2]
    stages = network.features.stages
    fine = [count for count in range(1, len(stages) + 1) if (side - 1) // 2**count >= LEAST_CELLS]
    stages = stages[: max(fine, default=1)]
    inside = [layer for layer in stages.modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    return stages[-1], [network.features.stem, *inside]
