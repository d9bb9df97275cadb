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


@exhibit(LocalizationNet.reset_parameters, laws.test_it_starts_at_the_identity_for_any_input)
def third_one(self):
    """The bias of the identity has a third one, which shears every image (keras-team/keras#478)."""
    reset_parameters(self)
    self.fc2.bias.data[:6] = torch.tensor([1, 1, 0, 0, 1, 0])


@exhibit(LocalizationNet.reset_parameters, laws.test_it_starts_at_the_identity_for_any_input)
def one_too_early(self):
    """The second one of the identity is one place too early."""
    reset_parameters(self)
    self.fc2.bias.data[:6] = torch.tensor([1, 0, 0, 1, 0, 0])


@exhibit(LocalizationNet.reset_parameters, laws.test_it_starts_at_the_identity_for_any_input)
def random_head(self):
    """The last layer keeps its random weights: training starts from a random warp."""
    # kevinzakka/spatial-transformer-network#10
    drawn = self.fc2.weight.detach().clone()
    reset_parameters(self)
    self.fc2.weight.data.copy_(drawn)


@exhibit(LocalizationNet.reset_parameters, laws.test_other_parametrisations_start_at_zero)
def identity_for_all(self):
    """The identity of an affine matrix is set for parameters that are none."""
    reset_parameters(self)
    self.fc2.bias.data[::4] = 1


@exhibit(average_to, laws.test_an_image_of_any_size_equals_the_reference, error=(AssertionError, RuntimeError))
def one_image_size(x, side):
    """The flattened size is fixed for one image size, and larger images become several rows of theta."""
    # kevinzakka/spatial-transformer-network#2, oarriaga/STN.keras#11
    return x.reshape(-1, 10 * side * side)


@exhibit(LocalizationNet.forward, contract.test_the_output_equals_an_independent_float64_reference)
def rectified_output(self, x):
    """A rectifier on the output, so no number of theta can be negative."""
    return F.relu(forward(self, x))


@exhibit(without_autocast, laws.test_theta_stays_in_float32_under_autocast)
def autocast_rounds(x):
    """Autocast rounds theta to half precision."""
    return nullcontext()


@exhibit(at_least, laws.test_a_small_image_is_centred_in_eighteen_pixels_of_zeros)
def in_the_corner(x, side):
    """A small image is padded at one side instead of both."""
    return F.pad(x, (0, max(0, side - x.shape[3]), 0, max(0, side - x.shape[2])))
