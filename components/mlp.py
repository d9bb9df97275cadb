# SPDX-License-Identifier: MIT
"""Think about each token on its own.

    MLP(x) = fc2(gelu(fc1(x))),  gelu(a) = a (1 + erf(a / sqrt(2))) / 2

Letters: ... any leading axes (batch, tokens), D width, M hidden width.

Source: "An Image is Worth 16x16 Words", Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), equation 3 and
appendix A.

Convention: the exact GELU, as in every torch port; Flax uses the tanh form, which differs by up to 5e-4. Dropout after
both the GELU and the second layer. Weights start as in the original Flax code: Xavier uniform, biases normal(1e-6).
"""

import operator
from contextlib import suppress
from numbers import Real
from typing import SupportsIndex

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def whole(name: str, value: SupportsIndex) -> int:
    """Return a size as an int: any integer type is taken, but neither True nor False, of NumPy and torch neither."""
    if not isinstance(value, bool) and not str(getattr(value, "dtype", "")).endswith("bool"):
        with suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} ({value!r}) must be an integer")


def rate(name: str, value: float) -> float:
    """Return the probability of dropping something as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} ({value!r}) must be a number")
    if not 0 <= value < 1:
        raise ValueError(f"{name} ({value}) must be at least 0 and less than 1")
    return float(value)


def check_tokens(x: Tensor, dim: int) -> None:
    """Refuse an input of another width."""
    if x.ndim < 1 or x.shape[-1] != dim:
        raise ValueError(f"MLP: input {tuple(x.shape)} must be (..., {dim})")


torch.fx.wrap("check_tokens")  # torch.fx, which follows no branch, calls it as it is


class MLP(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: Width of input and output.
        mlp_dim: Width between the two layers; four times ``dim`` in the paper.
        dropout: Probability of dropping an element, after the GELU and after the second layer.
        device: Where the parameters are created.
        dtype: Floating-point type of the parameters.

    Shape:
        - Input: (..., dim).
        - Output: (..., dim).

    Raises:
        TypeError: If an option has a wrong type.
        ValueError: If a size or the probability is out of range, or the input has another width.
    """

    def __init__(
        self,
        dim: int,
        mlp_dim: int,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, mlp_dim = whole("MLP: dim", dim), whole("MLP: mlp_dim", mlp_dim)
        for name, value in (("dim", dim), ("mlp_dim", mlp_dim)):
            if value < 1:
                raise ValueError(f"MLP: {name} ({value}) must be at least 1")
        dropout = rate("MLP: dropout", dropout)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"MLP: dtype ({dtype!r}) must be a floating-point torch.dtype")
        self.dim = dim
        self.fc1 = nn.Linear(dim, mlp_dim, device=device, dtype=dtype)
        self.fc2 = nn.Linear(mlp_dim, dim, device=device, dtype=dtype)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and biases."""
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return each token transformed: (..., D) -> (..., D)."""
        check_tokens(x, self.dim)
        x = self.dropout(F.gelu(self.fc1(x)))  # (..., M)
        x = self.dropout(self.fc2(x))  # (..., D)
        return x

    def extra_repr(self) -> str:
        """Show the width in ``print(module)``."""
        return f"dim={self.dim}"
