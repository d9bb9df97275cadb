"""What a run does with its device: what it frees is there for what comes next, and times are those of the device."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scripts.devices import clock

PROGRAM = """
import resource, torch
from scripts.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.zeros(2**23)  # 32 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
faults()  # small blocks find their places between the large ones
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split())
    assert before > 3 * 100, "otherwise there is nothing to gain here"
    assert after < 10


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu", ["read"]), ("cuda:1", ["cuda:1", "read"]), ("mps", ["mps", "read"])]
)
def test_the_clock_is_read_once_that_device_has_done_its_work(
    name: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: calls.append(str(device)))
    monkeypatch.setattr(time, "perf_counter", lambda: calls.append("read") or 7.5)
    assert clock(torch.device(name)) == 7.5
    assert calls == expected


def test_a_time_that_is_reported_comes_from_that_clock() -> None:
    """It waits for the device; how long ago something was may be read without."""
    scripts = Path(__file__).parent.parent / "scripts"
    reading = [path.stem for path in scripts.rglob("*.py") if "perf_counter" in path.read_text("utf-8")]
    assert reading == ["devices"]
