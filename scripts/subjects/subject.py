"""What a training script trains, and what the report shows of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from scripts.training.evaluation import Evaluation
from scripts.training.step import Objective
from scripts.training.trainer import Predict


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with everything that is specific to it.

    Args:
        network: Maps images (B, 3, h, w) to logits.
        optimizers: Over its parameters.
        settings: Facts about the network for config.json and checkpoints, as plain values.
        remarks: Lines for the log before training starts.
        objective: As in ``Trainer``.
        predict: As in ``Trainer``.
        describe: As in ``Trainer``.
        before_epoch: As in ``Trainer``.
        tested_in: Poses by name in which summary.json has the test accuracy too, of the checkpoint in the figures.
        findings: From some uint8 test images, resized, the same images before they were posed, their labels, and the
            evaluation of the whole test set to what the report shows of the network; what is named ``numbers`` goes to
            summary.json too.
    """

    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    objective: Objective | None = None
    predict: Predict | None = None
    describe: Callable[[Tensor], tuple[dict[str, float], str]] | None = None
    before_epoch: Callable[[float], None] | None = None
    tested_in: Sequence[str] = ()
    findings: Callable[[Tensor, Tensor, Tensor, Evaluation], dict[str, Any]]
