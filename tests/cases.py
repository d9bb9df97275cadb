"""One row a component: how to build it, what to feed it, what it must return, what it must refuse.

``test_contract.py`` runs every contract item for every row, so that a new component costs one row. Rows are small and
have prime, unequal sizes: no swapped axis passes unseen, and a full Jacobian stays affordable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components import LocalizationNet, SpatialTransformer
from tests import reference
from tests.strategies import generator


@dataclass(frozen=True)
class Refusal:
    """A call that must raise ``error`` with a message that contains ``message`` to the letter."""

    call: Callable[[], object]
    error: type[Exception]
    message: str


@dataclass(frozen=True)
class Case:
    """One component under contract.

    Args:
        build: Makes the module; takes ``device`` and ``dtype``.
        input_shape: Shape of one input, without the batch.
        output_shape: Shape of one output, from the configuration.
        reference: The output in float64, computed from module and input without using the component's own formula.
        keys: Names in the state_dict; they are frozen, files depend on them.
        refusals: Bad configurations and inputs.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    reference: Callable[[nn.Module, Tensor], Tensor]
    keys: tuple[str, ...]
    refusals: tuple[Refusal, ...]

    def module(self, seed: int = 0, **factory: object) -> nn.Module:
        """Build it with every parameter drawn at random: heads that start at zero would hide what lies below them."""
        module = self.build(**factory)
        draw = generator(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
        return module

    def input(self, batch: int = 3, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal inputs."""
        return torch.randn((batch, *self.input_shape), generator=generator(seed), dtype=torch.float64).to(dtype)


class AffineHead(nn.Module):
    """The smallest localization module there is: one linear layer on the pixels."""

    def __init__(self, pixels: int, **factory: object) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, 6, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Returns(nn.Module):
    """A localization module that returns what it was given."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        return self.theta


CASES = (
    Case(
        name="LocalizationNet",
        build=lambda **factory: LocalizationNet(2, 5, **factory),
        input_shape=(2, 19, 23),
        output_shape=(5,),
        reference=reference.localization_net,
        keys=tuple(f"{layer}.{kind}" for layer in ("conv1", "conv2", "fc1", "fc2")
                   for kind in ("weight", "bias")),
        refusals=(
            Refusal(lambda: LocalizationNet(0), ValueError, "LocalizationNet: in_channels (0) must be at least 1"),
            Refusal(lambda: LocalizationNet(3, -1), ValueError, "LocalizationNet: num_params (-1) must be at least 1"),
            Refusal(lambda: LocalizationNet()(torch.zeros(3, 32, 32)), ValueError,
                    "LocalizationNet: input (3, 32, 32) must be (B, 3, H, W)"),
            Refusal(lambda: LocalizationNet()(torch.zeros(2, 1, 32, 32)), ValueError,
                    "LocalizationNet: input (2, 1, 32, 32) must be (B, 3, H, W)"),
        ),
    ),
    Case(
        name="SpatialTransformer",
        build=lambda **factory: SpatialTransformer(AffineHead(2 * 5 * 7, **factory), output_size=(3, 11)),
        input_shape=(2, 5, 7),
        output_shape=(2, 3, 11),
        reference=reference.spatial_transformer,
        keys=("localization.linear.weight", "localization.linear.bias"),
        refusals=(
            Refusal(lambda: SpatialTransformer(torch.flatten), TypeError,
                    "SpatialTransformer: localization (builtin_function_or_method) must be an nn.Module"),
            Refusal(lambda: SpatialTransformer(nn.Identity(), padding_mode="wrap"), ValueError,
                    "SpatialTransformer: padding_mode ('wrap') must be one of ('zeros', 'border', 'reflection')"),
            Refusal(lambda: SpatialTransformer(nn.Identity(), output_size=0), ValueError,
                    "SpatialTransformer: output_size (0) must be one or two positive numbers"),
            Refusal(lambda: SpatialTransformer(nn.Identity(), output_size=(4, 4, 4)), ValueError,
                    "SpatialTransformer: output_size ((4, 4, 4)) must be one or two positive numbers"),
            Refusal(lambda: SpatialTransformer(nn.Identity())(torch.zeros(3, 8, 8)), ValueError,
                    "SpatialTransformer: input (3, 8, 8) must be (B, C, H, W) with C, H, W at least 1"),
            Refusal(lambda: SpatialTransformer(nn.Identity())(torch.zeros(2, 3, 0, 8)), ValueError,
                    "SpatialTransformer: input (2, 3, 0, 8) must be (B, C, H, W) with C, H, W at least 1"),
            Refusal(lambda: SpatialTransformer(nn.Identity())(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), TypeError,
                    "SpatialTransformer: input (torch.uint8) must be floating point"),
            Refusal(lambda: SpatialTransformer(Returns(torch.zeros(2, 4)))(torch.zeros(2, 3, 8, 8)), ValueError,
                    "SpatialTransformer: theta (2, 4) must be (2, 6) or (2, 2, 3)"),
            Refusal(lambda: SpatialTransformer(Returns(torch.zeros(1, 6)))(torch.zeros(2, 3, 8, 8)), ValueError,
                    "SpatialTransformer: theta (1, 6) must be (2, 6) or (2, 2, 3)"),
        ),
    ),
)  # fmt: skip
