"""Batches that are made where the model is: the whole split lies there as uint8, and is indexed and normalised there.

uint8 (N, 3, H, W) -> shuffled -> uint8 (B, 3, H, W) -> mirrored, shifted, cropped -> float32 (B, 3, h, w)
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from scripts.data.datasets import Split
from scripts.data.resampling import resampled
from scripts.data.transforms import ALL, Augment, Normalise, sent

Prepare = Callable[[Tensor], Tensor]  # from uint8 images to what a model takes


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images of another size, as crops are resampled; those of that size as they are."""
    if images.shape[-2:] == size:
        return images
    frame = sent(torch.tensor([[0, 0, *images.shape[-2:]]]), images.device)
    return resampled(images, frame.expand(len(images), -1), size)


def channel_statistics(images: Tensor) -> Normalise:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), exactly."""
    # a histogram needs no float copy of the whole set
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.cpu().unbind(1)]).double()
    level = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ level
    std = (share @ level.square() - mean.square()).clamp(min=1e-6).sqrt()
    return Normalise(tuple(mean.tolist()), tuple(std.tolist()))


def shuffled(split: Split, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The batches of one pass over the split in a new random order, as positions; the last one may be smaller.

    The generator lives on the CPU, so that every device sees the same batches.
    """
    return sent(torch.randperm(len(split), generator=generator), split.labels.device).split(batch_size)


def training_batches(
    split: Split,
    batches: Iterable[Tensor],
    prepare: Prepare,
    augment: Augment,
    generator: torch.Generator,
    share: Callable[[int], slice] = lambda count: ALL,
) -> Iterator[tuple[Tensor, Tensor]]:
    """A share of those images and labels; each batch is augmented as it is asked for: draws are made in its turn.

    Args:
        split: What the batches are of.
        batches: Positions in it.
        prepare: From uint8 images to what the model takes.
        augment: Draws for whole batches.
        generator: What it draws from.
        share: From the size of a batch to the part of it that is wanted.
    """
    for chosen in batches:
        part = share(len(chosen))
        yield prepare(augment(split.images[chosen], generator, part)), split.labels[chosen[part]]


def evaluation_batches(split: Split, prepare: Prepare, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the split in its own order."""
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        yield prepare(images), labels
