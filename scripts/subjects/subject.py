"""What an entry trains, and what the report shows of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scripts.data.transforms import Normalise
from scripts.training.trainer import Predict


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What an entry trains, and what it has to say of it.

    Args:
        network: In evaluation images (B, 3, h, w) -> logits.
        optimizers: Over its parameters.
        settings: What else config.json and the checkpoints say of the network: plain values alone.
        remarks: Lines for the log before training starts.
        predict: As in ``Trainer``, where the network reports more than logits.
        describe: As in ``Trainer``.
        findings: What the report shows of the network, from uint8 test images of that size and their normalisation.
    """

    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    predict: Predict | None = None
    describe: Callable[[Tensor], tuple[dict[str, float], str]] | None = None
    findings: Callable[[Tensor, Normalise], dict[str, Any]]
