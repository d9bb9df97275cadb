"""Mistakes in a localization network."""

from contextlib import nullcontext

import torch
from torch.nn import functional as F

from components import LocalizationNet
from components.localization_net import at_least, average_to, without_autocast
from tests.components import test_localization_net as laws
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit

forward, reset_parameters = LocalizationNet.forward, LocalizationNet.reset_parameters


@exhibit(LocalizationNet.reset_parameters, laws.test_it_starts_at_the_identity_whatever_the_input)
def third_one(self):
    """A third one in the bias of the identity, which shears every image (keras-team/keras#478)."""
    reset_parameters(self)
    self.fc2.bias.data[:6] = torch.tensor([1, 1, 0, 0, 1, 0])


@exhibit(LocalizationNet.reset_parameters, laws.test_it_starts_at_the_identity_whatever_the_input)
def one_too_early(self):
    """The second one of the identity a place too early."""
    reset_parameters(self)
    self.fc2.bias.data[:6] = torch.tensor([1, 0, 0, 1, 0, 0])


@exhibit(LocalizationNet.reset_parameters, laws.test_it_starts_at_the_identity_whatever_the_input)
def random_head(self):
    """The last layer keeps its random weights: training starts from a random warp."""
    # kevinzakka/spatial-transformer-network#10
    drawn = self.fc2.weight.detach().clone()
    reset_parameters(self)
    self.fc2.weight.data.copy_(drawn)


@exhibit(LocalizationNet.reset_parameters, laws.test_other_parametrisations_start_at_zero)
def identity_for_all(self):
    """An identity for parameters that are not an affine matrix."""
    reset_parameters(self)
    self.fc2.bias.data[::4] = 1


@exhibit(
    average_to, laws.test_an_image_of_any_size_gives_theta_through_the_same_weights,
    error=(AssertionError, RuntimeError),
)  # fmt: skip
def one_image_size(x, side):
    """The flattened size of one image size, and larger images become several rows of theta."""
    # kevinzakka/spatial-transformer-network#2, oarriaga/STN.keras#11
    return x.reshape(-1, 10 * side * side)


@exhibit(LocalizationNet.forward, contract.test_the_value_is_that_of_an_independent_float64_reference)
def rectified_output(self, x):
    """A rectifier on the output: nothing ever moves left, up or turns back."""
    return F.relu(forward(self, x))


@exhibit(without_autocast, laws.test_theta_keeps_float32_under_autocast)
def autocast_rounds(x):
    """Autocast rounds theta to half precision."""
    return nullcontext()


@exhibit(at_least, laws.test_a_small_image_is_centred_in_eighteen_pixels_of_zeros)
def in_the_corner(x, side):
    """A small image in the corner of its frame instead of the middle."""
    return F.pad(x, (0, max(0, side - x.shape[3]), 0, max(0, side - x.shape[2])))
