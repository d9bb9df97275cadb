"""Timers that wait for the device, and what the machine was, kept beside every number."""

from typing import Any

import pytest
import torch

from scripts.devices import choose_device
from scripts.run_folder import environment


def pytest_configure(config: pytest.Config) -> None:
    # pytest-benchmark's own clock stops before a GPU has finished; this one waits for it
    config.option.benchmark_timer = "torch.utils.benchmark.utils.timer.timer"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The accelerator, where there is one."""
    return choose_device("auto")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["run"] = environment(choose_device("auto"))
