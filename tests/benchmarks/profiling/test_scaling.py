"""The exponents that the scaling curves are fitted with."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure.modes import MODES
from benchmarks.measure.timing import Call
from benchmarks.profiling import scaling
from benchmarks.profiling.scaling import TITLES, curves, draw, fit, measure
from tests.support.machines import CPU, EVERY, H100, PLAIN_CPU

SIZES = (1, 2, 4, 8, 16, 32, 64)


@given(st.floats(-1, 4), st.floats(1e-6, 1e2))
def test_exponent_and_factor_of_a_power_are_found(exponent: float, factor: float) -> None:
    found = fit(SIZES, [factor * size**exponent for size in SIZES])
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert found.factor == pytest.approx(factor)


def test_the_interval_of_noisy_times_holds_the_exponent_as_often_as_it_says() -> None:
    draws = random.Random(0)
    held = 0
    for _ in range(200):
        found = fit(SIZES, [0.01 * size**1.5 * math.exp(draws.gauss(0, 0.05)) for size in SIZES])
        held += found.low <= 1.5 <= found.high
    assert 0.91 <= held / 200 <= 0.99


WARP = curves(PLAIN_CPU)[-1]


def test_sizes_follow_the_machine() -> None:
    for machine in EVERY:
        sizes = [curve.sizes for curve in curves(machine)]
        assert sizes == [curve.sizes for curve in curves(H100 if machine.accelerated else PLAIN_CPU)]
    assert all(len(curve.sizes) >= 5 for machine in EVERY for curve in curves(machine))


@pytest.mark.parametrize("place", range(5))
def test_the_smallest_work_on_a_gpu_takes_longer_than_its_launch(place: int) -> None:
    """By the data sheet of an H100 (989 TFLOP/s in bfloat16, 3.35 TB/s), and at the least; a launch takes 10 µs."""
    curve = curves(H100)[place]
    with torch.device("meta"):
        work = curve.build(**{curve.axis: curve.sizes[0]}).work
    assert work.least_seconds("forward", itemsize=2, flops=989.4e12, bandwidth=3.35e12) > 10e-6


def test_what_was_computed_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MODES["forward"]

    def caching(*arguments: object) -> Call:
        call, kept = right(*arguments), []
        return lambda: (kept or kept.append(call()) or kept)[0]

    monkeypatch.setitem(MODES, "forward", caching)
    with pytest.raises(AssertionError, match=r"not close|must follow its input"):
        measure(WARP._replace(sizes=(4, 8, 16)), "forward", torch.float32, CPU, 0.0)


def test_every_curve_is_kept_as_it_comes_and_an_error_is_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_curve_is_measured_size_by_size_and_drawn(tmp_path: Path) -> None:
    curve = WARP._replace(sizes=(4, 8, 16))
    found = [measure(curve, mode, torch.float32, CPU, 0.0) for mode in TITLES]
    assert all(len(each["seconds"]) == 3 and min(each["seconds"]) > 0 for each in found)
    assert found[0]["flops_exponent"] == pytest.approx(2), "of a warp, in the side"
    machine = {"identity": "a machine", "started": "2026-01-02T03:04:05"}
    draw({"machine": machine, "precision": "float32", "curves": found}, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
