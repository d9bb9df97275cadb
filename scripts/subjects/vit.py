"""The Vision Transformer, its pretrained weights, its optimizers, and what it looks at for the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.data.transforms import Normalise
from scripts.models.vit import PRESETS, VisionTransformer, few_patches_warning
from scripts.recipes.vit import Options
from scripts.run.attention_maps import attention_rollout, class_token_maps
from scripts.run.findings import evenly_spaced, grad_cam_findings
from scripts.run.folder import checkpoints
from scripts.subjects.subject import Subject
from scripts.system.errors import InputError
from scripts.training.evaluation import Evaluation
from scripts.training.optimizers import Muon, muon_type
from scripts.training.plan import Plan, Recipe
from scripts.training.untraced import SGD, AdamW
from scripts.weights.pretrained import load_weights

SHOWN = 8  # images whose attention is drawn
LAYER_DECAY = 0.7
STEM_RATE = 4  # with one rate for both, either the convolutions learn too slowly or the encoder too fast
FEW_HEADS = 8  # with more, the picture of all layers and heads has room for one image only


def sgd(network: VisionTransformer, plan: Recipe) -> list[torch.optim.Optimizer]:
    """SGD with momentum 0.9 and no weight decay."""
    return [SGD(network.parameters(), lr=plan.lr, momentum=0.9, fused=True)]


def adamw(network: VisionTransformer, plan: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW with weight decay for the weights of layers."""
    return [AdamW(_decayed(list(network.parameters())), lr=plan.lr, fused=True)]


