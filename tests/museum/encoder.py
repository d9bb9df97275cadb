"""Mistakes in an encoder."""

import torch
from torch.utils.checkpoint import checkpoint

from components import Encoder
from tests.components import test_encoder as laws
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit

init, forward = Encoder.__init__, Encoder.forward


@exhibit(Encoder.forward, laws.test_first_returns_the_first_tokens_of_the_whole_output,
         error=(AssertionError, ValueError), checkpointing=False)  # fmt: skip
def first_in_every_block(self, x, mask, first=None, return_weights=False):
    """Every block, not only the last, computes the first tokens alone."""
    if first is None or return_weights:
        return forward(self, x, mask=mask, first=first, return_weights=return_weights)
    for block in self.blocks:
        x = block(x[:, :first], x, mask=mask[:, :, :first])
    return self.norm(x)


@exhibit(Encoder.forward, laws.test_every_output_token_is_normalised)
def no_last_norm(self, x):
    """No norm after the last block (kornia/kornia#2786)."""
    for block in self.blocks:
        x = block(x)
    return x


@exhibit(Encoder.forward, contract.test_every_parameter_gets_a_gradient)
def first_block_again(self, x):
    """The first block is applied again and again, the others never."""
    for _ in self.blocks:
        x = self.blocks[0](x)
    return self.norm(x)


@exhibit(Encoder.__init__, laws.test_every_block_starts_with_different_weights)
def copies_of_the_first(self, dim, depth, **options):
    """All blocks start as copies of the first (pytorch/pytorch#72253, pytorch/pytorch#86274)."""
    init(self, dim, depth, **options)
    for block in self.blocks:
        block.load_state_dict(self.blocks[0].state_dict())


@exhibit(Encoder.__init__, contract.test_weights_move_to_a_fresh_instance_by_frozen_names)
def plain_list(self, dim, depth, **options):
    """Blocks in a plain list, invisible to optimizers and checkpoints."""
    # maruya24/pytorch_robotics_transformer#3, twitter/the-algorithm-ml#136
    init(self, dim, depth, **options)
    self.blocks = [*self._modules.pop("blocks")]


@exhibit(Encoder.forward, laws.test_weights_of_every_layer_equal_the_reference_and_leave_the_output_unchanged)
def weights_of_the_last(self, x, return_weights=False):
    """Only the weights of the last layer are returned (huggingface/pytorch-image-models#1584)."""
    out, weights = forward(self, x, return_weights=True)
    return (out, weights[:, -1:]) if return_weights else out


@exhibit(Encoder.forward, laws.test_one_mask_serves_every_layer)
def mask_of_the_first(self, x, mask, return_weights):
    """Only the first block uses the mask."""
    attention = []
    for block in self.blocks:
        x, weights = block(x, mask=None if attention else mask, return_weights=True)
        attention.append(weights)
    return self.norm(x), torch.stack(attention, 1)


@exhibit(Encoder.__init__, laws.test_stochastic_depth_grows_linearly_to_its_value)
def one_rate(self, dim, depth, *, stochastic_depth=0.0, **options):
    """Every block is skipped at the same rate as the last."""
    init(self, dim, depth, stochastic_depth=stochastic_depth, **options)
    for block in self.blocks:
        block.stochastic_depth = stochastic_depth


@exhibit(Encoder.forward, laws.test_checkpointing_changes_no_number, training=False, return_weights=False)
def mask_not_recomputed(self, x, mask=None, return_weights=False):
    """Checkpointing drops the mask."""
    mask = None if self.checkpointing else mask
    return forward(self, x, mask=mask, return_weights=return_weights)


@exhibit(Encoder.forward, laws.test_checkpointing_changes_no_number, training=True, return_weights=False)
def another_draw(self, x, **options):
    """Checkpointing draws dropout anew when it recomputes, so the gradient belongs to another draw."""
    # allenai/OLMo-core#828, openai/guided-diffusion#167
    if not self.checkpointing:
        return forward(self, x, **options)
    for block in self.blocks:
        x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, **options)
    return self.norm(x)


@exhibit(Encoder.__init__, laws.test_checkpointing_keeps_only_the_input_of_every_block)
def everything_kept(self, dim, depth, *, checkpointing=False, **options):
    """Checkpointing that keeps every activation."""
    init(self, dim, depth, **options)
