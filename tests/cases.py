"""One row a component: how to build it, what to feed it, what it must return, what it must refuse.

``test_contract.py`` runs every contract item for every row, so that a new component costs one row. Rows are small and
have prime, unequal sizes: no swapped axis passes unseen, and a full Jacobian stays affordable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings, SpatialTransformer
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
        build: Makes the module; takes ``device``, ``dtype`` and the options in ``rates``.
        input_shape: Shape of one input, without the batch.
        output_shape: Shape of one output, from the configuration.
        reference: The output in float64, computed from module and input without using the component's own formula.
        keys: Names in the state_dict; they are frozen, files depend on them.
        refusals: Bad configurations and inputs.
        rates: The options that are a probability of dropping something in training.
        autocast_dtype: Type of the output where autocast computes in bfloat16.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    reference: Callable[[nn.Module, Tensor], Tensor]
    keys: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    rates: tuple[str, ...] = ()
    autocast_dtype: torch.dtype = torch.float32

    def module(self, seed: int = 0, **options: object) -> nn.Module:
        """Build it with every parameter drawn at random: heads that start at zero would hide what lies below them."""
        module = self.build(**options)
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


def layers(*names: str) -> tuple[str, ...]:
    """The names of layers that have a weight and a bias each."""
    return tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))


BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
MASK_SIZES = "(2, 3, 5, 5) or 1 in any place"


def attend(mask: Tensor) -> object:
    """Three heads on five tokens of width six."""
    return Attention(6, 3)(torch.zeros(2, 5, 6), mask)


CASES = (
    Case(
        name="LocalizationNet",
        build=lambda **factory: LocalizationNet(2, 5, **factory),
        input_shape=(2, 19, 23),
        output_shape=(5,),
        reference=reference.localization_net,
        keys=layers("conv1", "conv2", "fc1", "fc2"),
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
    Case(
        name="PatchEmbeddings",
        build=lambda **options: PatchEmbeddings((4, 6), 2, dim=5, in_channels=3, **options),
        input_shape=(3, 4, 6),
        output_shape=(7, 5),
        reference=reference.patch_embeddings,
        keys=("cls_token", "pos_embed", "proj.weight", "proj.bias"),
        rates=("dropout",),
        refusals=(
            Refusal(lambda: PatchEmbeddings(32, 0, dim=8), ValueError,
                    "PatchEmbeddings: patch_size (0) must be at least 1"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=0), ValueError, "PatchEmbeddings: dim (0) must be at least 1"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8, in_channels=-3), ValueError,
                    "PatchEmbeddings: in_channels (-3) must be at least 1"),
            Refusal(lambda: PatchEmbeddings(30, 4, dim=8), ValueError,
                    "PatchEmbeddings: image_size (30) must be one or two multiples of 4"),
            Refusal(lambda: PatchEmbeddings((32, 30), 4, dim=8), ValueError,
                    "PatchEmbeddings: image_size ((32, 30)) must be one or two multiples of 4"),
            Refusal(lambda: PatchEmbeddings((0, 32), 4, dim=8), ValueError,
                    "PatchEmbeddings: image_size ((0, 32)) must be one or two multiples of 4"),
            Refusal(lambda: PatchEmbeddings((4, 4, 4), 4, dim=8), ValueError,
                    "PatchEmbeddings: image_size ((4, 4, 4)) must be one or two multiples of 4"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8, dropout=1.0), ValueError,
                    "PatchEmbeddings: dropout (1.0) must be at least 0 and less than 1"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8, interpolation="cubic"), ValueError,
                    "PatchEmbeddings: interpolation ('cubic') must be one of ('bicubic-antialias', 'bicubic', "
                    "'bicubic-corners', 'bilinear', 'bilinear-corners')"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8)(torch.zeros(3, 32, 32)), ValueError,
                    "PatchEmbeddings: input (3, 32, 32) must be (B, 3, H, W) with H and W multiples of 4"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8)(torch.zeros(2, 1, 32, 32)), ValueError,
                    "PatchEmbeddings: input (2, 1, 32, 32) must be (B, 3, H, W) with H and W multiples of 4"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8)(torch.zeros(2, 3, 32, 30)), ValueError,
                    "PatchEmbeddings: input (2, 3, 32, 30) must be (B, 3, H, W) with H and W multiples of 4"),
            Refusal(lambda: PatchEmbeddings(32, 4, dim=8)(torch.zeros(2, 3, 0, 32)), ValueError,
                    "PatchEmbeddings: input (2, 3, 0, 32) must be (B, 3, H, W) with H and W multiples of 4"),
        ),
    ),
    Case(  # the same on an image that is larger one way and smaller the other: its positions are resampled
        name="PatchEmbeddings resized",
        build=lambda **options: PatchEmbeddings((4, 6), 2, dim=5, in_channels=3, **options),
        input_shape=(3, 10, 4),
        output_shape=(11, 5),
        reference=reference.patch_embeddings,
        keys=("cls_token", "pos_embed", "proj.weight", "proj.bias"),
        rates=("dropout",),
        refusals=(),
    ),
    Case(
        name="Attention",
        build=lambda **options: Attention(6, 3, **options),
        input_shape=(5, 6),
        output_shape=(5, 6),
        reference=lambda module, x: reference.attention(module, x)[0],
        keys=layers("qkv", "proj"),
        rates=("dropout", "attn_dropout"),
        autocast_dtype=torch.bfloat16,
        refusals=(
            Refusal(lambda: Attention(0, 1), ValueError, "Attention: dim (0) must be at least 1"),
            Refusal(lambda: Attention(6, 0), ValueError, "Attention: num_heads (0) must be at least 1"),
            Refusal(lambda: Attention(10, 3), ValueError, "Attention: dim (10) must be divisible by num_heads (3)"),
            Refusal(lambda: Attention(6, 3, dropout=-0.1), ValueError,
                    "Attention: dropout (-0.1) must be at least 0 and less than 1"),
            Refusal(lambda: Attention(6, 3, attn_dropout=1.0), ValueError,
                    "Attention: attn_dropout (1.0) must be at least 0 and less than 1"),
            Refusal(lambda: Attention(6, 3)(torch.zeros(5, 6)), ValueError,
                    "Attention: input (5, 6) must be (B, N, 6)"),
            Refusal(lambda: Attention(6, 3)(torch.zeros(2, 5, 7)), ValueError,
                    "Attention: input (2, 5, 7) must be (B, N, 6)"),
            Refusal(lambda: attend(torch.ones(2, 3, 5, 5, dtype=torch.int64)), TypeError,
                    "Attention: mask (torch.int64) must be boolean (True = attend) or floating point"),
            Refusal(lambda: attend(torch.ones(5, 5)), ValueError, f"Attention: mask (5, 5) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(2, 3, 5)), ValueError, f"Attention: mask (2, 3, 5) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(3, 5, 5)), ValueError, f"Attention: mask (3, 5, 5) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(2, 3, 5, 4)), ValueError,
                    f"Attention: mask (2, 3, 5, 4) must be {MASK_SIZES}"),
        ),
    ),
    Case(
        name="MLP",
        build=lambda **options: MLP(5, 7, **options),
        input_shape=(3, 5),
        output_shape=(3, 5),
        reference=reference.mlp,
        keys=layers("fc1", "fc2"),
        rates=("dropout",),
        autocast_dtype=torch.bfloat16,
        refusals=(
            Refusal(lambda: MLP(0, 7), ValueError, "MLP: dim (0) must be at least 1"),
            Refusal(lambda: MLP(5, -7), ValueError, "MLP: mlp_dim (-7) must be at least 1"),
            Refusal(lambda: MLP(5, 7, dropout=1.0), ValueError,
                    "MLP: dropout (1.0) must be at least 0 and less than 1"),
            Refusal(lambda: MLP(5, 7)(torch.zeros(2, 7)), ValueError, "MLP: input (2, 7) must be (..., 5)"),
            Refusal(lambda: MLP(5, 7)(torch.zeros(())), ValueError, "MLP: input () must be (..., 5)"),
        ),
    ),
    Case(
        name="Block",
        build=lambda **options: Block(6, 3, mlp_dim=7, **options),
        input_shape=(5, 6),
        output_shape=(5, 6),
        reference=reference.block,
        keys=layers(*BLOCK),
        rates=("dropout", "attn_dropout", "stochastic_depth"),
        refusals=(
            Refusal(lambda: Block(10, 3, mlp_dim=7), ValueError,
                    "Attention: dim (10) must be divisible by num_heads (3)"),
            Refusal(lambda: Block(6, 3, mlp_dim=0), ValueError, "MLP: mlp_dim (0) must be at least 1"),
            Refusal(lambda: Block(6, 3, mlp_dim=7, dropout=2.0), ValueError,
                    "Attention: dropout (2.0) must be at least 0 and less than 1"),
            Refusal(lambda: Block(6, 3, mlp_dim=7, stochastic_depth=1.0), ValueError,
                    "Block: stochastic_depth (1.0) must be at least 0 and less than 1"),
            Refusal(lambda: Block(6, 3, mlp_dim=7)(torch.zeros(5, 6)), ValueError,
                    "Block: input (5, 6) must be (B, N, 6)"),
            Refusal(lambda: Block(6, 3, mlp_dim=7)(torch.zeros(2, 5, 7)), ValueError,
                    "Block: input (2, 5, 7) must be (B, N, 6)"),
        ),
    ),
    Case(
        name="Encoder",
        build=lambda **options: Encoder(4, 2, num_heads=2, mlp_dim=5, **options),
        input_shape=(3, 4),
        output_shape=(3, 4),
        reference=reference.encoder,
        keys=layers(*(f"blocks.{i}.{name}" for i in range(2) for name in BLOCK), "norm"),
        rates=("dropout", "attn_dropout", "stochastic_depth"),
        refusals=(
            Refusal(lambda: Encoder(4, 0, num_heads=2, mlp_dim=5), ValueError, "Encoder: depth (0) must be at least 1"),
            Refusal(lambda: Encoder(4, 2, num_heads=3, mlp_dim=5), ValueError,
                    "Attention: dim (4) must be divisible by num_heads (3)"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5, stochastic_depth=-0.5), ValueError,
                    "Encoder: stochastic_depth (-0.5) must be at least 0 and less than 1"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5)(torch.zeros(3, 4)), ValueError,
                    "Encoder: input (3, 4) must be (B, N, 4)"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5)(torch.zeros(2, 3, 5)), ValueError,
                    "Encoder: input (2, 3, 5) must be (B, N, 4)"),
        ),
    ),
)  # fmt: skip
