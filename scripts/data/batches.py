"""Batches made on the model's device, where the whole split is kept as uint8, indexed, augmented and normalised.

uint8 (N, 3, H, W) -> shuffled -> uint8 (B, 3, H, W) -> augmented -> posed -> float32 (B, 3, h, w) -> mixed
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from scripts.data.datasets import Split
from scripts.data.mixing import UNMIXED, Mix
from scripts.data.poses import UPRIGHT, Poses, of_boxes
from scripts.data.resampling import resampled
from scripts.data.transforms import ALL, Augment, Normalise, sent

Prepare = Callable[[Tensor], Tensor]  # from uint8 images to the input of a model


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample uint8 images to a size, as crops are; images of that size are returned unchanged."""
    if images.shape[-2:] == size:
        return images
    frame = sent(torch.tensor([[0, 0, *images.shape[-2:]]]), images.device)
    return resampled(images, frame.expand(len(images), -1), size)


def channel_statistics(images: Tensor) -> Normalise:
    """Exact mean and standard deviation of each channel of uint8 images (N, C, H, W)."""
    # from a histogram, which needs no float copy of all images; its sums are whole numbers, the same on every CPU
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.cpu().unbind(1)])
    level, number = torch.arange(256), counts.sum(1)
    mean = (counts * level).sum(1).double() / (255 * number)
    square = (counts * level**2).sum(1).double() / (255**2 * number)
    std = (square - mean.square()).clamp(min=1e-6).sqrt()
    return Normalise(tuple(mean.tolist()), tuple(std.tolist()))


def shuffled(split: Split, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the batches of one pass over the split in a new random order, as indices; the last one may be smaller.

    The generator is on the CPU, so that every device sees the same batches.
    """
    return sent(torch.randperm(len(split), generator=generator), split.labels.device).split(batch_size)


def training_batches(
    split: Split,
    batches: Iterable[Tensor],
    prepare: Prepare,
    augment: Augment,
    generator: torch.Generator,
    share: Callable[[int], slice] = lambda count: ALL,
    poses: Poses = UPRIGHT,
    mix: Mix = UNMIXED,
    classes: int = 0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield images, labels and poses of each batch, drawn when it is requested, so that draws follow the order.

    The poses of cluttered images are those of their objects.

    Labels are classes (B,), where images are mixed the shares of all classes (B, classes).

    Args:
        split: The images and labels.
        batches: Indices into the split.
        prepare: From uint8 images to the input of the model.
        augment: Augmentation, drawn for whole batches.
        generator: The random generator of augmentation, poses and mixing.
        share: From the size of a batch to the part of it that this process trains on.
        poses: Of the augmented images, drawn for whole batches.
        mix: How images are mixed with the next one of the batch; poses stay those of the first of both.
        classes: Number of classes, needed for mixing.
    """
    for chosen in batches:
        part = share(len(chosen))
        if mix != UNMIXED:  # each image needs the next one, the last one the first
            start, stop, _ = part.indices(len(chosen))
            chosen, part = torch.cat([chosen, chosen[:1]]), slice(start, stop + 1)
        augmented = augment(split.images[chosen[part]], len(chosen), generator, part)
        images, drawn = poses(augmented, len(chosen), generator, part)
        if split.boxes is not None:  # nothing else poses them: see ``planned``
            drawn = of_boxes(split.boxes[chosen[part], 0], *split.images.shape[-2:])
        images, labels = prepare(images), split.labels[chosen[part]]
        if mix != UNMIXED:
            draws = sent(mix.draws(len(chosen), generator)[part][:-1], images.device)
            images, labels = mix(images, torch.eye(classes, device=labels.device)[labels], draws)
            drawn = drawn[:-1]
        yield images, labels, drawn
