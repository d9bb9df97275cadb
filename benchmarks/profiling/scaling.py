"""Measure how time grows with batch, tokens, depth and image size, and fit an exponent to each curve."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from scipy.stats import linregress
from scipy.stats import t as student
from torch import nn

from benchmarks.grid.workloads import Fixed, nowhere_zero
from benchmarks.measure import flops
from benchmarks.measure.calls import CALLS
from benchmarks.measure.devices import ready
from benchmarks.measure.machine import description
from benchmarks.measure.oracle import Oracle, in_float64
from benchmarks.measure.records import finish, recorded, target, write
from benchmarks.measure.timing import LEAST, affordable, interleaved, sample, warm_up
from benchmarks.options import ScalingOptions
from components import Attention, SpatialTransformer
from scripts.models.vit import PRESETS, VisionTransformer
from scripts.system.libraries import plain_figures
from scripts.system.machine import Machine, this_machine

TITLES = {"forward": "inference", "backward": "forward and backward"}  # mode -> its name in the picture
COLOURS = {"forward": "#1f5fa8", "backward": "#c0392b"}


class Piece(NamedTuple):
    """A module, the shape of its input, and its FLOPs."""

    module: nn.Module
    shape: tuple[int, ...]
    work: flops.Work


def vit(batch: int, side: int, preset: str, **options: int) -> Piece:
    """A Vision Transformer without dropout."""
    sizes = PRESETS[preset] | options
    patch, dim, mlp_dim, depth = (sizes[key] for key in ("patch_size", "dim", "mlp_dim", "depth"))
    work = flops.vision_transformer(batch, side, patch=patch, dim=dim, mlp_dim=mlp_dim, depth=depth)
    module = VisionTransformer(**sizes | {"image_size": side, "dropout": 0.0})
    return Piece(module, (batch, 3, side, side), work)


def attention(batch: int, tokens: int) -> Piece:
    """Attention of ViT-B's width."""
    dim, heads = PRESETS["b16"]["dim"], PRESETS["b16"]["num_heads"]
    return Piece(Attention(dim, heads), (batch, tokens, dim), flops.attention(batch, tokens, dim))


def warp(batch: int, side: int) -> Piece:
    """A spatial transformer whose theta is a parameter."""
    return Piece(SpatialTransformer(Fixed(batch)), (batch, 3, side, side), flops.warp(batch, side))


class Curve(NamedTuple):
    """One dimension of a piece of work grows, the others stay.

    Args:
        name: The work and its fixed sizes.
        axis: The dimension that grows: a keyword of ``build``.
        sizes: Its sizes, in rising order.
        build: Builds the work for one size.
    """

    name: str
    axis: str
    sizes: tuple[int, ...]
    build: Callable[..., Piece]


def curves(machine: Machine) -> tuple[Curve, ...]:
    """All curves; larger on a GPU, where small work would only show the time of a kernel launch."""
    large = machine.accelerated
    sequences, images, single, warped = (32, 1024, 64, 64) if large else (4, 16, 1, 16)
    batches = (256, 512, 1024, 2048, 4096) if large else (1, 2, 4, 8, 16, 32, 64)
    tokens = (256, 512, 1024, 2048, 4096) if large else (32, 64, 128, 256, 512, 1024)
    sides = (256, 384, 512, 768, 1024) if large else (32, 64, 128, 256, 512)
    return (
        Curve("ViT-Lite-7/4, 32 pixels", "batch", batches, partial(vit, side=32, preset="lite")),
        Curve(f"Attention of width 768, {counted(sequences, 'sequence')}", "tokens", tokens,
              partial(attention, batch=sequences)),
        Curve(f"ViT of width 768, 32 pixels, {counted(images, 'image')}", "depth", (1, 2, 3, 4, 6, 8, 12),
              partial(vit, batch=images, side=32, preset="b16")),
        Curve(f"3 blocks of ViT-B/16, {counted(single, 'image')}", "side", (64, 96, 128, 192, 256, 384),
              partial(vit, batch=single, preset="b16", depth=3)),
        Curve(f"SpatialTransformer's warp, {counted(warped, 'image')}", "side", sides,
              partial(warp, batch=warped)),
    )  # fmt: skip


def counted(number: int, what: str) -> str:
    """A number with its noun, such as 16 images."""
    return f"one {what}" if number == 1 else f"{number} {what}s"


