"""One row per component: how to build it, its input, the output to expect, and the calls that it must refuse.

``test_contract.py`` runs every item of ``items.py`` for every row, so that a new component costs one row. Rows are
small and their sizes are unequal and mostly prime: swapped axes show, and a full Jacobian stays affordable.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings, SpatialTransformer
from components.transforms import Affine, Projective, Rotation, Similarity, ThinPlateSpline, Transform, Translation
from tests import reference
from tests.support.strategies import generator

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Refusal:
    """A call that must raise ``error`` with exactly this message."""

    message: str
    call: Callable[[], object]
    error: type[Exception] = ValueError

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Case:
    """One component under contract.

    Args:
        name: The component; for a second row also how it differs from the first.
        build: Makes the module; takes ``device``, ``dtype`` and the options in ``rates``.
        input_shape: Shape of one input, without the batch.
        output_shape: Shape of one output, from the configuration.
        reference: The output in float64, computed from module and input without using the component's own formula.
        keys: Names in the state_dict, which are frozen because files depend on them.
        refusals: Bad configurations and inputs.
        rates: The options that are a probability of dropping something in training.
        autocast_dtype: Type of the output under autocast to bfloat16.
        smallest: Shape of the smallest input, without the batch.
        smooth: Options of ``forward`` with which torch has second derivatives and forward mode, where it needs any.
        atomics: Why gradients on CUDA differ in their last bits from run to run, where they do.
        laws: Items of the contract that have their own tests in ``test_<component>.py``, with the names of these.
        exempt: Items of the contract that do not apply, each with the reason in words.
        device: Where modules and inputs are, set by ``--device``.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    reference: Callable[[nn.Module, Tensor], Tensor]
    keys: tuple[str, ...]
    refusals: tuple[Refusal, ...] = ()
    rates: tuple[str, ...] = ()
    autocast_dtype: torch.dtype = torch.float32
    smallest: tuple[int, ...] = ()
    smooth: Mapping[str, object] = field(default_factory=dict)
    atomics: str = ""
    laws: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def nondet_tol(self) -> float:
        """How far gradients may differ from run to run."""
        return 1e-10 if self.atomics and self.device != "cpu" else 0.0

    def module(self, seed: int = 0, **options: object) -> nn.Module:
        """Build it with random parameters: a head that starts at zero would hide mistakes in the layers before it."""
        return randomised(self.build(**({"device": self.device} | options)), seed)

    def input(self, batch: int = 3, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal inputs."""
        x = torch.randn((batch, *self.input_shape), generator=generator(seed), dtype=torch.float64)
        return x.to(self.device, dtype)

    def expected(self, module: nn.Module, x: Tensor) -> Tensor:
        """The reference's output, computed on the CPU."""
        return self.reference(copy.deepcopy(module).cpu(), x.detach().cpu())


def randomised(module: Module, seed: int) -> Module:
    """The module with normally distributed parameters, divided by the root of the fan-in."""
    draw = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            parameter.copy_(noise / max(1, math.prod(parameter.shape[1:])) ** 0.5)
    return module


class Returns(nn.Module):
    """A localization module that returns a fixed theta."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        return self.theta


def layers(*names: str) -> tuple[str, ...]:
    """The weight and the bias of each layer."""
    return tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))


class FirstTwoAttend:
    """Cross-attention as a function of one tensor: its first two tokens are the input, the others the context."""

    def forward(self, x: Tensor, return_weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        return super().forward(x[:, :2], x[:, 2:], return_weights=return_weights)


class AttentionToContext(FirstTwoAttend, Attention): ...


class BlockToContext(FirstTwoAttend, Block): ...


def wrong_shapes(
    build: partial[nn.Module], argument: str, wanted: str, *shapes: tuple[int, ...], **others: object
) -> tuple[Refusal, ...]:
    """Calls in which one argument of ``forward`` has a shape that is refused."""

    def call(shape: tuple[int, ...]) -> object:
        return build()(**others, **{argument: torch.zeros(shape)})

    name = f"{build.func.__name__}: {'input' if argument == 'x' else argument}"
    return tuple(Refusal(f"{name} {shape} must be {wanted}", partial(call, shape)) for shape in shapes)


def wrong_options(build: partial[nn.Module], wanted: str, **refused: list[object]) -> tuple[Refusal, ...]:
    """Constructor calls in which one option has a value that is refused."""
    return tuple(
        Refusal(f"{build.func.__name__}: {name} ({value!r}) must be {wanted}", partial(build, **{name: value}))
        for name, values in refused.items()
        for value in values
    )


def another_row(case: Case, name: str, *also: str, **changes: object) -> Case:
    """A second row of a component, exempt from everything that it would only repeat, and from the items in ``also``.

    Exporting takes a second: to ONNX only the first row goes, and each transform in its own test.
    """
    repeated = dict.fromkeys((*case.laws, "refusals", "ONNX", *also), f"the row {case.name} has it")
    return replace(case, name=name, laws={}, refusals=(), exempt=case.exempt | repeated, **changes)


class Quarter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 4


def warped_by(transform: Transform, *small: nn.Module, **factory: object) -> SpatialTransformer:
    """A spatial transformer with a linear localization."""
    localization = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 7, transform.num_params, **factory), *small)
    return SpatialTransformer(localization, transform=transform, output_size=(3, 11))


CUDNN = "cuDNN may add up the gradients of a kernel in any order"
MEMORY_EFFICIENT = "the memory-efficient kernel may add up gradients in any order"

NO_DROPOUT = {"dropout statistics": "it drops nothing"}
NO_TOKENS = dict.fromkeys(("permutation", "locality"), "its output is not a sequence of tokens")
NO_ATTENTION = dict.fromkeys(("softmax", "fused equals plain"), "it has no attention")
NO_WARP = {"geometry": "it warps nothing"}
NO_CHANNELS = {"channels last": "its input has no channel axis"}
ALL_ATTEND_TO_ALL = {"locality": "every token attends to every other"}

WITHOUT_THE_FUSED_KERNEL = {"return_weights": True}
BLOCK_LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
TOKENS = torch.zeros(2, 5, 6)
RATE = "at least 0 and less than 1"

spatial_transformer = partial(SpatialTransformer, nn.Identity())
patch_embeddings = partial(PatchEmbeddings, image_size=32, patch_size=4, dim=8)
attention, mlp = partial(Attention, dim=6, num_heads=3), partial(MLP, dim=5, mlp_dim=7)
block, encoder = partial(Block, 6, 3, mlp_dim=7), partial(Encoder, 4, depth=2, num_heads=2, mlp_dim=5)

SPATIAL_TRANSFORMER = Case(
    name="SpatialTransformer",
    build=partial(warped_by, Affine()),
    input_shape=(2, 5, 7), output_shape=(2, 3, 11),
    reference=reference.spatial_transformer, keys=layers("localization.1"),
    atomics="bilinear sampling adds up gradients in any order",
    laws={
        "smallest input": ("test_identity_returns_the_input", "test_any_warp_equals_a_loop_over_pixels"),
        "geometry": ("test_identity_returns_the_input",
                     "test_identity_at_32_pixels_in_float32_is_exact_to_the_bit_without_corners",
                     "test_identity_at_another_size_is_bilinear_resizing",
                     "test_a_shift_by_whole_pixels_is_exact",
                     "test_quarter_turns_are_rot90",
                     "test_two_warps_compose_as_matrices",
                     "test_padding_mode_decides_what_lies_outside_the_image"),
    },
    exempt=NO_DROPOUT | NO_TOKENS | NO_ATTENTION | {"forward mode": "torch has none for grid_sample"},
    refusals=(
        Refusal("SpatialTransformer: localization (builtin_function_or_method) must be an nn.Module",
                lambda: SpatialTransformer(torch.flatten), TypeError),
        Refusal("SpatialTransformer: parameters (2, 6) of Projective must be (2, 8)",
                lambda: spatial_transformer(transform=Projective()).theta(torch.zeros(2, 6), torch.zeros(2, 3, 8, 8))),
        Refusal("ThinPlateSpline: points (1) must be at least 2", lambda: ThinPlateSpline(1)),
        *wrong_options(spatial_transformer, "one of ('zeros', 'border', 'reflection', 'mean')", padding_mode=["wrap"]),
        *wrong_options(spatial_transformer, "at least 1", steps=[0], samples=[-1]),
        *wrong_options(spatial_transformer, "one or two positive numbers", output_size=[0, (4, 4, 4)]),
        *wrong_shapes(spatial_transformer, "x", "(B, C, H, W) with C, H, W at least 1",
                      (3, 8, 8), (2, 3, 0, 8), (2, 0, 8, 8)),
        Refusal("SpatialTransformer: input (torch.uint8) must be floating point",
                lambda: spatial_transformer()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), TypeError),
        Refusal("SpatialTransformer: input (torch.uint8) must be floating point",
                lambda: spatial_transformer().warp(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 2, 3)),
                TypeError),
        *(Refusal(f"SpatialTransformer: output_size ({size}) must be {wanted}",
                  partial(spatial_transformer().warp, torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 3), given), error)
          for given, size, wanted, error in ((0, "0", "one or two positive numbers", ValueError),
                                             ((8,), "(8,)", "one or two positive numbers", ValueError),
                                             ((8, 0), "(8, 0)", "one or two positive numbers", ValueError),
                                             ((8, 2.5), "2.5", "an integer", TypeError))),
        *(Refusal(f"SpatialTransformer: theta {shape} of {type(transform).__name__} must be {wanted}",
                  partial(SpatialTransformer(nn.Identity(), transform=transform).warp, torch.zeros(2, 3, 8, 8),
                          torch.zeros(shape)))
          for transform, shape, wanted in ((Affine(), (2, 6), (2, 2, 3)), (Rotation(), (1, 2, 3), (2, 2, 3)),
                                           (Projective(), (2, 2, 3), (2, 3, 3)),
                                           (ThinPlateSpline(3), (2, 16, 2), (2, 9, 2)))),
        *(Refusal(f"SpatialTransformer: parameters {shape} of Affine must be (2, 6) or (2, 2, 3)",
                  partial(SpatialTransformer(Returns(torch.zeros(shape))), torch.zeros(2, 3, 8, 8)))
          for shape in ((2, 4), (1, 6))),
    ),
)  # fmt: skip
PATCH_EMBEDDINGS = Case(
    name="PatchEmbeddings",
    build=partial(PatchEmbeddings, (4, 6), 2, dim=5, in_channels=3),
    input_shape=(3, 4, 6), output_shape=(7, 5), smallest=(3, 2, 2),
    reference=reference.patch_embeddings, keys=("cls_token", "pos_embed", "proj.weight", "proj.bias"),
    rates=("dropout",), atomics=CUDNN,
    laws={
        "dropout statistics": ("test_dropout_acts_on_class_token_patches_and_positions",),
        "permutation": ("test_permuted_patches_give_permuted_tokens_until_positions_are_added",),
        "locality": ("test_changing_one_patch_changes_one_token",
                     "test_the_class_token_comes_first_and_depends_on_no_pixel"),
    },
    exempt=NO_WARP | NO_ATTENTION | {"dynamic INT8": "it has no linear layer"},
    refusals=(
        *wrong_options(patch_embeddings, "at least 1", patch_size=[0], dim=[0], in_channels=[-3]),
        *wrong_options(patch_embeddings, "one or two multiples of 4", image_size=[30, (32, 30), (0, 32), (4, 4, 4)]),
        *wrong_options(patch_embeddings, RATE, dropout=[1.0]),
        *wrong_options(patch_embeddings, "one of ('bicubic-antialias', 'bicubic', 'bicubic-corners', 'bilinear', "
                       "'bilinear-corners')", interpolation=["cubic"]),
        *wrong_shapes(patch_embeddings, "x", "(B, 3, H, W) with H and W multiples of 4",
                      (3, 32, 32), (2, 1, 32, 32), (2, 3, 32, 30), (2, 3, 0, 32)),
    ),
)  # fmt: skip

ATTENTION = Case(
    name="Attention",
    build=attention,
    input_shape=(5, 6), output_shape=(5, 6), smallest=(1, 6),
    reference=lambda module, x: reference.attention(module, x)[0], keys=layers("qkv", "proj"),
    rates=("dropout", "attn_dropout"), autocast_dtype=torch.bfloat16, smooth=WITHOUT_THE_FUSED_KERNEL,
    atomics=MEMORY_EFFICIENT,
    laws={
        "dropout statistics": ("test_attention_dropout_is_unbiased_and_leaves_the_returned_weights_alone",
                               "test_dropout_zeroes_elements_of_the_output_and_scales_the_rest"),
        "permutation": ("test_permuted_tokens_give_permuted_output",),
        "softmax": ("test_weights_equal_the_reference_and_leave_the_output_unchanged",
                    "test_output_lies_in_the_hull_of_the_values",
                    "test_true_in_a_mask_means_attend",
                    "test_a_hidden_token_has_no_influence",
                    "test_a_hidden_token_gets_no_gradient",
                    "test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients"),
        "fused equals plain": ("test_weights_equal_the_reference_and_leave_the_output_unchanged",
                               "test_true_in_a_mask_means_attend",
                               "test_both_paths_draw_the_same_dropout_on_a_cpu"),
    },
    exempt=NO_CHANNELS | ALL_ATTEND_TO_ALL | NO_WARP,
    refusals=(
        *wrong_options(attention, "at least 1", dim=[0], num_heads=[0]),
        *wrong_options(attention, RATE, dropout=[-0.1], attn_dropout=[1.0]),
        Refusal("Attention: dim (10) must be divisible by num_heads (3)", lambda: Attention(10, 3)),
        *wrong_shapes(attention, "x", "(B, N, 6)", (5, 6), (2, 5, 7)),
        *wrong_shapes(attention, "context", "(2, M, 6)", (5, 6), (2, 4, 7), (3, 4, 6), x=TOKENS),
        Refusal("Attention: context (2, 4, 6) must have at least 5 tokens if is_causal",
                lambda: attention()(TOKENS, TOKENS[:, :4], is_causal=True)),
        Refusal("Attention: mask (torch.int64) must be boolean (True = attend) or floating point",
                lambda: attention()(TOKENS, mask=torch.ones(2, 3, 5, 5, dtype=torch.int64)), TypeError),
        *(Refusal(f"Attention: mask ({mask!r}) must be a tensor",
                  lambda mask=mask: attention()(TOKENS, mask=mask), TypeError) for mask in ([[True]], 3)),
        *wrong_shapes(attention, "mask", "(2, 3, 5, 5) or 1 in any place",
                      (5, 5), (2, 3, 5), (3, 5, 5), (2, 3, 5, 4), x=TOKENS),
        *wrong_shapes(attention, "mask", "(2, 3, 5, 4) or 1 in any place", (2, 3, 5, 5),
                      x=TOKENS, context=TOKENS[:, :4]),
    ),
)  # fmt: skip

BLOCK = Case(
    name="Block",
    build=block,
    input_shape=(5, 6), output_shape=(5, 6), smallest=(1, 6),
    reference=reference.block, keys=layers(*BLOCK_LAYERS),
    rates=("dropout", "attn_dropout", "stochastic_depth"), smooth=WITHOUT_THE_FUSED_KERNEL, atomics=MEMORY_EFFICIENT,
    laws={
        "dropout statistics": ("test_stochastic_depth_skips_whole_samples_and_scales_the_others",
                               "test_options_reach_the_children"),
        "permutation": ("test_permuted_tokens_give_permuted_output",),
        "softmax": ("test_a_mask_hides_and_weights_come_back",),
        "fused equals plain": ("test_a_mask_hides_and_weights_come_back",),
    },
    exempt=NO_CHANNELS | ALL_ATTEND_TO_ALL | NO_WARP,
    refusals=(
        Refusal("Attention: dim (10) must be divisible by num_heads (3)", lambda: Block(10, 3, mlp_dim=7)),
        Refusal("MLP: mlp_dim (0) must be at least 1", lambda: Block(6, 3, mlp_dim=0)),
        Refusal("Attention: dropout (2.0) must be at least 0 and less than 1", lambda: block(dropout=2.0)),
        *wrong_options(block, RATE, stochastic_depth=[1.0]),
        *wrong_shapes(block, "x", "(B, N, 6)", (5, 6), (2, 5, 7)),
        *wrong_shapes(block, "context", "(2, M, 6)", (5, 6), (2, 4, 7), (3, 4, 6), x=TOKENS),
    ),
)  # fmt: skip

CASES = (
    Case(
        name="LocalizationNet",
        build=partial(LocalizationNet, 2, 5),
        input_shape=(2, 19, 23), output_shape=(5,),
        reference=reference.localization_net, keys=layers("conv1", "conv2", "fc1", "fc2"),
        atomics="adaptive pooling adds up gradients in any order",
        laws={"smallest input": ("test_a_small_image_is_centred_in_eighteen_pixels_of_zeros",)},
        exempt=NO_DROPOUT | NO_TOKENS | NO_WARP | NO_ATTENTION
        | {"second derivatives": "its gradient jumps wherever relu or max pooling switch"},
        refusals=(
            *wrong_options(partial(LocalizationNet), "at least 1", in_channels=[0], num_params=[-1]),
            *wrong_shapes(partial(LocalizationNet), "x", "(B, 3, H, W)", (3, 32, 32), (2, 1, 32, 32)),
        ),
    ),
    SPATIAL_TRANSFORMER,
    *(another_row(  # parameters so small that every image stays in sight
        SPATIAL_TRANSFORMER, f"SpatialTransformer of {type(transform).__name__}",
        build=partial(warped_by, transform, Quarter()),
    ) for transform in (Translation(), Rotation(), Similarity(90, 2, 0.5), Projective(), ThinPlateSpline(2))),
    PATCH_EMBEDDINGS,
    another_row(  # larger than the learned size one way and smaller the other: positions are resampled
        PATCH_EMBEDDINGS, "PatchEmbeddings resized", "smallest input",
        input_shape=(3, 10, 4), output_shape=(11, 5),
        atomics="resampling positions adds up gradients in any order",
    ),
    ATTENTION,
    another_row(  # heads as wide as those of ViT: no fused kernel of CUDA takes any that are narrower than eight
        ATTENTION, "Attention with wide heads", "second derivatives", "forward mode",
        build=partial(Attention, 128, 2), smooth={},
        input_shape=(5, 128), output_shape=(5, 128), smallest=(1, 128),
    ),
    another_row(
        ATTENTION, "Attention to a context",
        build=partial(AttentionToContext, 6, 3), output_shape=(2, 6), smallest=(3, 6),
        reference=lambda module, x: reference.attention(module, x[:, :2], x[:, 2:])[0],
    ),
    Case(
        name="MLP",
        build=mlp,
        input_shape=(3, 5), output_shape=(3, 5), smallest=(5,),
        reference=reference.mlp, keys=layers("fc1", "fc2"),
        rates=("dropout",), autocast_dtype=torch.bfloat16,
        laws={
            "dropout statistics": ("test_dropout_acts_on_the_hidden_layer_and_on_the_output",),
            "permutation": ("test_tokens_are_independent",),
            "locality": ("test_tokens_are_independent",),
        },
        exempt=NO_CHANNELS | NO_WARP | NO_ATTENTION,
        refusals=(
            *wrong_options(mlp, "at least 1", dim=[0], mlp_dim=[-7]),
            *wrong_options(mlp, RATE, dropout=[1.0]),
            *wrong_shapes(mlp, "x", "(..., 5)", (2, 7), ()),
        ),
    ),
    BLOCK,
    another_row(
        BLOCK, "Block to a context",
        build=partial(BlockToContext, 6, 3, mlp_dim=7), output_shape=(2, 6), smallest=(3, 6),
        reference=lambda module, x: reference.block(module, x[:, :2], x[:, 2:]),
    ),
    Case(
        name="Encoder",
        build=encoder,
        input_shape=(3, 4), output_shape=(3, 4), smallest=(1, 4),
        reference=reference.encoder,
        keys=layers(*(f"blocks.{i}.{name}" for i in range(2) for name in BLOCK_LAYERS), "norm"),
        rates=("dropout", "attn_dropout", "stochastic_depth"), smooth=WITHOUT_THE_FUSED_KERNEL,
        atomics=MEMORY_EFFICIENT,
        laws={
            "dropout statistics": ("test_every_block_skips_as_many_branches_as_its_rate_says",
                                   "test_options_reach_every_block"),
            "permutation": ("test_permuted_tokens_give_permuted_output",
                            "test_positions_break_permutation_equivariance"),
            "softmax": ("test_weights_of_every_layer_equal_the_reference_and_leave_the_output_unchanged",
                        "test_hidden_tokens_stay_hidden_through_every_layer",
                        "test_one_mask_serves_every_layer"),
            "fused equals plain": ("test_weights_of_every_layer_equal_the_reference_and_leave_the_output_unchanged",
                                   "test_first_returns_the_first_tokens_of_the_whole_output"),
        },
        exempt=NO_CHANNELS | ALL_ATTEND_TO_ALL | NO_WARP,
        refusals=(
            *wrong_options(encoder, "at least 1", depth=[0]),
            *wrong_options(encoder, RATE, stochastic_depth=[-0.5, 1.0]),
            Refusal("Attention: dim (4) must be divisible by num_heads (3)", lambda: encoder(num_heads=3)),
            *wrong_shapes(encoder, "x", "(B, N, 4)", (3, 4), (2, 3, 5)),
            *(Refusal(f"Encoder: first ({first}) must be at least 1 and at most N (3)",
                      lambda first=first: encoder()(torch.zeros(2, 3, 4), first=first)) for first in (0, 4)),
            *(Refusal(f"Encoder: first ({first!r}) must be an integer",
                      lambda first=first: encoder()(torch.zeros(2, 3, 4), first=first), TypeError)
              for first in (1.5, "a", True)),
            *(Refusal(f"Encoder: mask ({mask!r}) must be a tensor",
                      lambda mask=mask: encoder()(torch.zeros(2, 3, 4), mask=mask), TypeError)
              for mask in ([[True]], 3)),
            *wrong_shapes(encoder, "mask", "(B, num_heads, 3, 3) or 1 in any place", (3, 3), (2, 2, 2, 3), (2, 2, 3, 2),
                          x=torch.zeros(2, 3, 4), first=1),
        ),
    ),
)  # fmt: skip
