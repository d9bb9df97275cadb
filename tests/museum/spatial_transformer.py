"""Mistakes in a spatial transformer."""

import torch
from torch.nn import functional as F

from components import SpatialTransformer
from components.transforms import Affine, Similarity, affine_grid
from tests.components import test_spatial_transformer as laws
from tests.components import test_transforms as transform_laws
from tests.contract import test_contract as contract
from tests.museum.exhibits import exhibit

init, forward = SpatialTransformer.__init__, SpatialTransformer.forward


def warp(self, x, change=lambda theta: theta, **options):
    """The correct forward pass, except for a change of theta or of the sampling."""
    theta = change(self.localization(x).reshape(-1, 2, 3))
    grid = affine_grid(theta, *(self.output_size or x.shape[2:]), align_corners=self.align_corners)
    return F.grid_sample(x, grid, padding_mode=self.padding_mode, align_corners=self.align_corners, **options)


def without_mistake(self, x):
    """The correct computation, which most exhibits change in one place."""
    return warp(self, x)


@exhibit(SpatialTransformer.__init__, laws.test_identity_at_another_size_is_bilinear_resizing, align_corners=False)
def corners_always_aligned(self, localization, **options):
    """Corners are always aligned: the identity is right as long as no size changes (kornia/kornia#3945)."""
    init(self, localization, **options)
    self.align_corners = True


@exhibit(SpatialTransformer.forward, laws.test_theta_is_returned_on_request_from_either_shape)
def column_by_column(self, x, return_theta=False):
    """The six numbers of theta are read column by column."""
    theta = forward(self, x, return_theta=True)[1].reshape(-1, 3, 2).mT
    return (warp(self, x, lambda _: theta), theta) if return_theta else warp(self, x, lambda _: theta)


@exhibit(SpatialTransformer.__init__, contract.test_the_output_shape_follows_from_the_configuration, batch=5)
def width_before_height(self, localization, **options):
    """Width comes before height in the output size."""
    init(self, localization, **options)
    self.output_size = self.output_size[::-1]


@exhibit(SpatialTransformer.forward, laws.test_a_shift_by_whole_pixels_is_exact, align_corners=True)
def image_not_warped(self, x, return_theta=False):
    """The image is returned without the warp (kevinzakka/spatial-transformer-network#3)."""
    _, theta = forward(self, x, return_theta=True)
    return (x, theta) if return_theta else x


@exhibit(SpatialTransformer.forward, contract.test_every_parameter_gets_a_gradient)
def nearest_pixel(self, x):
    """Nearest-neighbour sampling has no gradient: the localization never learns."""
    return warp(self, x, mode="nearest")


@exhibit(SpatialTransformer.forward, laws.test_half_precision_images_are_sampled_in_float32)
def coordinates_in_half_precision(self, x):
    """Coordinates have the half precision of the image (pytorch/pytorch#89836, pytorch/pytorch#96586)."""
    return warp(self, x, lambda theta: theta.to(x.dtype))


@exhibit(SpatialTransformer.forward, laws.test_half_precision_images_are_sampled_in_float32, error=(RuntimeError,))
def different_types(self, x):
    """Image and grid have different dtypes, which torch refuses (pytorch/pytorch#94733)."""
    return warp(self, x, lambda theta: theta.float())


@exhibit(SpatialTransformer.forward, laws.test_autocast_changes_no_bit_of_a_warp, transform=Affine())
def image_in_the_autocast_type(self, x, return_theta=False):
    """Autocast rounds the image before it is sampled."""
    rounded = x.bfloat16().to(x.dtype) if torch.is_autocast_enabled("cpu") else x
    return forward(self, rounded, return_theta)


@exhibit(SpatialTransformer.forward, contract.test_half_precision_stays_near_float32_and_finite)
def back_in_float32(self, x):
    """A half precision image is returned in float32."""
    return forward(self, x).float()


@exhibit(SpatialTransformer.__init__, laws.test_padding_mode_decides_what_lies_outside_the_image)
def zeros_outside(self, localization, **options):
    """Outside the image there are zeros for every ``padding_mode``."""
    init(self, localization, **options)
    self.padding_mode = "zeros"


@exhibit(SpatialTransformer.forward, contract.test_it_exports_with_a_dynamic_batch,
         error=(torch._dynamo.exc.UserError,))  # fmt: skip
def fixed_batch(self, x):
    """``len()`` fixes the batch size in an exported graph."""
    return warp(self, x, lambda theta: theta.reshape(len(x), 2, 3))


@exhibit(SpatialTransformer.forward, transform_laws.test_every_step_sees_the_image_so_far_and_the_input_is_sampled_once,
         transform=Affine())  # fmt: skip
def sampled_in_every_step(self, x, return_theta=False):
    """Every step warps what the step before it warped, and each blurs the image once more."""
    theta = self.theta(self.localization(x), x)
    for _ in range(self.steps - 1):
        x = self.warp(x, theta)
        theta = self.theta(self.localization(x), x)
    return self.warp(x, theta), theta


@exhibit(SpatialTransformer.forward, transform_laws.test_every_step_sees_the_image_so_far_and_the_input_is_sampled_once,
         transform=Similarity())  # fmt: skip
def input_seen_in_every_step(self, x, return_theta=False):
    """Every step predicts from the input, so that the second one repeats the first."""
    theta = self.theta(self.localization(x), x)
    for _ in range(self.steps - 1):
        theta = self.transform.compose(theta, self.theta(self.localization(x), x))
    return self.warp(x, theta), theta


@exhibit(SpatialTransformer.__init__, laws.test_a_pixel_is_the_mean_of_its_samples, align_corners=False)
def one_sample(self, localization, samples=1, **options):
    """A pixel is a single sample, however far the image is shrunk."""
    init(self, localization, **options)
