"""The device, a clock that waits for it, and what the machine is and can do, kept beside every number."""

from typing import Any

import pytest
import torch

from benchmarks import machine
from scripts.devices import choose_device, keep_freed_memory


def pytest_configure(config: pytest.Config) -> None:
    keep_freed_memory()
    config.option.benchmark_timer = "benchmarks.timing.clock"  # its own clock stops before a GPU has finished
    # that a selection times nothing is no error
    config.addinivalue_line("filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The accelerator, where there is one."""
    return choose_device("auto")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    device = choose_device("auto")
    # measured before the first cell, and here once more: how far a shared machine has drifted under it all
    peaks = {"peaks": machine.peaks(device), "peaks_at_the_end": machine.peaks.__wrapped__(device)}
    machine_info |= machine.description(device) | peaks


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    for entry in output_json["benchmarks"]:
        entry["stats"].pop("data", None)  # each round: a result file is to be read and kept
