"""FLOPs and memory traffic of each component and both models, in closed form.

FLOPs: two for each multiply-add of matrix products, convolutions, attention and sampling; none for norms, activations
and optimizers, as usual. ``FlopCounterMode`` counts the same but misses sampling, and attention on a CPU: hence this
file. Counts depend on sizes alone: an implementation that skips unused work, such as all but one token in the last
block, shows a higher rate.

Numbers moved: every layer reads its inputs and weights once and writes its output once, and elementwise operations are
free, as if fused with their neighbours. Without caches, no implementation moves less.

Letters: B batch, N tokens, D width.
"""

from dataclasses import astuple, dataclass

LOCALIZATION_POSITIONS, CLASSIFIER_POSITIONS = 4 * 4, 5 * 5  # left of an image by LocalizationNet and by STNClassifier
ADAMW = 7  # numbers per parameter: weight, gradient and two moments are read, all but the gradient are written


@dataclass(frozen=True)
class Work:
    """The work of one forward and one backward pass.

    Args:
        forward: FLOPs.
        backward: FLOPs.
        moved: Numbers read or written in the forward pass.
        moved_back: Numbers read or written in the backward pass.
        parameters: Numbers that an optimizer updates.
    """

    forward: int
    backward: int
    moved: int
    moved_back: int
    parameters: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> "Work":
        return Work(*(times * a for a in astuple(self)))

    def flops(self, mode: str) -> int:
        """FLOPs of ``forward``, of ``backward`` (both passes) or of a training ``step``."""
        return self.forward if mode == "forward" else self.forward + self.backward

    def bytes(self, mode: str, itemsize: int) -> int:
        """Bytes moved by the same, in numbers of that size; the optimizer works in float32."""
        numbers = self.moved if mode == "forward" else self.moved + self.moved_back
        return itemsize * numbers + (4 * ADAMW * self.parameters if mode == "step" else 0)

    def least_seconds(self, mode: str, itemsize: int, flops: float, bandwidth: float) -> float:
        """The longer of the time to compute at this rate (FLOP/s) and the time to move at this bandwidth (bytes/s)."""
        return max(self.flops(mode) / flops, self.bytes(mode, itemsize) / bandwidth)

    def held(self, mode: str, itemsize: int) -> int:
        """An estimate of the bytes in memory at the peak of a call, weights included.

        A forward pass keeps about as many numbers for its backward pass as it moves; inference keeps none, and its
        temporary tensors are left out. Weights, their gradients and AdamW's two moments are float32.
        """
        copies = {"forward": 1, "backward": 2, "step": 4}[mode]
        return 4 * copies * self.parameters + (0 if mode == "forward" else itemsize * self.moved)


def product(flops: int, x: int, weight: int, y: int, *, bias: int, input_gradient: bool) -> Work:
    """Weight times x; the backward pass has an equally large product for the gradient of the weight, and one for x."""
    back = x + weight + y + (x + weight if input_gradient else 0)
    return Work(flops, (1 + input_gradient) * flops, x + weight + y, back, weight + bias)


def linear(rows: int, inputs: int, outputs: int) -> Work:
    """A linear layer applied to this many rows."""
    flops = 2 * rows * inputs * outputs
    return product(flops, rows * inputs, inputs * outputs, rows * outputs, bias=outputs, input_gradient=True)


def convolution(
    batch: int, inputs: int, outputs: int, kernel: int, before: int, after: int, *, input_gradient: bool = True
) -> Work:
    """A square kernel on square images whose side is ``before`` at the input and ``after`` at the output."""
    x, weight, y = batch * inputs * before**2, inputs * outputs * kernel**2, batch * outputs * after**2
    return product(2 * y * inputs * kernel**2, x, weight, y, bias=outputs, input_gradient=input_gradient)


