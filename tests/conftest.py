"""Hypothesis profiles, the device, threads, and a random state that is restored after each test."""

import gc
import os
import random
import re
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings

from scripts.system.signals import SIGNALS
from tests.support import torch_faults

settings.register_profile("dev", max_examples=15, deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=1000)
# for a mutant, the first failing example is enough, and shrinking it is not needed
settings.register_profile(
    "mutants", settings.get_profile("ci"), max_examples=20, database=None, report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate),
)  # fmt: skip
# a default: --hypothesis-profile overrides it
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# tests commit in folders of their own: a hook or `git rebase --exec` would lead them to the user's repository instead
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "commit.gpgsign", "GIT_CONFIG_VALUE_0": "false"}

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else it starts processes that import torch once more
# kernels that Inductor keeps from a run with all instructions of this CPU crash in one with fewer (torch 2.14)
if (hidden := os.environ.get("ATEN_CPU_CAPABILITY")) and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # the import sets the variable

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{default_cache_dir()}_{hidden}"
gc.set_threshold(10_000)  # new objects instead of 700, since garbage collection takes a share of the suite's time
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # it keeps 10 bits of 23


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="device for the contract")
    parser.addoption("--threads", default=1, type=int, help="torch threads per process; the suite runs in several")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes more than ten seconds")
    config.addinivalue_line("markers", "numerics: its numbers depend on how a CPU rounds")
    torch.set_num_threads(config.getoption("threads"))
    for number in SIGNALS:  # some are ignored behind nohup and in the background of a script, and tests raise them
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if config.getoption("device") == "cuda" and not torch.cuda.is_available():
        pytest.exit("--device cuda: torch finds no CUDA device on this machine", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first, so that no process ends long after the others; mark the faults of torch."""
    torch_faults.expect(items)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, which would scan them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _restored_random_state() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is the point
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002


@pytest.fixture
def device(pytestconfig: pytest.Config) -> torch.device:
    """The device of ``--device``."""
    return torch.device(pytestconfig.getoption("device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After a run of the whole contract, print its table, and which tests were skipped and why."""
    from tests.contract import table
    from tests.contract.items import contract_tests

    reports = [report for key in ("passed", "failed", "skipped") for report in terminalreporter.stats.get(key, ())]
    contract = [report for report in reports if "tests/contract/test_contract.py::" in report.nodeid]
    if not set(contract_tests()) <= {re.split(r"::|\[", report.nodeid)[1] for report in contract}:
        return
    terminalreporter.section("component x contract")
    for line in table.plain():
        terminalreporter.write_line(line)
    for report in contract:
        if report.skipped:
            terminalreporter.write_line(f"skipped: {report.nodeid} ({report.longrepr[-1]})")
