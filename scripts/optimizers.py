"""The optimizer that torch lacks: its Muon steps matrices alone, and convolution kernels are where it pays here."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class KernelMuon(torch.optim.Muon):
    """Muon for parameters of any rank: a kernel is seen as the matrix (out channels, everything else).

    Source: K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
    (https://kellerjordan.github.io/posts/muon).

    Args:
        kernels: Parameters of two or more dimensions.
        lr: Step length; a matrix with more rows than columns takes longer ones, by sqrt(rows / columns).
        weight_decay: Share of the weight that a step of length 1 takes away.
    """

    def __init__(self, kernels: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        self.kernels = list(kernels)
        self.matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in self.kernels]
        super().__init__(self.matrices, lr=lr, weight_decay=weight_decay)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the kernels: the matrices only borrow them."""
        for kernel in self.kernels:
            kernel.grad = None if set_to_none or kernel.grad is None else torch.zeros_like(kernel)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step every kernel that has a gradient."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.copy_(kernel.flatten(1))
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        loss = super().step(closure)
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            kernel.copy_(matrix.view(kernel.shape))
        return loss
