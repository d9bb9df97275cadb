"""Measure where the time of ViT-B/16 goes, and how close it comes to the machine's peak for matrix products."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import profile

from benchmarks.grid.workloads import nowhere_zero
from benchmarks.measure import flops
from benchmarks.measure.calls import step
from benchmarks.measure.devices import ready
from benchmarks.measure.machine import description, large_products
from benchmarks.measure.oracle import Oracle, in_float64
from benchmarks.measure.records import finish, heading, page, recorded, target, write
from benchmarks.measure.timing import (
    Call,
    Interval,
    affordable,
    interleaved,
    median_interval,
    quartiles,
    sample,
    warm_up,
)
from benchmarks.options import BreakdownOptions
from scripts.models.vit import PRESETS, VisionTransformer
from scripts.pages.markdown import table
from scripts.system.devices import clock
from scripts.system.errors import InputError
from scripts.system.files import write_bytes
from scripts.system.machine import this_machine
from scripts.training.compiled import for_inference

# kind, pixels, batch
CONFIGURATIONS = (("inference", 32, 128), ("inference", 224, 8), ("training", 32, 64), ("training", 224, 4))
PRODUCT = "product"
PROFILED = 3  # calls
# an operator is in the first category with a part of its name, else in the rest; a Triton kernel is named after all the
# operators that it fuses
CATEGORIES = {
    "compiled loops": ("triton_", "CompiledFxGraph"),
    "attention": ("bmm", "softmax", "scaled_dot_product", "_flash_", "_efficient_", "_cudnn_attention"),
    "matrix products": ("addmm", "aten::mm", "linear_pointwise", "mkl_linear", "convolution"),
    "copies and casts": ("copy_", "aten::cat"),
    "GELU": ("gelu",),
    "norms": ("layer_norm",),
    "optimizer": ("adamw",),
}
REST = "the rest"
MEANING = """\
Share of the peak: FLOP/s by the closed form over those of a large matrix product in the same type, timed alternately,
with its 95 % interval. The last block computes less than the closed form counts. The other columns are shares of the
time from torch's profiler: matrix products of all layers; attention between q, k and v; compiled loops are all other
operators in inference, which `for_inference` compiles.\
"""


def category(name: str) -> str:
    """The category of an operator."""
    return next((title for title, parts in CATEGORIES.items() if any(part in name for part in parts)), REST)


def shares(events: Iterable[FunctionEventAvg], device: torch.device) -> dict[str, float]:
    """The share of each category in the time of all operators.

    A profile of a GPU lists the same time three times: for kernels, for the operators that launched them, and for
    annotations around both. Only operators are counted: they have the same names on every device.

    Raises:
        InputError: If the profiler saw no time on the device.
    """
    spent = dict.fromkeys((*CATEGORIES, REST), 0.0)
    for event in events:
        if event.device_type == DeviceType.CPU and not event.is_user_annotation:
            on_gpu = device.type != "cpu"
            spent[category(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(spent.values())
    if not total:
        raise InputError(f"--device ({device}) must be one whose time torch's profiler sees; it saw none")
    return {title: time / total for title, time in spent.items()}


def default_call(kind: str, network: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> Call:
    """The call of a training step or of compiled inference, as the kit runs them by default."""
    return step(network, x, dtype) if kind == "training" else partial(for_inference(network, dtype), x)


def measure(kind: str, side: int, batch: int, device: torch.device, seconds: float, **sizes: Any) -> dict[str, Any]:
    """Measure one configuration."""
    torch.manual_seed(0)
    torch.compiler.reset()
    sizes = PRESETS["b16"] | sizes | {"dropout": 0.0, "image_size": side}
    precision = this_machine(device).precision("auto")
    dtype = getattr(torch, precision)
    closed = flops.vision_transformer(
        batch, side, patch=sizes["patch_size"], dim=sizes["dim"], mlp_dim=sizes["mlp_dim"], depth=sizes["depth"]
    ).flops("step" if kind == "training" else "forward")
    network = nowhere_zero(VisionTransformer(**sizes))
    x = torch.randn(batch, 3, side, side, device=device)
    oracle = Oracle(x, in_float64(network))
    call = default_call(kind, network.to(device), x, dtype)
    oracle.check(call, dtype)
    ways, product = large_products(device, dtype)
    for each in (call, *ways):
        warm_up(each, device, calls=8)  # the first steps still allocate memory
    calls = {kind: call, PRODUCT: min(ways, key=lambda way: sample(way, device))}
    times = interleaved(calls, device, affordable(seconds, sum(sample(each, device) for each in calls.values())))
    oracle.check(call, dtype)
    paired = zip(times[kind], times[PRODUCT], strict=True)
    with profile() as profiled:
        for _ in range(PROFILED):
            call()
        clock(device)
    return {
        "kind": kind, "side": side, "batch": batch, "precision": precision,
        "seconds": quartiles(times[kind]), "tflops": closed / quartiles(times[kind])[1] / 1e12,
        "share_of_peak": median_interval([closed / mine * other / product for mine, other in paired]),
        "time": shares(profiled.key_averages(), device),
    }  # fmt: skip


def markdown(content: Mapping[str, Any]) -> str:
    """The page with all configurations."""
    found = content["works"]
    titles = [title for title in (*CATEGORIES, REST) if any(each["time"][title] >= 0.0005 for each in found)]
    lines = [
        [
            f"{each['kind']}, {each['side']} pixels, batch {each['batch']}, {each['precision']}",
            f"{each['batch'] / each['seconds'][1]:.4g}",
            f"{each['tflops']:.3g}",
            str(Interval(*each["share_of_peak"])),
            *(f"{each['time'][title]:.1%}" for title in titles),
        ]
        for each in found
    ]
    content_table = table(("work", "images/s", "TFLOP/s", "share of the peak", *titles), lines)
    return page([*heading("Where the time of ViT-B/16 goes", content["machine"]), MEANING, content_table])


def main(options: BreakdownOptions) -> None:
    """Measure, print the page and write it.

    Raises:
        InputError: If the device is not there, or --out is refused.
    """
    device = ready(options.device)
    out = target(options.out, options.smoke, device, "breakdown")
    seconds = 0.0 if options.smoke else 60 * options.minutes / len(CONFIGURATIONS)
    small = {"dim": 48, "num_heads": 2, "mlp_dim": 96, "depth": 2} if options.smoke else {}
    content: dict[str, Any] = {"machine": description(device), "works": [], "errors": []}
    write(out, content)
    for kind, side, batch in CONFIGURATIONS:
        with recorded(out, content, f"{kind}, {side} pixels"):
            content["works"].append(measure(kind, side, batch, device, seconds, **small))
    text = markdown(content)
    print(text)
    if out is not None:
        write_bytes(out.with_suffix(".md"), text.encode())
    finish(content)
