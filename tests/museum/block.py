"""Mistakes in a block."""

from torch import nn
from torch.nn import functional as F

from components import Block
from tests.components import test_block as laws
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit

init, forward = Block.__init__, Block.forward


@exhibit(Block.forward, laws.test_a_context_is_normalised_but_not_added)
def raw_context(self, x, context=None, *, mask=None, return_weights=False):
    """The context is not normalised."""
    attended, weights = self.attn(self.norm1(x), context, mask=mask, return_weights=True)
    x = x + attended
    x = x + self.mlp(self.norm2(x))
    return (x, weights) if return_weights else x


@exhibit(Block.forward, laws.test_with_silent_branches_it_is_the_identity)
def no_residual(self, x):
    """No residual around the MLP."""
    x = x + self.attn(self.norm1(x))
    return self.mlp(self.norm2(x))


@exhibit(Block.forward, laws.test_with_silent_branches_it_is_the_identity)
def added_to_itself(self, x):
    """The attention is added to itself, not to its input (kyegomez/BitNet#32)."""
    x = self.attn(self.norm1(x))
    x = x + x
    return x + self.mlp(self.norm2(x))


@exhibit(Block.forward, laws.test_with_silent_branches_it_is_the_identity)
def post_norm(self, x):
    """Post-norm: the residual path itself is normalised."""
    x = self.norm1(x + self.attn(x))
    return self.norm2(x + self.mlp(x))


@exhibit(Block.forward, laws.test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one)
def residual_after_the_norm(self, x):
    """The residual connection starts after the norm."""
    # Howuhh/faster-trajectory-transformer#3, SHI-Labs/Compact-Transformers#25
    x = self.norm1(x)
    x = x + self.attn(x)
    return x + self.mlp(self.norm2(x))


@exhibit(Block.forward, laws.test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one)
def second_residual_from_the_start(self, x):
    """The second residual starts from the input of the first (strutive07/transformer-tensorflow2.0#14)."""
    y = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(y))


@exhibit(Block.forward, contract.test_the_input_is_not_written_to)
def sum_in_place(self, x):
    """The sum is written into the input (callummcdougall/ARENA_3.0#225)."""
    x += self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


@exhibit(Block.forward, contract.test_every_parameter_gets_a_gradient)
def norm_never_called(self, x):
    """A norm is built and never called."""
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(x)


@exhibit(Block.forward, laws.test_each_branch_sees_a_normalised_input_and_is_added_to_a_raw_one)
def one_norm(self, x):
    """One norm for both branches."""
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm1(x))


@exhibit(Block.__init__, laws.test_the_norms_have_the_eps_of_the_original_code)
def eps_of_torch(self, dim, num_heads, **options):
    """LayerNorm with torch's eps, ten times that of the published weights (kornia/kornia#2786)."""
    init(self, dim, num_heads, **options)
    self.norm2 = nn.LayerNorm(dim)


@exhibit(Block.forward, laws.test_a_mask_hides_and_weights_come_back)
def mask_left_behind(self, x, context=None, *, mask=None, return_weights=False):
    """The mask does not reach the attention."""
    return forward(self, x, context, return_weights=return_weights)


@exhibit(Block._skip_samples, contract.test_nothing_is_dropped_in_evaluation, rate="stochastic_depth")
def skipped_in_evaluation(self, branch):
    """Samples skip a branch in evaluation too."""
    return branch * F.dropout(branch.new_ones(len(branch), 1, 1), self.stochastic_depth)


@exhibit(Block._skip_samples, contract.test_training_drops_anew_in_every_sample_and_call, rate="stochastic_depth")
def one_draw(self, branch):
    """One random draw decides for the whole batch."""
    return branch * F.dropout(branch.new_ones(1), self.stochastic_depth, self.training)


@exhibit(Block._skip_samples, laws.test_stochastic_depth_skips_whole_samples_and_scales_the_others)
def tokens_skip(self, branch):
    """Single tokens skip a branch instead of whole samples (microsoft/VideoX#85)."""
    return branch * F.dropout(branch.new_ones(*branch.shape[:2], 1), self.stochastic_depth, self.training)
