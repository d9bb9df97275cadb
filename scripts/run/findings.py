"""What the report needs of the test set, kept in findings.pt, so that the run folder is enough to draw it.

The file holds the confusion matrix, a sample of misclassified images, and what the network's subject adds, as plain
tensors, lists and numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scripts.run.grad_cam import grad_cam, over_image

WRONG_SHOWN = 100
TRANSFORMED_SHOWN = 24


def classification_findings(images: Tensor, logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix and misclassified images.

    Args:
        images: uint8 (N, 3, H, W).
        logits: (N, classes).
        labels: (N,).
        classes: Their names.

    Returns:
        ``confusion``: (classes, classes) counts, truth by row and prediction by column.
        ``wrong_*``: up to 100 misclassified images, drawn at random (the same ones in every call), with truth,
        prediction and confidence, which is the probability of the prediction.
    """
    logits, labels = logits.cpu(), labels.cpu()
    confidence, predicted = logits.softmax(1).max(1)
    count = len(classes)
    confusion = (labels * count + predicted).bincount(minlength=count * count).view(count, count)
    wrong = (predicted != labels).nonzero().squeeze(1)
    chosen = wrong[torch.randperm(len(wrong), generator=torch.Generator().manual_seed(0))[:WRONG_SHOWN]]
    return {
        "classes": list(classes),
        "confusion": confusion,
        "wrong_total": len(wrong),
        "wrong_images": images[chosen.to(images.device)].cpu(),
        "wrong_labels": labels[chosen],
        "wrong_predictions": predicted[chosen],
        "wrong_confidences": confidence[chosen].float(),
    }


def grad_cam_findings(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    first: float,
    step: float,
    size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return where the layer speaks for the predicted class.

    Args:
        network: From inputs to logits.
        layer: As in ``grad_cam``.
        images: uint8 (B, 3, H, W).
        inputs: The same images, normalised.
        labels: (B,).
        first: Where the first cell of the layer's map lies, as in ``over_image``.
        step: The distance of its cells, as in ``over_image``.
        size: Height and width of what the layer sees an image through; that of the inputs by default.
        grid: Rows and columns of the patches where the layer returns tokens.

    Returns:
        ``cam_images``, ``cam_labels``, ``cam_predictions``, and ``cam_maps`` (B, H, W) of that size.
    """
    with torch.no_grad():
        predictions = network.eval()(inputs).argmax(1)
    maps = grad_cam(network, layer, inputs, predictions, grid=grid)
    height, width = size or inputs.shape[-2:]
    return {
        "cam_images": images.cpu(),
        "cam_labels": labels.cpu(),
        "cam_predictions": predictions.cpu(),
        "cam_maps": over_image(maps, (height, width), first, step).cpu(),
    }


def evenly_spaced(count: int, wanted: int = TRANSFORMED_SHOWN) -> Tensor:
    """Return indices spread evenly over a set of images, which may be sorted by class."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()
