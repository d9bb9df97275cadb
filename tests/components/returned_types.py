"""What a type checker must see in what the components return: `make typecheck` reads this file, and nothing runs it."""

from torch import Tensor
from typing_extensions import assert_type

from components import Attention, Block, Encoder
from scripts.models.vit import VisionTransformer


def tokens_alone_or_with_weights(
    module: Attention | Block | Encoder | VisionTransformer, x: Tensor, either: bool
) -> None:
    """The tokens unless weights are asked for."""
    assert_type(module(x), Tensor)
    assert_type(module(x, return_weights=True), tuple[Tensor, Tensor])
    assert_type(module(x, return_weights=either), Tensor | tuple[Tensor, Tensor])
