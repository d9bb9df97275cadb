"""One training step: forward and backward passes, and the optimizers."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.system.processes import Processes
from scripts.system.signals import Asked
from scripts.training.plan import Plan
from scripts.training.state import State

# from network, images, labels or shares of the classes, and poses to the loss, summed over the images, and the logits
Objective = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Outcome(NamedTuple):
    """The result of a step.

    Args:
        loss: Sum over the batch.
        hits: Images classified correctly; of a mixed image the share of the predicted class.
        stop: Whether any process has to stop, so that all stop after this step.
        broken: Why the step was skipped, else empty.
    """

    loss: float
    hits: float
    stop: bool
    broken: str


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision."""
    return torch.autocast(device.type, dtype=getattr(torch, precision), enabled=precision != "float32")


def cross_entropy(
    network: nn.Module, images: Tensor, labels: Tensor, poses: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The usual objective, which asks for no poses."""
    logits: Tensor = network(images)
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing), logits


def train_step(
    state: State,
    network: nn.Module,
    objective: Objective,
    plan: Plan,
    processes: Processes,
    batch: tuple[Tensor, Tensor, Tensor],
    count: int,
    asked: Asked,
) -> Outcome:
    """Step the optimizers, unless the loss or a gradient is not finite; then running statistics stay as well.

    Args:
        state: The state of the run, which is updated.
        network: Its model as called in training: compiled, or wrapped for several processes.
        objective: What the network is trained for; it is called under autocast.
        plan: The plan of the run.
        processes: The processes that share the batch.
        batch: Images, labels (or shares of the classes) and poses of this process's share, which may be empty.
        count: Images in the whole batch.
        asked: Whether this process has to stop after the step.
    """
    for optimizer in state.optimizers:
        optimizer.zero_grad()
    statistics = [buffer.clone() for buffer in state.model.buffers()]  # a forward pass of a norm changes them
    totals = torch.zeros(3, device=state.device)
    parts = list(zip(*(each.split(plan.at_once) for each in batch), strict=True))
    for number, (images, labels, poses) in enumerate(parts, start=1):
        with processes.accumulating(network) if number < len(parts) else nullcontext():
            with autocast(state.device, plan.precision):
                loss, logits = objective(network, images, labels, poses)
            # DDP averages over the processes; the average of these sums is the mean over the batch
            state.scaler.scale(loss * (processes.count / count)).backward()
        totals[:2] += torch.stack([loss.detach(), hits(logits.detach(), labels)])
    for optimizer in state.optimizers:
        state.scaler.unscale_(optimizer)
    norm = nn.utils.get_total_norm([weight.grad for weight in state.model.parameters() if weight.grad is not None])
    totals[2].fill_(bool(asked))  # an assignment would copy from the host, and wait
    # the only wait for a GPU in a step; before the optimizers, so that the step can be skipped
    loss_sum, correct, stopping, length = torch.stack([*processes.total(totals), norm]).tolist()
    broken = ""
    if math.isfinite(loss_sum) and math.isfinite(length):
        if plan.clip is not None:
            nn.utils.clip_grads_with_norm_(state.model.parameters(), plan.clip, norm)
        for optimizer, scheduler in zip(state.optimizers, state.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        state.update_average()
    else:
        broken = _broken(state, loss_sum / count)
        for buffer, before in zip(state.model.buffers(), statistics, strict=True):
            buffer.copy_(before)
    state.scaler.update()
    return Outcome(loss_sum, correct, bool(stopping), broken)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many images are classified correctly; of a mixed image the share of the predicted class counts."""
    predicted = logits.argmax(1)
    return labels.gather(1, predicted.unsqueeze(1)).sum() if labels.ndim == 2 else (predicted == labels).sum()


def _broken(state: State, loss: float) -> str:
    """Describe what is not finite."""
    gradients = {name: weight.grad for name, weight in state.model.named_parameters() if weight.grad is not None}
    found = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    what = f"the gradient of {found[0]}{others}" if found else "the loss or the norm of all gradients"
    scale = f", gradient scale {state.scaler.get_scale():g}" if state.scaler.is_enabled() else ""
    return f"{what} is not finite (loss {loss:.4g}{scale})"
