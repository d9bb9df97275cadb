"""What a run does with memory: what it frees is there for what comes next."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from scripts.devices import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):  # small blocks find their places between the large ones
    torch.zeros(2**23)
before = faults()
for _ in range(10):
    torch.zeros(2**23)  # 32 MiB
print(faults() - before)
"""


def faults(way: str) -> int:
    """How many page faults ten large tensors cost, one after another."""
    return int(subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    assert faults("give back") > 10 * 100, "otherwise there is nothing to gain here"
    assert faults("keep") < 10
