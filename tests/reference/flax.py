"""Google's Vision Transformer in NumPy, written from its Flax code, with the weights of an .npz file.

Source: models_vit.py of https://github.com/google-research/vision_transformer, except that the GELU is the exact one,
as in all torch ports of these weights.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]


def vision_transformer(arrays: Mapping[str, Array], images: Array) -> tuple[Array, list[Array], list[Array]]:
    """Logits, the tokens at the input, after every block and after the norm, and the attention weights of every block.

    Images are (B, H, W, C).
    """
    weights = {name: np.asarray(array, np.float64) for name, array in arrays.items()}

    def dense(name: str, x: Array, axes: int = 1) -> Array:
        """Sum over the last ``axes`` axes of x; the kernel may have more than one axis on either side."""
        return np.tensordot(x, weights[f"{name}/kernel"], axes) + weights[f"{name}/bias"]

    def layer_norm(name: str, x: Array) -> Array:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-6) * weights[f"{name}/scale"] + weights[f"{name}/bias"]

    x = embed(weights, images.astype(np.float64))
    tokens, maps = [x], []
    for i in range(len([name for name in weights if name.endswith("LayerNorm_0/scale")])):
        block = f"Transformer/encoderblock_{i}"
        normed = layer_norm(f"{block}/LayerNorm_0", x)
        attention = f"{block}/MultiHeadDotProductAttention_1"
        query, key, value = (dense(f"{attention}/{name}", normed) for name in ("query", "key", "value"))  # (B, N, h, d)
        scores = np.einsum("bqhd,bkhd->bhqk", query, key, optimize=True) / np.sqrt(query.shape[-1])
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        maps.append(exponentials / exponentials.sum(-1, keepdims=True))
        x = x + dense(f"{attention}/out", np.einsum("bhqk,bkhd->bqhd", maps[-1], value, optimize=True), axes=2)
        hidden = dense(f"{block}/MlpBlock_3/Dense_0", layer_norm(f"{block}/LayerNorm_2", x))
        x = x + dense(f"{block}/MlpBlock_3/Dense_1", hidden * (1 + erf(hidden / np.sqrt(2))) / 2)
        tokens.append(x)
    x = layer_norm("Transformer/encoder_norm", x)
    return dense("head", x[:, 0]), [*tokens, x], maps


def embed(weights: Mapping[str, Array], images: Array) -> Array:
    """A convolution with kernel (h, w, in, out) whose stride is its size, the class token in front, positions added."""
    kernel = weights["embedding/kernel"]
    side, dim = kernel.shape[0], kernel.shape[-1]
    batch, height, width, channels = images.shape
    cells = images.reshape(batch, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    patches = cells.reshape(batch, -1, side * side * channels) @ kernel.reshape(-1, dim) + weights["embedding/bias"]
    cls = np.broadcast_to(weights["cls"], (batch, 1, dim))
    return np.concatenate([cls, patches], 1) + weights["Transformer/posembed_input/pos_embedding"]
