"""Train the spatial transformer network of the PyTorch tutorial: images -> transformer -> small CNN -> ten classes.

    make train-stn                                  # CIFAR-10, 50 epochs, recipe "tuned"
    python -m scripts.train_stn --recipe tutorial   # the published run, to the letter

What to expect on CIFAR-10 stands in README.md, made from the run files in scripts/results/.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.batches import Augment, Normalise, channel_statistics
from scripts.command_line import option, parse, positive, run, share, whole
from scripts.data import Dataset, load
from scripts.devices import choose_device, fast_at_bfloat16
from scripts.errors import InputError
from scripts.findings import classification_findings, evenly_spaced
from scripts.models import SMALLEST, STNClassifier
from scripts.optimizers import KernelMuon
from scripts.report import write_report
from scripts.run_folder import RunFolder, environment
from scripts.theta import theta_remark, theta_statistics
from scripts.training import Evaluation, Trainer, constant, one_cycle


@dataclass(frozen=True)
class Recipe:
    """How to train, beside the data, the seed and the number of epochs.

    Args:
        lr: Highest learning rate of the classifier's kernels.
        dropout: Probability in both dropout layers.
        normalise: Fixed statistics; None for those of the training images.
        bfloat16: Whether to use bfloat16 autocast where the device is fast at it.
        optimizers: Makes them from the network and the learning rate.
    """

    lr: float
    batch_size: int
    dropout: float
    normalise: Normalise | None
    augment: Augment
    schedule: Callable[[float], float]
    bfloat16: bool
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
    return [KernelMuon(kernels, lr=lr, weight_decay=0.01), adamw]


RECIPES = {
    "tutorial": Recipe(
        lr=0.01,
        batch_size=256,
        dropout=0.5,
        normalise=Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        augment=Augment(),
        schedule=constant,
        bfloat16=False,
        optimizers=sgd,
    ),
    "tuned": Recipe(
        lr=0.02,
        batch_size=128,
        dropout=0.0,
        normalise=None,
        augment=Augment(mirror=True, shift=2),
        schedule=one_cycle(warm_up=0.2),
        bfloat16=True,
        optimizers=muon,
    ),
}


@dataclass(frozen=True)
class Options:
    """Train a spatial transformer network and write a report."""

    recipe: str = option("tuned", "how to train; tutorial is the published run to the letter", choices=tuple(RECIPES))
    data: str = option("auto", "auto, cifar10, digits, or a folder {train,test}/<class>/*.{png,jpg}")
    epochs: int = option(50, "passes over the training images", type=whole(1))
    seed: int = option(1, "for weights, order and augmentation", type=whole(0))
    batch_size: int | None = option(None, "images a step (default: the recipe's)", type=whole(1))
    lr: float | None = option(None, "highest learning rate (default: the recipe's)", type=positive)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: str = option(
        "auto", "of the forward pass; auto is the recipe's", choices=("auto", "float32", "bfloat16")
    )
    validation: float | None = option(
        None, "share of the training images held out to choose the best checkpoint (default: the test set chooses)",
        type=share,
    )  # fmt: skip
    no_transformer: bool = option(False, "train the classifier alone, for comparison", type=bool)
    limit_train: int | None = option(None, "use at most so many training images", type=whole(1))
    limit_test: int | None = option(None, "use at most so many test images", type=whole(1))
    out: str | None = option(None, "run folder, new or empty (default: runs/<data>-<recipe>-seed<seed>-<time>)")


def main(options: Options) -> None:
    """Data -> network -> loop -> run folder -> report."""
    started = time.perf_counter()
    if options.out:
        RunFolder.refuse_taken(Path(options.out))  # before anything is downloaded
    device = choose_device(options.device)
    dataset = load(options.data).limited(options.limit_train, options.limit_test).to(device)
    network, trainer = prepare(options, dataset, device)
    folder = trainer.folder

    rows = trainer.fit()
    last = shown = trainer.evaluate(dataset.test)
    best = max(row.get("test_accuracy", 0.0) for row in rows)
    if options.validation:  # then no row knows the test set, and the best checkpoint meets it here
        network.load_state_dict(torch.load(folder.path / "best.pt", weights_only=True)["model"])
        shown = trainer.evaluate(dataset.test)
        best = shown.accuracy
    summary = {
        "dataset": dataset.name,
        "recipe": options.recipe,
        "epochs": options.epochs,
        "seed": options.seed,
        "train_accuracy": round(rows[-1]["train_accuracy"], 2),
        "test_accuracy": round(last.accuracy, 2),
        "best_test_accuracy": round(best, 2),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": round(time.perf_counter() - started, 1),
        "images_per_second": round(len(rows) * len(trainer.train) / sum(row["train_seconds"] for row in rows)),
        "run_folder": str(folder.path),
    }
    folder.json("summary.json", summary)
    folder.checkpoint("findings.pt", findings(network, trainer.normalise, dataset, shown))
    folder.announce(dataset.notice)
    print(f"Report: {write_report(folder.path)}")
    print(json.dumps(summary))


def prepare(options: Options, dataset: Dataset, device: torch.device) -> tuple[STNClassifier, Trainer]:
    """Turn options and recipe into a network, and a trainer with a run folder that says what they came to.

    Raises:
        InputError: If the images are too small or too few for what is asked, or the run folder is taken.
    """
    recipe = RECIPES[options.recipe]
    if min(dataset.train.images.shape[-2:]) < SMALLEST:
        raise InputError(f"--data ({options.data}) must hold images of at least {SMALLEST}x{SMALLEST} pixels")
    train, held_out = dataset.train.divided(options.validation) if options.validation else (dataset.train, dataset.test)
    normalise = recipe.normalise or channel_statistics(train.images)
    augment = dataclasses.replace(recipe.augment, mirror=recipe.augment.mirror and dataset.mirrors_keep_class)
    bfloat16 = recipe.bfloat16 and fast_at_bfloat16(device)
    if options.precision != "auto":
        bfloat16 = options.precision == "bfloat16"
    lr, batch_size = options.lr or recipe.lr, options.batch_size or recipe.batch_size
    torch.manual_seed(options.seed)
    network = STNClassifier(len(dataset.classes), dropout=recipe.dropout, transform=not options.no_transformer)
    network.to(device).to(memory_format=torch.channels_last)

    resolved = {
        "lr": lr,
        "batch_size": batch_size,
        "dropout": recipe.dropout,
        "normalise": dataclasses.asdict(normalise),
        "augment": dataclasses.asdict(augment),
        "optimizer": recipe.optimizers.__name__,
        "precision": "bfloat16" if bfloat16 else "float32",
        "train_images": len(train),
        "test_images": len(dataset.test),
        "classes": list(dataset.classes),
    }
    folder = RunFolder.create(Path(options.out) if options.out else default_folder(options, dataset.name))
    folder.json("config.json", {"asked": dataclasses.asdict(options), "resolved": resolved})
    folder.json("environment.json", environment(device) | {"data": dataset.description, "notice": dataset.notice})
    folder.announce(dataset.notice)
    folder.log(f"{dataset.description}: {len(train)} images to train on, {len(dataset.test)} to test")
    return network, Trainer(
        model=network,
        predict=(lambda x: (network(x), None)) if options.no_transformer else (lambda x: network(x, return_theta=True)),
        describe=lambda theta: theta_statistics(theta, *train.images.shape[-2:]),
        remark=theta_remark,
        optimizers=recipe.optimizers(network, lr),
        schedule=recipe.schedule,
        train=train,
        held_out=held_out,
        held_out_name="validation" if options.validation else "test",
        normalise=normalise,
        augment=augment,
        batch_size=batch_size,
        epochs=options.epochs,
        bfloat16=bfloat16,
        seed=options.seed,
        folder=folder,
        about={"recipe": options.recipe, **resolved},
    )


def findings(network: STNClassifier, normalise: Normalise, dataset: Dataset, shown: Evaluation) -> dict[str, Any]:
    """What the report needs of the test set."""
    images = dataset.test.images
    found = classification_findings(images, shown.logits, shown.labels, dataset.classes)
    if network.transformer is not None:
        chosen = images[evenly_spaced(len(images)).to(images.device)]
        with torch.inference_mode():
            warped, theta = network.transformer(normalise(chosen), return_theta=True)
        found |= {
            "transformer_inputs": chosen.cpu(),
            "transformer_outputs": normalise.undo(warped).cpu(),
            "theta": theta.float().cpu(),
        }
    return found


def default_folder(options: Options, dataset: str) -> Path:
    """A name that no other run has."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{dataset.replace(':', '-')}-{options.recipe}-seed{options.seed}-{now}"


if __name__ == "__main__":
    run(lambda: main(parse(Options, "train_stn")), "train_stn")
