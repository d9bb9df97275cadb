"""The exponents that the scaling curves are fitted with."""

import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling import CURVES, draw, fit, measure

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


def test_a_curve_is_measured_size_by_size_and_drawn(tmp_path: Path) -> None:
    curve = CURVES[-1]._replace(sizes=(4, 8, 16))
    found = [measure(curve, mode, torch.float32, torch.device("cpu"), 0.0) for mode in ("forward", "backward")]
    assert all(len(each["seconds"]) == 3 and min(each["seconds"]) > 0 for each in found)
    assert found[0]["flops_exponent"] == pytest.approx(2), "of a warp, in the side"
    machine = {"identity": "a machine", "started": "2026-01-02T03:04:05"}
    draw({"machine": machine, "precision": "float32", "curves": found}, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