class Fit(NamedTuple):
    """seconds = factor * size ** exponent, with the 95 % interval of the exponent."""

    exponent: float
    low: float
    high: float
    factor: float

    def __str__(self) -> str:
        return f"{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}]"


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> Fit:
    """Fit by least squares in logarithms; a bent curve gets a wide interval."""
    line = linregress([math.log(size) for size in sizes], [math.log(second) for second in seconds])
    reach = student.ppf(0.975, len(sizes) - 2) * line.stderr
    return Fit(line.slope, line.slope - reach, line.slope + reach, math.exp(line.intercept))


def measure(curve: Curve, mode: str, dtype: torch.dtype, device: torch.device, seconds: float) -> dict[str, Any]:
    """Median times of all sizes, alternating in every round, and the exponents of time and FLOPs."""
    calls, oracles, work = {}, {}, []
    for size in curve.sizes:
        piece = curve.build(**{curve.axis: size})
        x = torch.randn(piece.shape, device=device, requires_grad=len(piece.shape) == 3)  # images need no gradient
        oracles[size] = Oracle(x, in_float64(nowhere_zero(piece.module)))
        calls[size] = CALLS[mode](piece.module.to(device), x, dtype)
        work.append(piece.work.flops(mode))
        oracles[size].check(calls[size], dtype)
        warm_up(calls[size], device)
    a_round = sum(max(LEAST, sample(call, device)) for call in calls.values())
    times = interleaved(calls, device, affordable(seconds, a_round))
    for size, oracle in oracles.items():
        oracle.check(calls[size], dtype)
    medians = [statistics.median(times[size]) for size in curve.sizes]
    return {
        "name": curve.name, "axis": curve.axis, "mode": mode, "sizes": curve.sizes,
        "seconds": [float(f"{median:.4g}") for median in medians],
        "fit": fit(curve.sizes, medians), "flops_exponent": fit(curve.sizes, work).exponent,
    }  # fmt: skip


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Draw a panel for each curve: measured dots and fitted lines."""
    names = list(dict.fromkeys(curve["name"] for curve in content["curves"]))
    columns = min(3, len(names))
    figure = Figure(figsize=(5 * columns, 4.4 * -(-len(names) // columns)), facecolor="white", layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // columns), columns, place + 1)
        for curve in (each for each in content["curves"] if each["name"] == name):
            colour = COLOURS[curve["mode"]]
            line, sizes = Fit(*curve["fit"]), curve["sizes"]
            axes.plot(sizes, [1000 * each for each in curve["seconds"]], "o", color=colour)
            fitted = [1000 * line.factor * size**line.exponent for size in sizes]
            axes.plot(sizes, fitted, color=colour, label=f"{TITLES[curve['mode']]}: exponent {line}")
        axes.set_title(name)
        axes.set_xlabel(f"{curve['axis']} (exponent of FLOPs: {curve['flops_exponent']:.2f})")
        axes.set_ylabel("milliseconds")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(f"{content['machine']['identity']}, {content['precision']}, {content['machine']['started'][:10]}")
    figure.savefig(path)


def main(options: ScalingOptions) -> None:
    """Measure all curves, and write the results after each.

    Raises:
        InputError: If the device is not there, or --out is refused.
    """
    device = ready(options.device)
    out = target(options.out, options.smoke, device, "scaling")
    machine = this_machine(device)
    precision = machine.precision("auto")
    chosen = [curve._replace(sizes=curve.sizes[:3]) if options.smoke else curve for curve in curves(machine)]
    seconds = 0.0 if options.smoke else 60 * options.minutes / (len(chosen) * len(TITLES))
    torch.manual_seed(0)
    content: dict[str, Any] = {
        "machine": description(device), "precision": precision, "curves": [], "errors": [],
    }  # fmt: skip
    write(out, content)
    for curve in chosen:
        for mode in TITLES:
            with recorded(out, content, f"{curve.name}, {curve.axis}, {TITLES[mode]}"):
                found = measure(curve, mode, getattr(torch, precision), device, seconds)
                content["curves"].append(found)
                print(f"{curve.name}, {curve.axis}, {TITLES[mode]}: exponent {found['fit']}, ", end="")
                print(f"of the FLOPs {found['flops_exponent']:.2f}", flush=True)
    if out is not None and content["curves"]:
        with plain_figures():
            draw(content, out.with_suffix(".png"))
    finish(content)
