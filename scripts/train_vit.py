"""Train a Vision Transformer: images -> patches -> encoder -> class token -> ten classes.

    make train-vit                                             # CIFAR-10, 20 epochs, recipe "lite"
    python -m scripts.train_vit --recipe b16                   # ViT-B/16 at 32x32 from scratch
    python -m scripts.train_vit --recipe b16-finetune --weights ViT-B_16.npz

What to expect on CIFAR-10 stands in README.md, made from the run files in scripts/results/.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.attention_maps import attention_rollout, last_layer_maps
from scripts.checkpoints import load_weights
from scripts.command_line import option, parse, run
from scripts.data import Dataset
from scripts.errors import InputError
from scripts.experiment import Recipe, RunOptions, Subject, conduct
from scripts.findings import evenly_spaced
from scripts.machine import this_machine
from scripts.models import PRESETS, VisionTransformer, few_patches_warning
from scripts.optimizers import Muon
from scripts.schedules import cosine, one_cycle
from scripts.transforms import Augment, Normalise


@dataclass(frozen=True, kw_only=True)
class ViTRecipe(Recipe):
    """How to train a Vision Transformer.

    Args:
        preset: Which one, of ``PRESETS``.
        options: What of the preset is changed.
        image_size: Side in pixels that images are resized to; None for their own size.
        pretrained: Whether it makes no sense without weights to start from.
        optimizers: Makes them from the network and the learning rate.
    """

    preset: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int | None = None
    pretrained: bool = False
    optimizers: Callable[[VisionTransformer, float], list[torch.optim.Optimizer]]


def sgd(network: VisionTransformer, lr: float) -> list[torch.optim.Optimizer]:
    """The published fine-tuning's."""
    return [torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, fused=True)]


def adamw(network: VisionTransformer, lr: float) -> list[torch.optim.Optimizer]:
    """AdamW; weights of layers decay, and nothing else does."""
    return [torch.optim.AdamW(_decayed(list(network.parameters())), lr=lr, fused=True)]


def muon(network: VisionTransformer, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the encoder, AdamW at a sixth of its rate for the rest."""
    matrices = [parameter for parameter in network.encoder.parameters() if parameter.ndim == 2]
    chosen = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    return [
        Muon(matrices, lr=lr, weight_decay=0.01, dtype=this_machine(matrices[0].device).dtype),
        torch.optim.AdamW(_decayed(rest), lr=lr / 6, fused=True),
    ]


def _decayed(parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Two groups: weights of layers, and what is a vector for each token or channel."""
    layers = [parameter for parameter in parameters if parameter.ndim > 1 and parameter.shape[0] > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim == 1 or parameter.shape[0] == 1]
    return [{"params": layers, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


SHOWN = 8  # images whose attention is drawn

FINETUNE = ViTRecipe(
    preset="b16",
    image_size=224,
    pretrained=True,
    lr=0.03,
    batch_size=512,
    epochs=103,
    steps=10_000,
    normalise=Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    augment=Augment(mirror=True, crop=0.05, size=224),
    schedule=cosine(warm_up=500 / 10_000),
    clip=1.0,
    at_once=64,
    optimizers=sgd,
)
RECIPES = {
    "lite": ViTRecipe(
        preset="lite",
        options={"patch_dropout": 0.5},
        lr=0.006,
        batch_size=256,
        epochs=20,
        augment=Augment(mirror=True, shift=2),
        schedule=one_cycle(warm_up=0.1),
        compiled=True,
        optimizers=muon,
    ),
    "b16": ViTRecipe(
        preset="b16",
        options={"dropout": 0.0},
        lr=3e-4,
        batch_size=128,
        epochs=10,
        augment=Augment(mirror=True, shift=2),
        schedule=one_cycle(warm_up=0.2),
        clip=1.0,
        compiled=True,
        optimizers=adamw,
    ),
    "b16-finetune": FINETUNE,
    "b16-finetune-500": dataclasses.replace(FINETUNE, epochs=6, steps=500, schedule=cosine(warm_up=100 / 500)),
}


@dataclass(frozen=True)
class Options(RunOptions):
    """Train a Vision Transformer and write a report."""

    recipe: str = option("lite", "what to train, and how", choices=tuple(RECIPES))
    weights: str | None = option(None, "file to start from: .npz, .safetensors or .pt of any family (default: none)")


def main(options: Options) -> None:
    """Data -> network -> loop -> run folder -> report."""
    conduct(options, RECIPES, subject)


def subject(options: Options, recipe: ViTRecipe, dataset: Dataset, device: torch.device) -> Subject:
    """The network on its device, with the weights to start from, and where it looks.

    Raises:
        InputError: If the images are no whole number of patches, or the weights cannot be had.
    """
    if recipe.pretrained and options.weights is None:
        raise InputError(f"--weights (None) must be a file of pretrained weights for recipe {options.recipe}")
    height, width = dataset.train.images.shape[-2:]
    size = (recipe.image_size or height, recipe.image_size or width)
    side = PRESETS[recipe.preset]["patch_size"]
    if any(length % side for length in size):
        wanted = f"images of a multiple of {side} pixels for recipe {options.recipe}"
        raise InputError(f"--data ({options.data}) must hold {wanted}")
    network = VisionTransformer.from_preset(
        recipe.preset, len(dataset.classes), image_size=size, device=device, **recipe.options
    )
    remarks = []
    if options.weights and not options.resume:  # a checkpoint has weights of its own
        remarks = load_weights(network, Path(options.weights))
    grid = (size[0] // side, size[1] // side)
    if warning := few_patches_warning(grid[0] * grid[1], size):
        remarks.append(f"WARNING: {warning}")
    return Subject(
        network=network,
        optimizers=recipe.optimizers(network, recipe.lr),
        size=size,
        settings={
            **PRESETS[recipe.preset],
            **recipe.options,
            "preset": recipe.preset,
            "patches": grid[0] * grid[1],
            "optimizer": recipe.optimizers.__name__,
        },
        remarks=remarks,
        findings=lambda images, normalise: where_it_looks(network, images, normalise, grid),
    )


def where_it_looks(
    network: VisionTransformer, images: Tensor, normalise: Normalise, grid: tuple[int, int]
) -> dict[str, Any]:
    """Images, and where the class token looks."""
    images = images[evenly_spaced(len(images), SHOWN).to(images.device)]
    with torch.inference_mode():
        _, weights = network(normalise(images), return_weights=True)
    return {
        "attention_images": images.cpu(),
        "attention_rollout": attention_rollout(weights, grid).cpu(),
        "attention_last_layer": last_layer_maps(weights, grid).cpu(),
    }


if __name__ == "__main__":
    run(lambda: main(parse(Options, "train_vit")), "train_vit")