def layered_adamw(network: VisionTransformer, plan: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW with weight decay for the weights of layers; each layer learns at 0.7 of the rate of the one behind it."""
    parts = (network.resnet, network.stem, network.embeddings)
    front = [parameter for part in parts if part is not None for parameter in part.parameters()]
    layers = [front, *(list(block.parameters()) for block in network.encoder.blocks)]
    known = {id(parameter) for layer in layers for parameter in layer}
    layers.append([parameter for parameter in network.parameters() if id(parameter) not in known])  # behind the blocks
    groups = [
        group | {"lr": plan.lr * LAYER_DECAY**depth}
        for depth, layer in enumerate(reversed(layers))
        for group in _decayed(layer)
    ]
    return [AdamW(groups, lr=plan.lr, fused=True)]


def muon(network: VisionTransformer, plan: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for matrices of the encoder and, at four times the rate, stages in front of it; AdamW at 1/6 for the rest.

    All that is in front of the patches learns at four times the rate, AdamW's share included.
    """
    hidden = [parameter for parameter in network.encoder.parameters() if parameter.ndim == 2]
    front: set[int] = set()
    if network.stem is not None:
        hidden += [parameter for parameter in network.stem.stages.parameters() if parameter.ndim == 4]
        front = {id(parameter) for parameter in network.stem.parameters()}
    chosen = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    groups = [each for group in _decayed(rest) for each in _faster(group, front, plan.lr / 6)]
    dtype = muon_type(plan.precision)
    return [
        Muon(_faster({"params": hidden}, front, plan.lr), lr=plan.lr, weight_decay=0.01, dtype=dtype),
        AdamW(groups, lr=plan.lr / 6, fused=True),
    ]


def _faster(group: dict[str, Any], front: set[int], lr: float) -> list[dict[str, Any]]:
    """Split a group: what learns at the rate, and what is in front of the patches, if anything, and learns faster."""
    behind = [parameter for parameter in group["params"] if id(parameter) not in front]
    fast = [parameter for parameter in group["params"] if id(parameter) in front]
    both = [group | {"params": behind, "lr": lr}, group | {"params": fast, "lr": STEM_RATE * lr}]
    return [each for each in both if each["params"]]


def _decayed(parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Two groups: the weights of layers, which decay, and biases, norms and embeddings, which do not."""
    layers = [parameter for parameter in parameters if parameter.ndim > 1 and parameter.shape[0] > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim == 1 or parameter.shape[0] == 1]
    return [{"params": layers, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "layered-adamw": layered_adamw, "muon": muon}  # by their names in recipes


def subject(options: Options, plan: Plan, device: torch.device) -> Subject:
    """Build the network on its device, and load pretrained weights.

    Raises:
        InputError: If the patch size does not divide the image size, or the weights are missing or do not fit.
    """
    if plan.pretrained and options.weights is None:
        raise InputError(f"--weights (None) must be a file of pretrained weights for recipe {plan.recipe}")
    size, preset = plan.image_size, PRESETS[plan.network["preset"]]
    side = preset["patch_size"]
    if any(length % side for length in size):
        wanted = f"images whose sides are multiples of {side} pixels for recipe {plan.recipe}"
        raise InputError(f"--data ({options.data}) must hold {wanted}")
    network = VisionTransformer.from_preset(
        num_classes=len(plan.classes), image_size=size, device=device, **plan.network
    )
    if network.stem is not None and size == (network.stem.stride,) * 2:  # one cell: batch norm cannot do with one image
        wanted = f"images of more than {size[0]}x{size[1]} pixels for recipe {plan.recipe}"
        raise InputError(f"--data ({options.data}) must hold {wanted}")
    remarks = []
    if options.weights and not (options.resume and checkpoints(Path(options.resume))):  # these have their own weights
        remarks = load_weights(network, Path(options.weights))
    dropped = network.patch_dropout

    def before_epoch(done: float) -> None:
        network.patch_dropout = dropped if done < 1 - plan.whole_images else 0.0

    grid = (size[0] // side, size[1] // side)
    if warning := few_patches_warning(grid[0] * grid[1], size, convolutions=network.stem is not None):
        remarks.append(f"WARNING: {warning}")

    def findings(images: Tensor, _: Tensor, labels: Tensor, __: Evaluation) -> dict[str, Any]:
        chosen = evenly_spaced(len(images), SHOWN).to(images.device)
        found = token_findings(network, images[chosen], labels[chosen], plan.normalise, grid)
        if network.pool is None:  # else nothing is read from the class token
            found |= attention_findings(network, images[chosen], plan.normalise, grid)
        return found

    return Subject(
        network=network,
        optimizers=OPTIMIZERS[plan.optimizer](network, plan),
        settings={"network": {**preset, **plan.network}, "patches": grid[0] * grid[1]},
        remarks=remarks,
        before_epoch=before_epoch,
        findings=findings,
    )


def attention_findings(
    network: VisionTransformer, images: Tensor, normalise: Normalise, grid: tuple[int, int]
) -> dict[str, Any]:
    """Return images, and the attention of the class token to their patches, of the first one or two in every layer."""
    rollouts, maps = [], []
    with torch.inference_mode():
        for image in images.split(1):  # the weights of all layers and heads are large
            _, weights = network.eval()(normalise(image), return_weights=True)
            rollouts.append(attention_rollout(weights, grid).cpu())
            maps.append(class_token_maps(weights, grid).cpu())
    every = torch.cat(maps)  # (B, L, heads, h, w)
    return {
        "attention_images": images.cpu(),
        "attention_rollout": torch.cat(rollouts),
        "attention_last_layer": every[:, -1].clone(),
        "attention_layers": every[: 2 if every.shape[2] <= FEW_HEADS else 1].clone(),
    }


def token_findings(
    network: VisionTransformer, images: Tensor, labels: Tensor, normalise: Normalise, grid: tuple[int, int]
) -> dict[str, Any]:
    """Return images, and where the tokens that enter the last block speak for the class.

    Behind the last block a head that reads the class token reads it alone, so that patches speak for no class there.
    """
    blocks = network.encoder.blocks
    layer = blocks[-2] if len(blocks) > 1 else network.embeddings
    side = images.shape[-2] / grid[0]
    return grad_cam_findings(
        network, layer, images, normalise(images), labels, first=(side - 1) / 2, step=side, grid=grid
    )
