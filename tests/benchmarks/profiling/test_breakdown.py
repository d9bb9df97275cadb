"""The breakdown of time: every operator is in one category, and the categories add up to all of the time."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import profile

from benchmarks.measure.timing import Call
from benchmarks.profiling import breakdown
from benchmarks.profiling.breakdown import CATEGORIES, REST, category, markdown, shares
from scripts.system.errors import InputError

NAMES = {
    "aten::addmm": "matrix products", "mkldnn::_linear_pointwise": "matrix products", "aten::mm": "matrix products",
    "aten::convolution_backward": "matrix products", "aten::bmm": "attention", "aten::_softmax": "attention",
    "aten::copy_": "copies and casts", "aten::gelu_backward": "GELU", "aten::native_layer_norm": "norms",
    "aten::_flash_attention_forward": "attention", "aten::_efficient_attention_backward": "attention",
    "aten::_cudnn_attention_forward": "attention", "aten::_scaled_dot_product_cudnn_attention": "attention",
    "triton_poi_fused_addmm_gelu_3": "compiled loops", "triton_red_fused_native_layer_norm_0": "compiled loops",
    "aten::_fused_adamw_": "optimizer", "## Call CompiledFxGraph fyyy ##": "compiled loops", "aten::add": REST,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_category_of_an_operator(name: str) -> None:
    assert category(name) == NAMES[name]


def test_shares_add_up_and_the_product_has_the_largest() -> None:
    a = torch.randn(600, 600)
    with profile() as profiled:
        (a @ a).add(1)
    found = shares(profiled.key_averages(), torch.device("cpu"))
    assert [*found] == [*CATEGORIES, REST]
    assert sum(found.values()) == pytest.approx(1)
    assert found["matrix products"] > 0.5


def event(key: str, device: DeviceType, microseconds: float, *, annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        key=key, device_type=device, self_device_time_total=microseconds, self_cpu_time_total=1.0,
        is_user_annotation=annotation,
    )  # fmt: skip


def test_a_profile_of_a_gpu_is_counted_once() -> None:
    """A made-up trace: 1,000 us of kernels, listed again for the operators that launched them and for annotations."""
    cpu, gpu = DeviceType.CPU, DeviceType.CUDA
    trace = [
        event("aten::addmm", cpu, 600.0), event("nvjet_tst_128x128", gpu, 600.0),
        event("aten::_flash_attention_forward", cpu, 150.0), event("pytorch_flash::flash_fwd_kernel", gpu, 150.0),
        event("triton_poi_fused_addmm_gelu_0", cpu, 100.0), event("triton_poi_fused_addmm_gelu_0", gpu, 100.0),
        event("aten::_fused_adamw_", cpu, 150.0), event("multi_tensor_apply_kernel", gpu, 150.0),
        event("Optimizer.step#AdamW.step", cpu, 15.0, annotation=True),
        event("Optimizer.step#AdamW.step", gpu, 150.0, annotation=True),
        event("ProfilerStep#0", gpu, 900.0, annotation=True),
    ]  # fmt: skip
    found = shares(trace, torch.device("cuda:1"))
    assert {title: share for title, share in found.items() if share} == pytest.approx(
        {"matrix products": 0.6, "attention": 0.15, "compiled loops": 0.1, "optimizer": 0.15}
    )


@pytest.mark.parametrize("device", ["cuda:0", "mps:0", "xpu:0"])
def test_a_profile_without_time_on_the_gpu_is_an_error(device: str) -> None:
    """The time of the CPU is that of launches, and no substitute."""
    launched = event("aten::addmm", DeviceType.CPU, 0.0)
    wanted = rf"^--device \({device}\) must be one whose time torch's profiler sees; it saw none"
    with pytest.raises(InputError, match=wanted):
        shares([launched], torch.device(device))


SMALL = {"dim": 24, "num_heads": 2, "mlp_dim": 48, "depth": 1}


def test_a_cached_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right, kept = breakdown.default_call, []

    def caching(*arguments: object) -> Call:
        call = right(*arguments)
        return lambda: (kept or kept.append(call()) or kept)[0]

    monkeypatch.setattr(breakdown, "default_call", caching)
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        breakdown.measure("training", 32, 2, torch.device("cpu"), 0.0, **SMALL)


def test_each_result_and_each_error_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measured(kind: str, side: int, batch: int, *_: object, **__: object) -> dict[str, object]:
        seen.append(len(json.loads(out.read_text("utf-8"))["works"]))
        if side == 224:
            raise RuntimeError("out of memory")
        return WORK | {"kind": kind}

    out = tmp_path / "breakdown.json"
    monkeypatch.setattr(breakdown, "measure", measured)
    with pytest.raises(SystemExit, match="1"):
        breakdown.main(breakdown.BreakdownOptions(device="cpu", smoke=True, out=str(out)))
    assert seen == [0, 1, 1, 2]
    errors = json.loads(out.read_text("utf-8"))["errors"]
    assert [error["error"] for error in errors] == 2 * ["RuntimeError: out of memory"]


TIME = dict.fromkeys((*CATEGORIES, REST), 0.0) | {"matrix products": 0.75, REST: 0.25}
WORK = {
    "kind": "inference", "side": 32, "batch": 128, "precision": "bfloat16", "seconds": [0.4, 0.5, 0.6],
    "tflops": 0.35, "share_of_peak": [0.8, 0.7, 0.9], "time": TIME,
}  # fmt: skip


def test_the_page_has_no_column_for_a_category_without_time() -> None:
    machine = {"identity": "a machine", "torch": "2", "started": "2026-01-02T03:04:05", "commit": "abc"}
    page = markdown({"machine": machine, "works": [WORK]})
    assert "| work | images/s | TFLOP/s | share of the peak | matrix products | the rest |" in page
    row = "| inference, 32 pixels, batch 128, bfloat16 | 256 | 0.35 | 0.800 [0.700, 0.900] | 75.0% | 25.0% |"
    assert row in page
    assert "commit abc." in page
