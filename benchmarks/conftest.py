"""The device, a clock that waits for it, the selection of cells, and a result file that is complete at any time.

pytest-benchmark writes its file after the last benchmark. Here the same content is written before the first benchmark
and after each, so that results survive however a run ends.
"""

import json
import traceback
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.grid.selection import Selection, select
from benchmarks.measure import machine
from benchmarks.measure.devices import ready
from scripts.system.devices import clock
from scripts.system.files import write_bytes
from scripts.system.machine import this_machine


class Results:
    """A plugin that selects the cells and writes the result file.

    Args:
        config: The configuration of pytest.
        device: The device that is timed.
        path: The result file; None for none.
    """

    def __init__(self, config: pytest.Config, device: torch.device, path: Path | None) -> None:
        self.config, self.device, self.path = config, device, path
        self.peaks: dict[str, float] = {}
        self.selection = Selection([], 0.0, {})
        self.benchmarks: list[Any] = []
        self.errors: list[dict[str, str]] = []
        self.machine: dict[str, Any] = {}
        self.began = 0.0  # time of the first cell
        self.commit: dict[str, Any] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Measure the peaks, and select from the cells that -k has left."""
        if config.option.collectonly or not items:
            return
        self.peaks = machine.peaks(self.device)
        cells = {item: item.callspec.params.get("cell") for item in items if hasattr(item, "callspec")}
        chosen = [cell for cell in cells.values() if cell is not None]
        self.selection = select(chosen, this_machine(self.device), self.peaks)
        left_out = {item for item in items if cells.get(item) in self.selection.left_out}
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=[*left_out])
        if self.path is not None:
            self.machine = config.hook.pytest_benchmark_generate_machine_info(config=config)
            self.machine |= machine.description(self.device) | {"peaks": self.peaks}
            self.commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
            self.write()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip the cell if the time for all of them is over."""
        cell = item.callspec.params.get("cell") if hasattr(item, "callspec") else None
        if cell is None or item.config.option.benchmark_disable:
            return
        now = clock(self.device)
        self.began = self.began or now
        if reason := self.selection.overdue(now - self.began, this_machine(self.device)):
            self.selection.left_out[cell] = reason
            pytest.skip(reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Record the measurement, or the error."""
        report = yield
        benchmark = getattr(item, "funcargs", {}).get("benchmark")
        if report.failed:
            if benchmark is not None:
                benchmark.has_error = True  # the time of a wrong output does not count
            self.errors.append({"name": item.name, "error": call.excinfo.exconly().splitlines()[0]})
            traceback.clear_frames(call.excinfo.tb)  # they would hold memory on a GPU
        if benchmark is not None and report.when == "call":
            self.benchmarks += [benchmark.stats] if benchmark.stats else []
            self.write()
        return report

    def pytest_sessionfinish(self) -> None:
        """Measure the peaks once more, to show how far a shared machine has drifted."""
        if self.benchmarks:
            self.machine["peaks_at_the_end"] = machine.peaks(self.device)
            self.write()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print how many cells were left out, by reason, and where the results are."""
        if self.selection.left_out:
            terminalreporter.write_line(f"cells left out: {self.selection.summary()}")
        if self.path is not None:
            terminalreporter.write_line(f"results: {self.path}")

    def write(self) -> None:
        """Write the result file as pytest-benchmark does, but without the times of single rounds."""
        if self.path is None:
            return
        hook = partial(self.config.hook.pytest_benchmark_generate_json, config=self.config, include_data=False)
        content = hook(benchmarks=self.benchmarks, machine_info=self.machine, commit_info=self.commit)
        left_out = [{"cell": str(cell), "reason": reason} for cell, reason in self.selection.left_out.items()]
        content |= {"left_out": left_out, "errors": self.errors}
        write_bytes(self.path, json.dumps(content, indent=4, default=str).encode())


@cache
def timed() -> torch.device:
    """The accelerator if there is one, set up at the first call."""
    return ready("auto")


def timer() -> float:
    """Seconds. pytest-benchmark calls this without a device, and its own clock waits for none."""
    return clock(timed())


def pytest_configure(config: pytest.Config) -> None:
    path, config.option.benchmark_json = config.option.benchmark_json, None
    config.pluginmanager.register(Results(config, timed(), path and Path(path)), "results")
    config.option.benchmark_timer = f"{__name__}.timer"
    # a selection that times nothing is no error
    config.addinivalue_line("filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The accelerator if there is one."""
    return timed()


@pytest.fixture(scope="session")
def peaks(pytestconfig: pytest.Config) -> Mapping[str, float]:
    """The machine's peaks, measured before the first benchmark."""
    return pytestconfig.pluginmanager.get_plugin("results").peaks
