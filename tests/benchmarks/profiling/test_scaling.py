"""The scaling curves: their sizes, their fitted exponents, and their picture."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure.calls import CALLS
from benchmarks.measure.timing import Call
from benchmarks.profiling import scaling
from benchmarks.profiling.scaling import curves, fit, measure
from tests.support.machines import CPU, EVERY, H100, PLAIN_CPU

SIZES = (1, 2, 4, 8, 16, 32, 64)


@given(st.floats(-1, 4), st.floats(1e-6, 1e2))
def test_the_fit_finds_exponent_and_factor_of_a_power(exponent: float, factor: float) -> None:
    found = fit(SIZES, [factor * size**exponent for size in SIZES])
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert found.factor == pytest.approx(factor)


def test_the_interval_contains_the_exponent_as_often_as_it_claims() -> None:
    draws = random.Random(0)
    held = 0
    for _ in range(200):
        found = fit(SIZES, [0.01 * size**1.5 * math.exp(draws.gauss(0, 0.05)) for size in SIZES])
        held += found.low <= 1.5 <= found.high
    assert 0.91 <= held / 200 <= 0.99


WARP = curves(PLAIN_CPU)[-1]


def test_there_are_two_sets_of_sizes_one_for_gpus() -> None:
    for machine in EVERY:
        sizes = [curve.sizes for curve in curves(machine)]
        assert sizes == [curve.sizes for curve in curves(H100 if machine.accelerated else PLAIN_CPU)]
        assert min(map(len, sizes)) >= 5


@pytest.mark.parametrize("place", range(5))
def test_the_smallest_work_on_a_gpu_takes_longer_than_its_launch(place: int) -> None:
    """A lower bound by the data sheet of an H100 (989 TFLOP/s in bfloat16, 3.35 TB/s); a launch takes 10 µs."""
    curve = curves(H100)[place]
    with torch.device("meta"):
        work = curve.build(**{curve.axis: curve.sizes[0]}).work
    assert work.least_seconds("forward", itemsize=2, flops=989.4e12, bandwidth=3.35e12) > 10e-6


def test_a_cached_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CALLS["forward"]

    def caching(*arguments: object) -> Call:
        call, kept = right(*arguments), []
        return lambda: (kept or kept.append(call()) or kept)[0]

    monkeypatch.setitem(CALLS, "forward", caching)
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        measure(WARP._replace(sizes=(4, 8, 16)), "forward", torch.float32, CPU, 0.0)


def test_each_curve_and_each_error_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, seen = measure, []

    def measured(curve: scaling.Curve, *arguments: object) -> dict[str, object]:
        seen.append(len(json.loads(out.read_text("utf-8"))["curves"]))
        if curve.axis != "side":
            raise RuntimeError("out of memory")
        return right(WARP._replace(name=curve.name, sizes=(4, 8, 16)), *arguments)

    out = tmp_path / "scaling.json"
    monkeypatch.setattr(scaling, "measure", measured)
    with pytest.raises(SystemExit, match="1"):
        scaling.main(scaling.ScalingOptions(device="cpu", smoke=True, out=str(out)))
    content = json.loads(out.read_text("utf-8"))
    assert seen == [0, 0, 0, 0, 0, 0, 0, 1, 2, 3]
    assert [error["error"] for error in content["errors"]] == 6 * ["RuntimeError: out of memory"]
    assert out.with_suffix(".png").is_file()


def test_a_curve_has_a_time_for_each_size_and_the_exponent_of_its_flops() -> None:
    found = measure(WARP._replace(sizes=(4, 8, 16)), "backward", torch.float32, CPU, 0.0)
    assert len(found["seconds"]) == 3
    assert min(found["seconds"]) > 0
    assert found["flops_exponent"] == pytest.approx(2), "of a warp, in the side"
