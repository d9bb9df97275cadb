"""What a run does with memory: what it frees is there for what comes next."""

import subprocess
import sys

import pytest

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
