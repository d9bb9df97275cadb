"""Kernels that ``torch.compile`` writes for a GPU, checked without one: Triton builds them, and the warp is right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import components
from tests.support.machines import H100, T4
from tests.support.marks import builds_kernels

pytestmark = builds_kernels


def lines_of(what: str, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """Run ``tests/support/fake_triton.py``, with caches in a folder of its own: a killed run then damages no other."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.fake_triton", what],
        env=os.environ | caches | environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.long
def test_every_kernel_is_built_for_a_t4_and_an_h100(tmp_path: Path) -> None:
    """In the dtypes that the machine supports; in others torch would silently run eagerly."""
    lines = lines_of("build", tmp_path)
    assert len(lines) == 2 * 2 * 2, "machines, types, networks"
    assert {name for line in lines for name in line["components"]} == {*components.__all__}
    for machine, target in ((T4, "sm_75"), (H100, "sm_90a")):
        for line in (line for line in lines if line["machine"] == machine.name):
            if line["dtype"].removeprefix("torch.") in machine.types:
                assert line["refused"] is None
                assert {*line["kernels"]} == {target}
            else:
                assert line["refused"] == "BF16 is not supported"


def test_the_compiled_warp_is_one_kernel_that_computes_what_eager_does(tmp_path: Path) -> None:
    (line,) = lines_of("interpret", tmp_path, TRITON_INTERPRET="1")
    assert line["kernels"] == 1, "neither grid nor coordinates are written to memory"
    assert line["error"] < 1e-4
