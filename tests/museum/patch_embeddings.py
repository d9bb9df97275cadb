"""Mistakes in patch embeddings."""

import math

import torch
from einops import EinopsError, rearrange
from torch.nn import functional as F

from components import PatchEmbeddings
from components.patch_embeddings import is_plain, resize_pos_embed
from tests.components import test_patch_embeddings as laws
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit

init, forward = PatchEmbeddings.__init__, PatchEmbeddings.forward


def patches(self, x):
    """One token per patch: (B, N, D)."""
    return self.proj(x).flatten(2).mT


def tokens(self, patches):
    """The patches behind the class token."""
    return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1)


def positions(self, x):
    """The positions of the tokens of an image."""
    grid = (x.shape[2] // self.patch_size, x.shape[3] // self.patch_size)
    return resize_pos_embed(self.pos_embed, self.grid, grid, interpolation=self.interpolation)


def resample(pos_embed, rows, **options):
    """Positions of a grid with this number of rows on another grid; the first position is kept."""
    cells = rearrange(pos_embed[:, 1:], "b (h w) d -> b d h w", h=rows)
    cells = F.interpolate(cells, mode="bicubic", **options)
    return torch.cat([pos_embed[:, :1], cells.flatten(2).mT], 1)


def without_mistake(self, x):
    """The correct computation, which most exhibits change in one place."""
    return self.dropout(tokens(self, patches(self, x)) + positions(self, x))


@exhibit(PatchEmbeddings.forward, laws.test_the_class_token_comes_first_and_depends_on_no_pixel)
def class_token_last(self, x):
    """The class token comes last."""
    every = torch.cat([patches(self, x), self.cls_token.expand(len(x), -1, -1)], 1)
    return self.dropout(every + positions(self, x))


@exhibit(PatchEmbeddings.forward, laws.test_the_class_token_comes_first_and_depends_on_no_pixel)
def class_token_nowhere(self, x):
    """The class token gets no position (labmlai/annotated_deep_learning_paper_implementations#221)."""
    placed = patches(self, x) + positions(self, x)[:, 1:]
    return self.dropout(tokens(self, placed))


@exhibit(PatchEmbeddings.forward, laws.test_permuted_patches_give_permuted_tokens_until_positions_are_added)
def no_positions(self, x):
    """Positions are not added at all."""
    return self.dropout(tokens(self, patches(self, x)))


@exhibit(PatchEmbeddings.forward, laws.test_changing_one_patch_changes_one_token)
def patches_by_column(self, x):
    """Patches are read column by column."""
    by_column = self.proj(x).mT.flatten(2).mT
    return self.dropout(tokens(self, by_column) + positions(self, x))


@exhibit(resize_pos_embed, laws.test_any_image_of_whole_patches_equals_the_reference)
def width_before_height(pos_embed, old, new, **options):
    """Height and width are swapped, which square images hide (facebookresearch/dinov2#582)."""
    return resize_pos_embed(pos_embed, old, (new[1], new[0]), **options)


@exhibit(is_plain, laws.test_a_projection_with_other_options_is_the_one_that_is_used,
         options={"kernel_size": (2, 8), "stride": 4, "padding": (0, 2)})  # fmt: skip
def options_of_the_projection_ignored(layer, patch_size):
    """The weight of a projection is read, but not where it reads the image."""
    return True


@exhibit(PatchEmbeddings.forward, laws.test_the_projection_equals_its_convolution)
def pixels_by_column(self, x):
    """The pixels of a patch are read column by column."""
    pixels = F.unfold(x.mT, self.patch_size, stride=self.patch_size)
    pixels = rearrange(pixels, "b c (w h) -> b (h w) c", h=x.shape[2] // self.patch_size)
    return tokens(self, F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)) + positions(self, x)


@exhibit(resize_pos_embed, laws.test_resized_positions_have_the_exact_length_for_every_grid, error=(EinopsError,),
         old=(5, 9))  # fmt: skip
def square(pos_embed, old, new, **options):
    """The learned grid of positions is assumed to be square."""
    # huggingface/pytorch-image-models#2317, huggingface/transformers#32410, facebookresearch/dinov2#506
    return resample(pos_embed, math.isqrt(old[0] * old[1]), size=new)


@exhibit(resize_pos_embed, laws.test_resized_positions_have_the_exact_length_for_every_grid, old=(37, 37))
def rounded_factor(pos_embed, old, new, **options):
    """Resized by a factor, whose rounding loses a row (facebookresearch/dinov2#378, facebookresearch/dino#8)."""
    return resample(pos_embed, old[0], scale_factor=(new[0] / old[0], new[1] / old[1]))


@exhibit(resize_pos_embed, laws.test_a_grid_of_the_same_length_is_another_grid)
def same_length(pos_embed, old, new, **options):
    """Only the lengths of grids are compared: 8x2 passes for 4x4 (timm/layers/pos_embed.py)."""
    if math.prod(old) == math.prod(new):
        return pos_embed
    return resize_pos_embed(pos_embed, old, new, **options)


@exhibit(PatchEmbeddings.forward, laws.test_a_grid_of_the_same_length_is_another_grid)
def positions_from_the_front(self, x):
    """The first positions are used, as many as there are tokens: wrong places in two dimensions."""
    # vit_pytorch/vit.py, pytorch/vision#5025
    every = tokens(self, patches(self, x))
    return self.dropout(every + self.pos_embed[:, : every.shape[1]])


@exhibit(resize_pos_embed, laws.test_positions_that_do_not_fit_their_grid_are_refused, error=(EinopsError,),
         shape=(1, 196, 8), options={}, message=r"pos_embed \(1, 196, 8\) must be .*")  # fmt: skip
def class_token_assumed(pos_embed, old, new, **options):
    """A grid without a class token is read as one with it (google-research/vision_transformer#317)."""
    return resample(pos_embed, old[0], size=new)


@exhibit(resize_pos_embed, laws.test_each_interpolation_equals_the_reference, interpolation="bilinear")
def corners_aligned(pos_embed, old, new, *, prefix=1, interpolation="bicubic-antialias"):
    """Corners are aligned for positions that were learned without (ggml-org/llama.cpp#25781)."""
    interpolation = interpolation.replace("bilinear", "bilinear-corners")
    return resize_pos_embed(pos_embed, old, new, prefix=prefix, interpolation=interpolation)


@exhibit(resize_pos_embed, laws.test_half_precision_positions_are_resampled_in_float32, interpolation="bicubic",
         dtype=torch.bfloat16)  # fmt: skip
def resampled_in_half_precision(pos_embed, old, new, **options):
    """Positions are resampled in half precision."""
    return resample(pos_embed, old[0], size=new)


@exhibit(resize_pos_embed, laws.test_an_exported_graph_serves_every_image_size, example=(4, 4))
def size_of_the_example(pos_embed, old, new, **options):
    """An exported graph never resizes because its example needed no resizing (facebookresearch/dinov2#216)."""
    if old == new:
        return pos_embed
    return resize_pos_embed(pos_embed, old, new, **options)


@exhibit(PatchEmbeddings.__init__, contract.test_weights_move_to_a_fresh_instance_by_frozen_names)
def positions_not_saved(self, *sizes, **options):
    """Positions are a plain tensor, which checkpoints do not contain (paninski-lab/lightning-pose#351)."""
    init(self, *sizes, **options)
    self.pos_embed = self._parameters.pop("pos_embed").detach()


@exhibit(PatchEmbeddings.__init__, contract.test_moving_a_module_moves_every_tensor, factory={"dtype": torch.bfloat16})
def class_token_left_behind(self, *sizes, **options):
    """The class token is a plain tensor, which .to() leaves behind (lyuwenyu/RT-DETR#677)."""
    init(self, *sizes, **options)
    self.cls_token = self._parameters.pop("cls_token").detach()


@exhibit(PatchEmbeddings.forward, laws.test_dropout_acts_on_class_token_patches_and_positions)
def dropout_too_early(self, x):
    """Dropout is applied before positions are added."""
    return self.dropout(tokens(self, patches(self, x))) + positions(self, x)
