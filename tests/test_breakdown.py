"""Where time goes: every operation is in one group, and the groups are all of the time."""

import pytest
import torch
from torch.profiler import profile

from benchmarks.breakdown import GROUPS, REST, group, markdown, shares

NAMES = {
    "aten::addmm": "matrix products", "mkldnn::_linear_pointwise": "matrix products", "aten::mm": "matrix products",
    "aten::convolution_backward": "matrix products", "aten::bmm": "attention", "aten::_softmax": "attention",
    "aten::copy_": "copies and casts", "aten::gelu_backward": "GELU", "aten::native_layer_norm": "norms",
    "aten::_fused_adamw_": "optimizer", "## Call CompiledFxGraph fyyy ##": "compiled loops", "aten::add": REST,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_where_people_look_for_it(name: str) -> None:
    assert group(name) == NAMES[name]


def test_all_time_is_somewhere_and_most_of_it_where_the_work_is() -> None:
    a = torch.randn(600, 600)
    with profile() as profiled:
        (a @ a).add(1)
    found = shares(profiled.key_averages(), torch.device("cpu"))
    assert [*found] == [*GROUPS, REST]
    assert sum(found.values()) == pytest.approx(1)
    assert found["matrix products"] > 0.5


def test_the_page_leaves_out_what_takes_no_time() -> None:
    time = dict.fromkeys((*GROUPS, REST), 0.0) | {"matrix products": 0.75, REST: 0.25}
    work = {
        "kind": "inference", "side": 32, "batch": 128, "precision": "bfloat16", "seconds": [0.4, 0.5, 0.6],
        "tflops": 0.35, "share_of_peak": [0.8, 0.7, 0.9], "time": time,
    }  # fmt: skip
    machine = {"identity": "a machine", "torch": "2", "started": "2026-01-02T03:04:05", "commit": "abc"}
    page = markdown({"machine": machine, "works": [work]})
    assert "| work | images/s | TFLOP/s | share of the peak | matrix products | the rest |" in page
    row = "| inference, 32 pixels, batch 128, bfloat16 | 256 | 0.35 | 0.800 [0.700, 0.900] | 75.0% | 25.0% |"
    assert row in page
    assert "commit abc." in page
    assert "commit unknown." in markdown({"machine": machine | {"commit": None}, "works": [work]})