def localization_net(batch: int, side: int, channels: int = 3, outputs: int = 6) -> Work:
    """Two convolutions and two linear layers; the image needs no gradient."""
    side = max(side, 18)
    pooled = (side - 6) // 2
    return (
        convolution(batch, channels, 8, 7, side, side - 6, input_gradient=False)
        + convolution(batch, 8, 10, 5, pooled, pooled - 4)
        + linear(batch, 10 * LOCALIZATION_POSITIONS, 32)
        + linear(batch, 32, outputs)
    )


def warp(batch: int, side: int, channels: int = 3, theta: tuple[int, int] = (2, 3)) -> Work:
    """For each output pixel theta times a position and a weighted sum of four neighbours; theta has a gradient.

    Backward: a gradient of each of the two coordinates from four neighbours, and a product with the position. For a
    spline, theta is the control points, and a position their weights there.
    """
    pixels, numbers = batch * side**2, theta[0] * theta[1]
    return Work(
        pixels * (2 * numbers + 2 * 4 * channels),
        pixels * (2 * 2 * 4 * channels + 2 * numbers),
        2 * channels * pixels + numbers * batch,
        2 * channels * pixels + 2 * numbers * batch,
    )


def patch_embeddings(batch: int, side: int, patch: int, dim: int, channels: int = 3) -> Work:
    """A convolution without overlap, and position embeddings; the image needs no gradient."""
    grid = side // patch
    positions = (2 + grid**2) * dim  # with the class token
    return convolution(batch, channels, dim, patch, side, grid, input_gradient=False) + Work(
        0, 0, positions, positions, positions
    )


def attention(batch: int, tokens: int, dim: int) -> Work:
    """Two linear layers, and between them B products of (N, D) and (N, D), and of (N, N) and (N, D).

    The number of heads does not matter. As in a fused kernel, attention weights never reach memory; what such a kernel
    recomputes in the backward pass is not counted.
    """
    pairs, numbers = 2 * 2 * batch * tokens**2 * dim, batch * tokens * dim
    inner = Work(pairs, 2 * pairs, 4 * numbers, 8 * numbers)  # q, k, v and y; backward also their gradients
    return linear(batch * tokens, dim, 3 * dim) + inner + linear(batch * tokens, dim, dim)


def mlp(batch: int, tokens: int, dim: int, mlp_dim: int) -> Work:
    """Two linear layers."""
    return linear(batch * tokens, dim, mlp_dim) + linear(batch * tokens, mlp_dim, dim)


def norm(dim: int) -> Work:
    """Parameters alone."""
    return Work(0, 0, 0, 0, 2 * dim)


def block(batch: int, tokens: int, dim: int, mlp_dim: int) -> Work:
    """Attention and MLP."""
    return attention(batch, tokens, dim) + mlp(batch, tokens, dim, mlp_dim) + norm(dim) * 2


def encoder(batch: int, tokens: int, dim: int, mlp_dim: int, depth: int) -> Work:
    """``depth`` blocks and a norm."""
    return block(batch, tokens, dim, mlp_dim) * depth + norm(dim)


def stn_classifier(batch: int, side: int, channels: int = 3, classes: int = 10) -> Work:
    """The localization network, the warp, two convolutions and two linear layers.

    The warped image needs a gradient, for theta.
    """
    pooled = (side - 4) // 2
    return (
        localization_net(batch, side, channels)
        + warp(batch, side, channels)
        + convolution(batch, channels, 10, 5, side, side - 4)
        + convolution(batch, 10, 20, 5, pooled, pooled - 4)
        + linear(batch, 20 * CLASSIFIER_POSITIONS, 50)
        + linear(batch, 50, classes)
    )


def vision_transformer(
    batch: int, side: int, *, patch: int, dim: int, mlp_dim: int, depth: int, channels: int = 3, classes: int = 10
) -> Work:
    """Patches, encoder, and a linear layer on the class token."""
    tokens = 1 + (side // patch) ** 2
    return (
        patch_embeddings(batch, side, patch, dim, channels)
        + encoder(batch, tokens, dim, mlp_dim, depth)
        + linear(batch, dim, classes)
    )
