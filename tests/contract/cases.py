"""One row a component: how to build it, what to feed it, what it must return, what it must refuse.

``test_contract.py`` runs every item of ``contract.py`` for every row, so that a new component costs one row. Rows are
small and have prime, unequal sizes: no swapped axis passes unseen, and a full Jacobian stays affordable.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings, SpatialTransformer
from tests import reference
from tests.support.strategies import generator


@dataclass(frozen=True)
class Refusal:
    """A call that must raise ``error`` with a message that contains ``message`` to the letter."""

    call: Callable[[], object]
    error: type[Exception]
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Case:
    """One component under contract.

    Args:
        name: The component, and in what its other rows differ from its first.
        build: Makes the module; takes ``device``, ``dtype`` and the options in ``rates``.
        input_shape: Shape of one input, without the batch.
        output_shape: Shape of one output, from the configuration.
        reference: The output in float64, computed from module and input without using the component's own formula.
        keys: Names in the state_dict; they are frozen, files depend on them.
        refusals: Bad configurations and inputs.
        rates: The options that are a probability of dropping something in training.
        autocast_dtype: Type of the output where autocast computes in bfloat16.
        smallest: Shape of the smallest input, without the batch.
        smooth: Arguments of the call that has second derivatives and a forward mode, where torch lacks them otherwise.
        atomics: Why gradients on CUDA differ in their last bits from run to run, where they do.
        laws: Items of the contract that have tests of their own in ``test_<component>.py``, with their names.
        exempt: Items of the contract that do not apply, each with the reason in words.
        device: Where modules and inputs are; ``--device`` decides.
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
        """Build it with every parameter drawn at random: heads that start at zero would hide what lies below them."""
        module = self.build(**({"device": self.device} | options))
        draw = generator(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
        return module

    def input(self, batch: int = 3, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal inputs."""
        x = torch.randn((batch, *self.input_shape), generator=generator(seed), dtype=torch.float64)
        return x.to(self.device, dtype)

    def expected(self, module: nn.Module, x: Tensor) -> Tensor:
        """What the reference says; it computes on the CPU."""
        return self.reference(copy.deepcopy(module).cpu(), x.detach().cpu())


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


CUDNN = "cuDNN may add up the gradients of a kernel in any order"
MEMORY_EFFICIENT = "the memory-efficient kernel may add up gradients in any order"
NO_TOKENS = "its output is no sequence of tokens"
NO_ATTENTION = "it holds no attention"
ALL_SEE_ALL = "every token sees every other"
NO_WARP = "it warps nothing"
NO_CHANNELS = "its input has no axis of channels"
DROPS_NOTHING = "it drops nothing"
ANOTHER_ROW = "the row of the learned size has it"
NARROW_ROW = "the row of narrow heads has it"
SELF_ATTENTION_ROW = "the row of self-attention has it"
WITHOUT_THE_FUSED_KERNEL = {"return_weights": True}
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
MASK_SIZES = "(2, 3, 5, 5) or 1 in any place"


class TwoAsk:
    """The first two tokens are the input, the others the context."""

    def forward(self, x: Tensor, **options: object) -> Tensor:
        return super().forward(x[:, :2], x[:, 2:], **options)


class AttentionToContext(TwoAsk, Attention):
    """Cross-attention as a function of one tensor."""


class BlockWithContext(TwoAsk, Block):
    """The same for a block."""


def attend(mask: Tensor, keys: int = 5) -> object:
    """Three heads on five tokens of width six."""
    return Attention(6, 3)(torch.zeros(2, 5, 6), torch.zeros(2, keys, 6), mask=mask)


def encode_first(mask: Tensor) -> object:
    """The only block sees no more of the mask than its first row."""
    return Encoder(4, 1, num_heads=2, mlp_dim=5)(torch.zeros(2, 3, 4), mask=mask, first=1)


CASES = (
    Case(
        name="LocalizationNet",
        build=lambda **factory: LocalizationNet(2, 5, **factory),
        input_shape=(2, 19, 23),
        output_shape=(5,),
        reference=reference.localization_net,
        keys=layers("conv1", "conv2", "fc1", "fc2"),
        atomics="adaptive pooling adds up gradients in any order",
        laws={"smallest input": ("test_a_small_image_is_centred_in_eighteen_pixels_of_zeros",)},
        exempt={
            "second derivatives": "its gradient jumps wherever relu or max pooling switch",
            "dropout statistics": DROPS_NOTHING,
            "permutation": NO_TOKENS,
            "locality": NO_TOKENS,
            "geometry": NO_WARP,
            "softmax": NO_ATTENTION,
            "fused equals plain": NO_ATTENTION,
        },
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
        atomics="bilinear sampling adds up gradients in any order",
        laws={
            "smallest input": ("test_identity_returns_the_input", "test_any_warp_equals_a_loop_over_pixels"),
            "geometry": (
                "test_identity_returns_the_input",
                "test_identity_at_32_pixels_in_float32_is_exact_to_the_bit_without_corners",
                "test_identity_at_another_size_is_bilinear_resizing",
                "test_a_shift_by_whole_pixels_is_exact",
                "test_quarter_turns_are_rot90",
                "test_two_warps_compose_as_matrices",
                "test_padding_decides_what_lies_outside_the_frame",
            ),
        },
        exempt={
            "forward mode": "torch has none of grid_sample",
            "dropout statistics": DROPS_NOTHING,
            "permutation": NO_TOKENS,
            "locality": NO_TOKENS,
            "softmax": NO_ATTENTION,
            "fused equals plain": NO_ATTENTION,
        },
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
            Refusal(lambda: SpatialTransformer(nn.Identity())(torch.zeros(2, 0, 8, 8)), ValueError,
                    "SpatialTransformer: input (2, 0, 8, 8) must be (B, C, H, W) with C, H, W at least 1"),
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
        smallest=(3, 2, 2),
        atomics=CUDNN,
        laws={
            "dropout statistics": ("test_dropout_acts_on_class_token_patches_and_positions",),
            "permutation": ("test_permuted_patches_give_permuted_tokens_until_positions_are_added",),
            "locality": (
                "test_changing_one_patch_changes_one_token",
                "test_the_class_token_comes_first_and_sees_no_pixel",
            ),
        },
        exempt={"geometry": NO_WARP, "softmax": NO_ATTENTION, "fused equals plain": NO_ATTENTION},
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
        atomics="resampling positions adds up gradients in any order",
        exempt={
            "smallest input": ANOTHER_ROW,
            "dropout statistics": ANOTHER_ROW,
            "permutation": ANOTHER_ROW,
            "locality": ANOTHER_ROW,
            "geometry": NO_WARP,
            "softmax": NO_ATTENTION,
            "fused equals plain": NO_ATTENTION,
            "refusals": ANOTHER_ROW,
        },
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
        smallest=(1, 6),
        smooth=WITHOUT_THE_FUSED_KERNEL,
        atomics=MEMORY_EFFICIENT,
        laws={
            "dropout statistics": (
                "test_attention_dropout_is_unbiased_and_leaves_the_returned_weights_alone",
                "test_dropout_zeroes_elements_of_the_output_and_scales_the_rest",
            ),
            "permutation": ("test_permuted_tokens_give_permuted_output",),
            "softmax": (
                "test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was",
                "test_output_lies_in_the_hull_of_the_values",
                "test_true_in_a_mask_means_attend",
                "test_a_hidden_token_has_no_influence_whatever_it_holds",
                "test_a_hidden_token_gets_no_gradient",
                "test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients",
            ),
            "fused equals plain": (
                "test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was",
                "test_true_in_a_mask_means_attend",
                "test_both_paths_draw_the_same_dropout_on_a_cpu",
            ),
        },
        exempt={"channels last": NO_CHANNELS, "locality": ALL_SEE_ALL, "geometry": NO_WARP},
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
            Refusal(lambda: Attention(6, 3)(torch.zeros(2, 5, 6), torch.zeros(5, 6)), ValueError,
                    "Attention: context (5, 6) must be (2, M, 6)"),
            Refusal(lambda: Attention(6, 3)(torch.zeros(2, 5, 6), torch.zeros(2, 4, 7)), ValueError,
                    "Attention: context (2, 4, 7) must be (2, M, 6)"),
            Refusal(lambda: Attention(6, 3)(torch.zeros(2, 5, 6), torch.zeros(3, 4, 6)), ValueError,
                    "Attention: context (3, 4, 6) must be (2, M, 6)"),
            Refusal(lambda: attend(torch.ones(2, 3, 5, 5, dtype=torch.int64)), TypeError,
                    "Attention: mask (torch.int64) must be boolean (True = attend) or floating point"),
            Refusal(lambda: attend(torch.ones(5, 5)), ValueError, f"Attention: mask (5, 5) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(2, 3, 5)), ValueError, f"Attention: mask (2, 3, 5) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(3, 5, 5)), ValueError, f"Attention: mask (3, 5, 5) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(2, 3, 5, 4)), ValueError,
                    f"Attention: mask (2, 3, 5, 4) must be {MASK_SIZES}"),
            Refusal(lambda: attend(torch.ones(2, 3, 5, 5), keys=4), ValueError,
                    "Attention: mask (2, 3, 5, 5) must be (2, 3, 5, 4) or 1 in any place"),
        ),
    ),
    Case(  # heads as wide as those of ViT: no fused kernel of CUDA takes any that are narrower than eight
        name="Attention of wide heads",
        build=lambda **options: Attention(128, 2, **options),
        input_shape=(5, 128),
        output_shape=(5, 128),
        reference=lambda module, x: reference.attention(module, x)[0],
        keys=layers("qkv", "proj"),
        rates=("dropout", "attn_dropout"),
        autocast_dtype=torch.bfloat16,
        smallest=(1, 128),
        atomics=MEMORY_EFFICIENT,
        exempt={
            "second derivatives": NARROW_ROW,
            "forward mode": NARROW_ROW,
            "dropout statistics": NARROW_ROW,
            "permutation": NARROW_ROW,
            "softmax": NARROW_ROW,
            "fused equals plain": NARROW_ROW,
            "refusals": NARROW_ROW,
            "channels last": NO_CHANNELS,
            "locality": ALL_SEE_ALL,
            "geometry": NO_WARP,
        },
        refusals=(),
    ),
    Case(
        name="Attention to a context",
        build=lambda **options: AttentionToContext(6, 3, **options),
        input_shape=(5, 6),
        output_shape=(2, 6),
        reference=lambda module, x: reference.attention(module, x[:, :2], x[:, 2:])[0],
        keys=layers("qkv", "proj"),
        rates=("dropout", "attn_dropout"),
        autocast_dtype=torch.bfloat16,
        smallest=(3, 6),
        smooth=WITHOUT_THE_FUSED_KERNEL,
        atomics=MEMORY_EFFICIENT,
        exempt={
            "dropout statistics": SELF_ATTENTION_ROW,
            "permutation": SELF_ATTENTION_ROW,
            "softmax": SELF_ATTENTION_ROW,
            "fused equals plain": SELF_ATTENTION_ROW,
            "refusals": SELF_ATTENTION_ROW,
            "channels last": NO_CHANNELS,
            "locality": ALL_SEE_ALL,
            "geometry": NO_WARP,
        },
        refusals=(),
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
        smallest=(5,),
        laws={
            "dropout statistics": ("test_dropout_acts_on_the_hidden_layer_and_on_the_output",),
            "permutation": ("test_tokens_do_not_know_each_other",),
            "locality": ("test_tokens_do_not_know_each_other",),
        },
        exempt={
            "channels last": NO_CHANNELS,
            "geometry": NO_WARP,
            "softmax": NO_ATTENTION,
            "fused equals plain": NO_ATTENTION,
        },
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
        smallest=(1, 6),
        smooth=WITHOUT_THE_FUSED_KERNEL,
        atomics=MEMORY_EFFICIENT,
        laws={
            "dropout statistics": (
                "test_stochastic_depth_skips_whole_samples_and_scales_the_others",
                "test_options_reach_the_children",
            ),
            "permutation": ("test_permuted_tokens_give_permuted_output",),
            "softmax": ("test_a_mask_hides_and_weights_come_back",),
            "fused equals plain": ("test_a_mask_hides_and_weights_come_back",),
        },
        exempt={"channels last": NO_CHANNELS, "locality": ALL_SEE_ALL, "geometry": NO_WARP},
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
            Refusal(lambda: Block(6, 3, mlp_dim=7)(torch.zeros(2, 5, 6), torch.zeros(5, 6)), ValueError,
                    "Block: context (5, 6) must be (2, M, 6)"),
            Refusal(lambda: Block(6, 3, mlp_dim=7)(torch.zeros(2, 5, 6), torch.zeros(2, 4, 7)), ValueError,
                    "Block: context (2, 4, 7) must be (2, M, 6)"),
            Refusal(lambda: Block(6, 3, mlp_dim=7)(torch.zeros(2, 5, 6), torch.zeros(3, 4, 6)), ValueError,
                    "Block: context (3, 4, 6) must be (2, M, 6)"),
        ),
    ),
    Case(
        name="Block to a context",
        build=lambda **options: BlockWithContext(6, 3, mlp_dim=7, **options),
        input_shape=(5, 6),
        output_shape=(2, 6),
        reference=lambda module, x: reference.block(module, x[:, :2], x[:, 2:]),
        keys=layers(*BLOCK),
        rates=("dropout", "attn_dropout", "stochastic_depth"),
        smallest=(3, 6),
        smooth=WITHOUT_THE_FUSED_KERNEL,
        atomics=MEMORY_EFFICIENT,
        exempt={
            "dropout statistics": SELF_ATTENTION_ROW,
            "permutation": SELF_ATTENTION_ROW,
            "softmax": SELF_ATTENTION_ROW,
            "fused equals plain": SELF_ATTENTION_ROW,
            "refusals": SELF_ATTENTION_ROW,
            "channels last": NO_CHANNELS,
            "locality": ALL_SEE_ALL,
            "geometry": NO_WARP,
        },
        refusals=(),
    ),
    Case(
        name="Encoder",
        build=lambda **options: Encoder(4, 2, num_heads=2, mlp_dim=5, **options),
        input_shape=(3, 4),
        output_shape=(3, 4),
        reference=reference.encoder,
        keys=layers(*(f"blocks.{i}.{name}" for i in range(2) for name in BLOCK), "norm"),
        rates=("dropout", "attn_dropout", "stochastic_depth"),
        smallest=(1, 4),
        smooth=WITHOUT_THE_FUSED_KERNEL,
        atomics=MEMORY_EFFICIENT,
        laws={
            "dropout statistics": (
                "test_stochastic_depth_grows_linearly_to_its_value",
                "test_options_reach_every_block",
            ),
            "permutation": (
                "test_permuted_tokens_give_permuted_output",
                "test_positions_end_the_permutation_of_the_output",
            ),
            "softmax": (
                "test_weights_of_every_layer_come_back_and_leave_the_output_as_it_was",
                "test_hidden_tokens_stay_hidden_through_every_layer",
                "test_one_mask_serves_every_layer",
            ),
            "fused equals plain": ("test_weights_of_every_layer_come_back_and_leave_the_output_as_it_was",),
        },
        exempt={"channels last": NO_CHANNELS, "locality": ALL_SEE_ALL, "geometry": NO_WARP},
        refusals=(
            Refusal(lambda: Encoder(4, 0, num_heads=2, mlp_dim=5), ValueError, "Encoder: depth (0) must be at least 1"),
            Refusal(lambda: Encoder(4, 2, num_heads=3, mlp_dim=5), ValueError,
                    "Attention: dim (4) must be divisible by num_heads (3)"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5, stochastic_depth=-0.5), ValueError,
                    "Encoder: stochastic_depth (-0.5) must be at least 0 and less than 1"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5, stochastic_depth=1.0), ValueError,
                    "Encoder: stochastic_depth (1.0) must be at least 0 and less than 1"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5)(torch.zeros(3, 4)), ValueError,
                    "Encoder: input (3, 4) must be (B, N, 4)"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5)(torch.zeros(2, 3, 5)), ValueError,
                    "Encoder: input (2, 3, 5) must be (B, N, 4)"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5)(torch.zeros(2, 3, 4), first=0), ValueError,
                    "Encoder: first (0) must be at least 1 and at most N (3)"),
            Refusal(lambda: Encoder(4, 2, num_heads=2, mlp_dim=5)(torch.zeros(2, 3, 4), first=4), ValueError,
                    "Encoder: first (4) must be at least 1 and at most N (3)"),
            Refusal(lambda: encode_first(torch.ones(3, 3)), ValueError,
                    "Encoder: mask (3, 3) must be (B, num_heads, 3, 3) or 1 in any place"),
            Refusal(lambda: encode_first(torch.ones(2, 2, 2, 3)), ValueError,
                    "Encoder: mask (2, 2, 2, 3) must be (B, num_heads, 3, 3) or 1 in any place"),
        ),
    ),
)  # fmt: skip
