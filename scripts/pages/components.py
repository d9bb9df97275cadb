"""The pictures of components/README.md; their shapes and numbers come from a forward pass."""

import math

import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings
from components.localization_net import POOLED
from scripts.models.vit import PRESETS, VisionTransformer
from scripts.pages.drawing import (
    BATCH,
    DATA_COLOUR,
    FADED,
    FONT,
    HEADING,
    MODULE_COLOUR,
    SIDE,
    Point,
    Sheet,
    label,
    letter,
    passages,
    shape,
)  # fmt: skip
from scripts.run.figures import FRAME_COLOUR

TIMES = "\N{MULTIPLICATION SIGN}"
SEED = 219  # attention weights that add up to 100 % when rounded
SHADES = LinearSegmentedColormap.from_list("shades", ["#fffdf5", DATA_COLOUR, "#e0a83a", "#7a4310"])
B16 = {name: PRESETS["b16"][name] for name in ("dim", "num_heads", "mlp_dim")}
TOKENS = 1 + (224 // 16) ** 2  # in ViT-B/16


def vit() -> Figure:
    """A batch on its way through ViT-B/16."""
    network = VisionTransformer.from_preset("b16", 1000, device="meta")
    seen = passages(network, torch.empty(BATCH, 3, 224, 224, device="meta"))
    tokens_in = seen["embeddings"].returned
    tokens_out = passages(network.encoder, tokens_in)[""].returned  # the network itself requests only the class token
    sheet = Sheet(360)
    image = sheet.image(100, 175, 150, F.interpolate(letter(), scale_factor=7))
    _cut(image, network.embeddings.grid[0], 0.7)
    sheet.label(100, 276, shape(seen[""].given))
    sheet.module(312, 175, 222, "PatchEmbeddings")
    for x, tokens in ((500, tokens_in), (860, tokens_out)):
        _tokens(sheet, x, 70, 7)
        sheet.label(x, 332, shape(tokens))
    sheet.frame(595, 20, 180, 290)
    sheet.label(685, 48, "Encoder", FADED)
    for offset in (14, 7):
        sheet.module(685 + offset, 130 - offset, 120, "")
    sheet.module(685, 130, 120, "Block")
    sheet.label(705, 186, f"{TIMES} {len(network.encoder.blocks)}", ha="left")
    sheet.module(685, 250, 150, "LayerNorm")
    sheet.data(1007, 70, 160, f"class token\n{shape(seen['head'].given)}")
    sheet.module(1007, 172, 110, "head")
    sheet.data(1007, 270, 160, f"logits\n{shape(seen['head'].returned)}")
    sheet.arrows(
        ((178, 175), (198, 175)), ((426, 175), (480, 175)), ((520, 130), (622, 130)), ((685, 162), (685, 217)),
        ((762, 250), (840, 250)), ((880, 70), (924, 70)), ((1007, 108), (1007, 139)), ((1007, 204), (1007, 231)),
    )  # fmt: skip
    return sheet.figure


def patch_embeddings() -> Figure:
    """An image, its patches, a token for each, the class token in front, and positions added.

    The positions are larger than their initial values, as after training.
    """
    torch.manual_seed(1)
    layer = PatchEmbeddings(SIDE, 8, dim=8)
    nn.init.normal_(layer.pos_embed, std=0.4)
    image = letter()
    seen = passages(layer, image.repeat(BATCH, 1, 1, 1))
    result = seen[""].returned
    positions = layer.pos_embed.detach()
    tokens = result - positions  # before adding positions
    patches = rearrange(image, "1 c (rows y) (columns x) -> (rows columns) 1 c y x", y=8, x=8)
    limits = result.min().item(), result.max().item()

    sheet = Sheet(560)
    place = sheet.image(100, 98, 150, image)
    _cut(place, layer.grid[0], 1.5)
    sheet.label(100, 200, shape(seen[""].given))
    for i, patch in enumerate(patches):
        sheet.image(300 + 50 * i, 98, 40, patch)
    sheet.label(675, 48, f"{len(patches)} patches, row by row", FADED)
    kernel, stride = layer.proj.kernel_size[0], layer.proj.stride[0]
    sheet.module(675, 188, 796, f"proj: one Conv2d, kernel {kernel}, stride {stride}")
    sheet.label(250, 240, "class token", FRAME_COLOUR)
    rows = {
        300: (tokens[0], "tokens", shape(tokens)),
        400: (positions[0], "positions", str(tuple(positions.shape))),
        500: (result[0], "output", shape(result)),
    }
    for y, (row, name, text) in rows.items():
        sheet.label(100, y, f"{name}\n{text}")
        for i, token in enumerate(row):
            axes = _heat(sheet, (250 + 50 * i, y), (36, 76), token[:, None], limits)
            if i == 0:
                _outline(axes, FRAME_COLOUR, 3)
    for y, sign in ((350, "+"), (450, "=")):
        sheet.label(100, y, sign, fontsize=HEADING)
    sheet.arrows(((180, 98), (272, 98)), ((675, 124), (675, 155)), ((675, 220), (675, 257)))
    return sheet.figure


def attention() -> Figure:
    """Attention over the class token and four patches of an image, with the weights of its first head."""
    torch.manual_seed(SEED)
    embeddings, layer = PatchEmbeddings(SIDE, SIDE // 2, dim=32), Attention(32, num_heads=4)
    image = letter()
    x = F.layer_norm(embeddings(image.repeat(BATCH, 1, 1, 1)), (32,)).detach()
    seen = passages(layer, x)
    fused = seen["qkv"].returned
    q, k, v = rearrange(fused, "b n (three heads d) -> three b heads n d", three=3, heads=layer.num_heads)
    with torch.inference_mode():
        result, weights = layer(x, return_weights=True)
    # the picture shows what the layer computes
    torch.testing.assert_close(weights, torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1))
    torch.testing.assert_close(seen["proj"].given, rearrange(weights @ v, "b heads n d -> b n (heads d)"))

    sheet = Sheet(500)
    sheet.data(82, 75, 150, f"tokens\n{shape(seen[''].given)}")
    sheet.module(82, 190, 110, "qkv")
    sheet.data(82, 311, 150, f"q, k, v\n{shape(fused)}")
    for y, (name, part) in zip((75, 190, 440), {"q": q, "k": k, "v": v}.items(), strict=True):
        sheet.data(282, y, 168, f"{name}\n{shape(part)}")
        sheet.arrow((157, 311), (177, 311), (177, y), (196, y))
    sheet.module(470, 132, 140, f"q kᵀ / √{q.shape[-1]}")
    sheet.module(470, 240, 140, "softmax")
    sheet.label(740, 26, f"weights {shape(weights)}, first head")
    _weights(sheet, (745, 240), 52, weights[0, 0], image)
    sheet.label(725, 390, "each row: 100%", FADED, ha="right")
    sheet.module(745, 440, 170, f"weights {TIMES} v")
    sheet.data(1008, 440, 160, f"all heads\n{shape(seen['proj'].given)}")
    sheet.module(1008, 325, 110, "proj")
    sheet.data(1008, 210, 160, f"output\n{shape(result)}")
    sheet.arrows(
        ((82, 113), (82, 157)), ((82, 222), (82, 272)), ((368, 75), (470, 75), (470, 99)),
        ((368, 190), (384, 190), (384, 132), (397, 132)), ((470, 164), (470, 207)), ((542, 240), (558, 240)),
        ((745, 374), (745, 407)), ((368, 440), (657, 440)), ((832, 440), (925, 440)), ((1008, 402), (1008, 358)),
        ((1008, 293), (1008, 249)),
    )  # fmt: skip
    return sheet.figure


def mlp() -> Figure:
    """Two linear layers and GELU between them; the height of a bar is the width of its tokens."""
    layer = MLP(B16["dim"], B16["mlp_dim"], device="meta")
    seen = passages(layer, torch.empty(BATCH, TOKENS, B16["dim"], device="meta"))
    sheet = Sheet(310)
    for x, name, tensor in (
        (90, "tokens", seen[""].given),
        (402, "hidden", seen["fc1"].returned),
        (1010, "output", seen[""].returned),
    ):
        height = 200 * tensor.shape[-1] / B16["mlp_dim"]
        sheet.rectangle(x - 18, 120 - height / 2, 36, height, facecolor=DATA_COLOUR, edgecolor="black")
        sheet.label(x, 264, f"{name}\n{shape(tensor)}")
    sheet.module(245, 120, 100, "fc1")
    sheet.module(855, 120, 100, "fc2")
    curve = sheet.panel(630, 120, 230, 190)
    curve.add_patch(Rectangle((-4, -1.2), 8, 5.2, facecolor=MODULE_COLOUR))
    inputs = torch.linspace(-4, 4, 200)
    curve.axhline(0, color=FADED, linewidth=1)
    curve.axvline(0, color=FADED, linewidth=1)
    curve.plot(inputs, F.gelu(inputs), color="black", linewidth=2.5)
    curve.set_xlim(-4, 4)
    curve.set_ylim(-1.2, 4)
    _outline(curve, "black", 1)
    curve.text(-3.5, 2.6, "GELU", fontsize=FONT, va="center")
    sheet.arrows(
        ((113, 120), (192, 120)), ((297, 120), (379, 120)), ((425, 120), (511, 120)), ((747, 120), (802, 120)),
        ((907, 120), (987, 120)),
    )  # fmt: skip
    return sheet.figure


def block() -> Figure:
    """Two residual branches, each of which begins with a norm."""
    layer = Block(**B16, device="meta")
    seen = passages(layer, torch.empty(BATCH, TOKENS, B16["dim"], device="meta"))
    sheet = Sheet(270)
    path, branch = 205, 60
    sheet.data(91, path, 172, f"tokens\n{shape(seen[''].given)}")
    sheet.data(1009, path, 172, f"output\n{shape(seen[''].returned)}")
    for left, norm, name in ((177, "norm1", "attn"), (530, "norm2", "mlp")):
        fork, plus = left + 16, left + 337
        for x, width, part in ((fork + 89, 146, norm), (fork + 243, 132, name)):
            kind = type(layer.get_submodule(part)).__name__
            sheet.module(x, branch, width, f"{part}\n{kind}")
        sheet.label(fork + 180, branch + 58, shape(seen[name].returned))
        sheet.label(fork + 155, path + 28, "unchanged", FADED)
        sheet.axes.add_patch(Circle((plus, path), 16, facecolor="white", edgecolor="black", linewidth=1.8))
        sheet.label(plus, path, "+", fontsize=HEADING, va="center_baseline")
        sheet.arrow((left, path), (plus - 17, path))
        sheet.arrow((fork, path), (fork, branch), (fork + 14, branch))
        sheet.arrow((fork + 162, branch), (fork + 175, branch))
        sheet.arrow((fork + 309, branch), (plus, branch), (plus, path - 18))
    sheet.arrow((884, path), (921, path))
    return sheet.figure


def encoder() -> Figure:
    """The blocks of ViT-B/16, how often each is skipped in training, and the outputs."""
    depth = PRESETS["b16"]["depth"]
    layer = Encoder(depth=depth, **B16, stochastic_depth=0.12, device="meta")
    x = torch.empty(BATCH, TOKENS, B16["dim"], device="meta")
    seen = passages(layer, x)
    weights = layer(x, return_weights=True)[1]
    blocks = [part for part in layer.modules() if isinstance(part, Block)]
    rates = [part.stochastic_depth for part in blocks]

    sheet = Sheet(385)
    sheet.data(91, 190, 172, f"tokens\n{shape(seen[''].given)}")
    sheet.data(453, 45, 500, f"attention weights {shape(weights)}")
    for i, rate in enumerate(rates):
        place = 222 + 42 * i
        sheet.module(place, 190, 36, str(i + 1))
        sheet.arrow((place, 159), (place, 79))
        sheet.rectangle(place - 18, 340 - 600 * rate, 36, 600 * rate, facecolor=FADED)
        if rate in (min(rates), max(rates)):
            sheet.label(place, 362, f"{rate:.0%}", FADED)
    sheet.label(453, 243, f"{len(blocks)} {TIMES} Block")
    sheet.label(453, 362, "skipped in training", FADED)
    sheet.module(812, 190, 148, type(layer.norm).__name__)
    sheet.data(1009, 190, 172, f"output\n{shape(seen[''].returned)}")
    for start, end in ((177, 202), (702, 736), (886, 921)):
        sheet.arrow((start, 190), (end, 190))
    return sheet.figure


def localization_net() -> Figure:
    """An image on its way to theta, with the feature maps of a new network."""
    torch.manual_seed(2)
    layer = LocalizationNet()
    image = F.interpolate(letter(), scale_factor=2)
    seen = passages(layer, image.repeat(BATCH, 1, 1, 1))
    first = seen["conv2"].given
    second = F.relu(F.max_pool2d(seen["conv2"].returned, 2))
    pooled = rearrange(seen["fc1"].given, "b (c y x) -> b c y x", c=second.shape[1], y=POOLED)
    torch.testing.assert_close(F.adaptive_avg_pool2d(second, POOLED), pooled)
    hidden, theta = seen["fc2"].given, seen["fc2"].returned

    sheet = Sheet(405)
    above, below = 85, 300
    sheet.image(87, above, 140, image)
    for x, name, conv in ((262, "conv1", layer.conv1), (627, "conv2", layer.conv2)):
        side = conv.kernel_size[0]
        sheet.module(x, above, 152, f"{name} {side}{TIMES}{side}\nmax pool 2\nReLU")
    sheet.module(1003, above, 152, f"mean in\n{POOLED}{TIMES}{POOLED} cells")
    for (x, y), maps in (((446, above), first), ((811, above), second), ((1003, below), pooled)):
        _maps(sheet, (x, y), 168, maps[0])
    for x, vector in ((811, seen["fc1"].given), (446, hidden)):
        _outline(_heat(sheet, (x, below), (160, 44), vector[:1]), FADED, 1)
    sheet.label(811, below - 46, "flatten", FADED)
    sheet.module(627, below, 152, "fc1\nReLU")
    sheet.module(262, below, 152, "fc2")
    rows = theta[0].view(2, 3).tolist()
    sheet.data(87, below, 140, "\n".join("   ".join(f"{number:g}" for number in row) for row in rows))
    for x, y, text in (
        (87, above, shape(seen[""].given)),
        (446, above, shape(first)),
        (811, above, shape(second)),
        (1003, below, shape(pooled)),
        (811, below, shape(seen["fc1"].given)),
        (446, below, shape(hidden)),
        (87, below, f"θ  {shape(theta)}"),
    ):
        sheet.label(x, y + (92 if y == above else 70), text)
    for x, end in ((160, 184), (340, 357), (534, 549), (705, 722), (899, 925)):
        sheet.arrow((x, above), (end, above))
    sheet.arrow((1003, above + 37), (1003, below - 46))
    for x, end in ((915, 896), (727, 706), (549, 530), (362, 341), (184, 160)):
        sheet.arrow((x, below), (end, below))
    return sheet.figure


def _cut(axes: Axes, pieces: int, linewidth: float) -> None:
    """Draw the borders of the patches of an image."""
    for i in range(1, pieces):
        place = 2 * i / pieces - 1
        axes.plot((place, place), (-1, 1), color="white", linewidth=linewidth)
        axes.plot((-1, 1), (place, place), color="white", linewidth=linewidth)


def _tokens(sheet: Sheet, x: float, top: float, count: int) -> None:
    """Draw a column of tokens, the class token first, with an ellipsis before the last."""
    for i in range(count):
        y = top + 35 * i
        if i == count - 2:
            sheet.label(x, y, "⋮")
            continue
        edge, width = (FRAME_COLOUR, 3) if i == 0 else ("black", 1)
        sheet.rectangle(x - 15, y - 15, 30, 30, facecolor=DATA_COLOUR, edgecolor=edge, linewidth=width)


def _heat(sheet: Sheet, centre: Point, size: Point, numbers: Tensor, limits: Point | None = None) -> Axes:
    """Draw numbers as shades, larger ones darker; by default from the smallest to the largest."""
    low, high = limits or (numbers.min().item(), numbers.max().item())
    axes = sheet.panel(*centre, *size)
    axes.imshow(numbers.numpy(), cmap=SHADES, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    return axes


def _outline(axes: Axes, colour: str, linewidth: float) -> None:
    """Draw a frame around axes."""
    whole = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False)
    whole.set(edgecolor=colour, linewidth=linewidth)
    axes.add_patch(whole)


def _weights(sheet: Sheet, centre: Point, cell: float, weights: Tensor, image: Tensor) -> None:
    """Draw attention weights in percent, with the queries' tokens on the left and the keys' tokens above."""
    count = len(weights)
    side = count * cell
    axes = _heat(sheet, centre, (side, side), weights, (0, weights.max().item()))
    for row in range(count):
        for column in range(count):
            share = weights[row, column].item()
            colour = "white" if share > 0.75 * weights.max() else "black"
            label(axes, column, row, f"{100 * share:.0f}", colour)
    rows = math.isqrt(count - 1)
    patches = rearrange(image, "1 c (rows y) (columns x) -> (rows columns) 1 c y x", rows=rows, columns=rows)
    for i in range(count):
        along = (i + 0.5) * cell - side / 2
        for x, y in ((centre[0] - side / 2 - 26, centre[1] + along), (centre[0] + along, centre[1] - side / 2 - 26)):
            if i == 0:
                sheet.label(x, y, "cls", FRAME_COLOUR)
            else:
                sheet.image(x, y, 38, patches[i - 1])


def _maps(sheet: Sheet, centre: Point, width: float, maps: Tensor) -> None:
    """Draw feature maps (C, H, W) in two rows."""
    columns = len(maps) // 2
    side = width / columns
    for i, one in enumerate(maps):
        place = (centre[0] + (i % columns - (columns - 1) / 2) * side, centre[1] + (i // columns - 0.5) * side)
        _outline(_heat(sheet, place, (side - 5, side - 5), one), FADED, 1)


PICTURES = {draw.__name__: draw for draw in (vit, patch_embeddings, attention, mlp, block, encoder, localization_net)}
