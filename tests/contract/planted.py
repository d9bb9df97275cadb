"""A small module that keeps the contract, and others that have one fault each, for the tests of the tool."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Clean(nn.Module):
    def __init__(self, dim: int, dropout: float = 0.0, *, device: object = None, dtype: object = None) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.gelu(self.layer(x)))


class WritesToItsInput(Clean):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        x.detach().clamp_(-1, 1)
        return y


class SeesTheBatch(Clean):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - super().forward(x).mean(0)


class DropsInEvaluation(Clean):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.gelu(self.layer(x)), self.dropout.p)


class KeepsItsOutput(Clean):
    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class KeepsItsBias(Clean):
    """It computes something from its weights at the first call in evaluation, and never again."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        if self.kept is None:
            self.kept = self.layer.weight.detach().clone()
        return F.gelu(F.linear(x, self.kept, self.layer.bias))


class ForgetsTheType(Clean):
    def __init__(self, dim: int, dropout: float = 0.0, *, device: object = None, dtype: object = None) -> None:
        super().__init__(dim, dropout, device=device)


class ReadsAWeight(Clean):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.gelu(F.linear(x, self.layer.weight, self.layer.bias)))


class HasAnIdleWeight(Clean):
    def __init__(self, dim: int, dropout: float = 0.0, *, device: object = None, dtype: object = None) -> None:
        super().__init__(dim, dropout, device=device, dtype=dtype)
        self.idle = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))


class NeedsContiguousInput(Clean):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(-1, x.shape[-1])).view(x.shape)


class KnowsItsBatch(Clean):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if len(x) < 100 else 2)


class Overflows(Clean):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).exp()
