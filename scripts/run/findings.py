"""What the report needs of the test set, kept in findings.pt, so that the run folder is enough to draw it.

The file holds the confusion matrix, a sample of misclassified images, and what the network's subject adds, as plain
tensors, lists and numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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


def evenly_spaced(count: int, wanted: int = TRANSFORMED_SHOWN) -> Tensor:
    """Return indices spread evenly over a set of images, which may be sorted by class."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()
