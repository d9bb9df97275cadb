"""The spatial transformer network, its optimizers, and its theta for log and report."""

from typing import Any

import torch
from torch import Tensor

from scripts.data.transforms import Normalise
from scripts.models.stn import SMALLEST, STNClassifier
from scripts.recipes.stn import Options
from scripts.run.theta import theta_remark, theta_statistics
from scripts.subjects.subject import Subject
from scripts.system.errors import InputError
from scripts.system.machine import this_machine
from scripts.training.evaluation import Evaluation
from scripts.training.optimizers import Muon
from scripts.training.plan import Plan
from scripts.training.untraced import SGD, AdamW


def sgd(network: STNClassifier, lr: float) -> list[torch.optim.Optimizer]:
    """SGD with momentum 0.9."""
    return [SGD(network.parameters(), lr=lr, momentum=0.9, fused=True)]


def muon(network: STNClassifier, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for conv1, conv2 and fc1; AdamW at 1/5 of its rate for the rest, at 1/50 for the localization."""
    kernels = [network.conv1.weight, network.conv2.weight, network.fc1.weight]
    localization: list[Tensor] = [] if network.transformer is None else list(network.transformer.parameters())
    elsewhere = {id(parameter) for parameter in [*kernels, *localization]}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in elsewhere]
    groups = [{"params": rest, "lr": lr / 5}, {"params": localization, "lr": lr / 50}]
    adamw = AdamW([group for group in groups if group["params"]], weight_decay=0.01, fused=True)
    dtype = this_machine(network.conv1.weight.device).dtype
    return [Muon(kernels, lr=lr, weight_decay=0.01, dtype=dtype), adamw]


OPTIMIZERS = {"sgd": sgd, "muon": muon}  # by their names in recipes


def subject(options: Options, plan: Plan, device: torch.device) -> Subject:
    """Build the network on its device.

    Raises:
        InputError: If the images are too small.
    """
    transform = not options.no_transformer
    height, width = plan.image_size
    if min(height, width) < SMALLEST:
        raise InputError(f"--data ({options.data}) must hold images of at least {SMALLEST}x{SMALLEST} pixels")
    network = STNClassifier(len(plan.classes), transform=transform, **plan.network)
    network.to(device).to(memory_format=torch.channels_last)

    def describe(theta: Tensor) -> tuple[dict[str, float], str]:
        columns = theta_statistics(theta, height, width)
        return columns, theta_remark(columns, height, width)

    def findings(images: Tensor, upright: Tensor, result: Evaluation) -> dict[str, Any]:
        if result.extra is None:
            return {}
        spread = theta_statistics(result.extra, height, width)["theta_spread"]
        return {**warped(network, images, plan.normalise), "numbers": {"theta_spread": round(spread, 2)}}

    return Subject(
        network=network,
        optimizers=OPTIMIZERS[plan.optimizer](network, plan.lr),
        predict=(lambda images: network(images, return_theta=True)) if transform else None,
        describe=describe if transform else None,
        findings=findings,
    )


def warped(network: STNClassifier, images: Tensor, normalise: Normalise) -> dict[str, Any]:
    """Return images before and after the transformer, and its theta."""
    assert network.transformer is not None
    with torch.inference_mode():
        outputs, theta = network.transformer(normalise(images), return_theta=True)
    return {
        "transformer_inputs": images.cpu(),
        "transformer_outputs": normalise.undo(outputs).cpu(),
        "theta": theta.float().cpu(),
    }
