"""Muon: momentum whose matrices are made orthogonal before each step.

    m <- 0.95 m + 0.05 g,  W <- (1 - lr decay) W - lr sqrt(max(1, rows / columns)) U V^T  of  0.05 g + 0.95 m = U S V^T

Source: K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon), with its Newton-Schulz iteration in place of the decomposition: singular
values end between 0.6 and 1.3, which serves as well as 1; the least few of a square matrix end lower.

torch has a Muon of its own: for matrices alone, one after another, and always in bfloat16.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from scripts.training.untraced import Untraced

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5, chosen to raise small singular values fastest


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices (K, n, m), n <= m, near 1, and keep their singular vectors."""
    first, third, fifth = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    if x.dtype == torch.float32 and x.shape[2] >= 2 * x.shape[1]:
        return _factor(x @ x.mT) @ x  # iterates on n x n alone: a quarter less work at m = 2 n, a third at 3 n
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (K, n, n)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x


def _factor(gram: Tensor) -> Tensor:
    """The product of all factors that the iteration multiplies x with, from x x^T: polynomials of it, which commute."""
    first, third, fifth = COEFFICIENTS
    product = gram  # replaced by the first factor
    for iteration in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        factor.diagonal(dim1=1, dim2=2).add_(first)
        product = factor if iteration == 0 else factor @ product
        gram = factor @ (factor @ gram) if iteration < ITERATIONS - 1 else gram
    return product


def muon_type(precision: str) -> torch.dtype:
    """The type in which Muon computes in a run of that precision, on every machine: bfloat16, or float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def wide(weight: Tensor) -> Tensor:
    """A weight as a matrix (n, m), n <= m: its first dimension by all others, or transposed."""
    matrix = weight.flatten(1)
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def shaped(matrix: Tensor, weight: Tensor) -> Tensor:
    """Undo ``wide`` for a matrix that belongs to that weight."""
    return (matrix.mT if weight.shape[0] > weight[0].numel() else matrix).reshape(weight.shape)


class Muon(Untraced):
    """Muon for matrices, and for convolution kernels as matrices (out channels, everything else).

    Args:
        params: Parameters of two or more dimensions, or groups of them.
        lr: Learning rate; for a matrix with more rows than columns it is multiplied by sqrt(rows / columns).
        weight_decay: Decoupled weight decay, multiplied by the learning rate.
        dtype: Type in which matrices are orthogonalised; half precision is enough.
    """

    def __init__(self, params: Iterable[Any], lr: float, *, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(weights, group["lr"], group["weight_decay"])
        return loss

    def _step(self, weights: list[Tensor], lr: float, weight_decay: float) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = [*torch._foreach_lerp(gradients, momenta, MOMENTUM)]  # Nesterov momentum
        matrices = [wide(update) for update in updates]
        by_shape = defaultdict(list)
        for place, matrix in enumerate(matrices):
            by_shape[matrix.shape].append(place)
        for places in by_shape.values():  # matrices of one shape are orthogonalised as one batch
            together = torch.stack([matrices[place] for place in places]).to(self.dtype)
            for place, matrix in zip(places, orthogonalised(together).to(weights[places[0]].dtype), strict=True):
                updates[place] = shaped(matrix, weights[place])
        steps = [-lr * max(1.0, weight.shape[0] / weight[0].numel()) ** 0.5 for weight in weights]
        torch._foreach_mul_(updates, steps)
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
        torch._foreach_add_(weights, updates)
