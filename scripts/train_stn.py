"""Train the spatial transformer network of the PyTorch tutorial: images -> transformer -> small CNN -> ten classes.

    make train-stn                                  # CIFAR-10, 50 epochs, recipe "tuned"
    python -m scripts.train_stn --recipe tutorial   # the published run, to the letter

What to expect on CIFAR-10 stands in README.md, made from the run files in scripts/results/.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.command_line import option, parse, run
from scripts.data import Dataset
from scripts.errors import InputError
from scripts.experiment import Recipe, RunOptions, Subject, conduct
from scripts.machine import this_machine
from scripts.models import SMALLEST, STNClassifier
from scripts.optimizers import Muon
from scripts.schedules import constant, one_cycle
from scripts.theta import theta_remark, theta_statistics
from scripts.transforms import Augment, Normalise


@dataclass(frozen=True, kw_only=True)
class STNRecipe(Recipe):
    """How to train the spatial transformer network.

    Args:
        dropout: Probability in both dropout layers.
        optimizers: Makes them from the network and the learning rate.
    """

    dropout: float
    optimizers: Callable[[STNClassifier, float], list[torch.optim.Optimizer]]


def sgd(network: STNClassifier, lr: float) -> list[torch.optim.Optimizer]:
    """The published run's: one learning rate for everything."""
    return [torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, fused=True)]


def muon(network: STNClassifier, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the classifier's hidden kernels, AdamW for the rest, and a tenth of its pace for the localization."""
    kernels = [network.conv1.weight, network.conv2.weight, network.fc1.weight]
    localization: list[Tensor] = [] if network.transformer is None else list(network.transformer.parameters())
    elsewhere = {id(parameter) for parameter in [*kernels, *localization]}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in elsewhere]
    groups = [{"params": rest, "lr": lr / 5}, {"params": localization, "lr": lr / 50}]
    adamw = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01, fused=True)
    dtype = this_machine(network.conv1.weight.device).dtype
    return [Muon(kernels, lr=lr, weight_decay=0.01, dtype=dtype), adamw]


RECIPES = {
    "tutorial": STNRecipe(
        lr=0.01,
        batch_size=256,
        epochs=50,
        dropout=0.5,
        normalise=Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        augment=Augment(),
        schedule=constant,
        precision="float32",
        optimizers=sgd,
    ),
    "tuned": STNRecipe(
        lr=0.02,
        batch_size=128,
        epochs=50,
        dropout=0.0,
        augment=Augment(mirror=True, shift=2),
        schedule=one_cycle(warm_up=0.2),
        optimizers=muon,
    ),
}


@dataclass(frozen=True)
class Options(RunOptions):
    """Train a spatial transformer network and write a report."""

    recipe: str = option("tuned", "how to train; tutorial is the published run to the letter", choices=tuple(RECIPES))
    no_transformer: bool = option(False, "train the classifier alone, for comparison", type=bool)


def main(options: Options) -> None:
    """Data -> network -> loop -> run folder -> report."""
    conduct(options, RECIPES, subject)


def subject(options: Options, recipe: STNRecipe, dataset: Dataset, device: torch.device) -> Subject:
    """The network on its device, and what theta does in it.

    Raises:
        InputError: If the images are too small.
    """
    transform = not options.no_transformer
    height, width = dataset.train.images.shape[-2:]
    if min(height, width) < SMALLEST:
        raise InputError(f"--data ({options.data}) must hold images of at least {SMALLEST}x{SMALLEST} pixels")
    network = STNClassifier(len(dataset.classes), dropout=recipe.dropout, transform=transform)
    network.to(device).to(memory_format=torch.channels_last)

    def describe(theta: Tensor) -> tuple[dict[str, float], str]:
        columns = theta_statistics(theta, height, width)
        return columns, theta_remark(columns)

    return Subject(
        network=network,
        optimizers=recipe.optimizers(network, recipe.lr),
        size=(height, width),
        settings={"dropout": recipe.dropout, "optimizer": recipe.optimizers.__name__},
        predict=(lambda images: network(images, return_theta=True)) if transform else None,
        describe=describe if transform else None,
        findings=lambda images, normalise: warped(network, images, normalise) if transform else {},
    )


def warped(network: STNClassifier, images: Tensor, normalise: Normalise) -> dict[str, Any]:
    """Images before and after the transformer, and its theta."""
    assert network.transformer is not None
    with torch.inference_mode():
        outputs, theta = network.transformer(normalise(images), return_theta=True)
    return {
        "transformer_inputs": images.cpu(),
        "transformer_outputs": normalise.undo(outputs).cpu(),
        "theta": theta.float().cpu(),
    }


if __name__ == "__main__":
    run(lambda: main(parse(Options, "train_stn")), "train_stn")
