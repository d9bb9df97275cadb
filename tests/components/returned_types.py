"""The return types that a type checker must infer: `make typecheck` reads this file, and nothing runs it."""

from torch import Tensor
from typing_extensions import assert_type

from components import Attention, Block, Encoder, SpatialTransformer
from scripts.models.vit import VisionTransformer


def tokens_or_with_weights(module: Attention | Block | Encoder | VisionTransformer, x: Tensor, either: bool) -> None:
    """The tokens, and the weights if ``return_weights`` is true."""
    assert_type(module(x), Tensor)
    assert_type(module(x, return_weights=True), tuple[Tensor, Tensor])
    assert_type(module(x, return_weights=either), Tensor | tuple[Tensor, Tensor])


def images_or_with_theta(module: SpatialTransformer, x: Tensor, either: bool) -> None:
    """The images, and theta if ``return_theta`` is true."""
    assert_type(module(x), Tensor)
    assert_type(module(x, return_theta=True), tuple[Tensor, Tensor])
    assert_type(module(x, return_theta=either), Tensor | tuple[Tensor, Tensor])
