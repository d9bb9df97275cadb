"""The device, a clock that waits for it, which cells are left out, and a result file that is whole at any time.

pytest-benchmark would write its file after the last benchmark. Here the same content is written before the first one
and after each, so that whatever ends a run leaves what was measured.
"""

import json
import traceback
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.grid.plan import Plan, as_records, plan
from benchmarks.measure import machine
from benchmarks.measure.devices import ready
from scripts.system.devices import clock
from scripts.system.files import write_whole
from scripts.system.machine import this_machine


class Results:
    """What is measured, where it is kept, and what is left out.

    Args:
        config: Of pytest.
        device: What is timed.
        path: The file to write; None where none was asked for.
    """

    def __init__(self, config: pytest.Config, device: torch.device, path: Path | None) -> None:
        self.config, self.device, self.path = config, device, path
        self.peaks: dict[str, float] = {}
        self.plan = Plan([], 0.0, {})
        self.benchmarks: list[Any] = []
        self.errors: list[dict[str, str]] = []
        self.machine: dict[str, Any] = {}
        self.began = 0.0  # the first cell
        self.commit: dict[str, Any] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Measure the machine, and leave out what it cannot do in time, of what -k has left."""
        if config.option.collectonly or not items:
            return
        self.peaks = machine.peaks(self.device)
        cells = {item: item.callspec.params.get("cell") for item in items if hasattr(item, "callspec")}
        chosen = [cell for cell in cells.values() if cell is not None]
        self.plan = plan(chosen, this_machine(self.device), self.peaks)
        left_out = {item for item in items if cells.get(item) in self.plan.left_out}
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=[*left_out])
        if self.path is not None:
            self.machine = config.hook.pytest_benchmark_generate_machine_info(config=config)
            self.machine |= machine.description(self.device) | {"peaks": self.peaks}
            self.commit = config.hook.pytest_benchmark_generate_commit_info(config=config)
            self.write()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin no further cell once the time for all of them is spent."""
        cell = item.callspec.params.get("cell") if hasattr(item, "callspec") else None
        if cell is None or item.config.option.benchmark_disable:
            return
        now = clock(self.device)
        self.began = self.began or now
        if reason := self.plan.overdue(now - self.began, this_machine(self.device)):
            self.plan.left_out[cell] = reason
            pytest.skip(reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Keep what was measured, or why it was not."""
        report = yield
        benchmark = getattr(item, "funcargs", {}).get("benchmark")
        if report.failed:
            if benchmark is not None:
                benchmark.has_error = True  # a time without a right output is none
            self.errors.append({"name": item.name, "error": call.excinfo.exconly().splitlines()[0]})
            traceback.clear_frames(call.excinfo.tb)  # what they hold on a GPU would be missing for the others
        if benchmark is not None and report.when == "call":
            self.benchmarks += [benchmark.stats] if benchmark.stats else []
            self.write()
        return report

    def pytest_sessionfinish(self) -> None:
        """Measure the peaks once more: how far a shared machine has drifted under it all."""
        if self.benchmarks:
            self.machine["peaks_at_the_end"] = machine.peaks(self.device)
            self.write()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """How many cells were left out, by reason, and where the results are."""
        if self.plan.left_out:
            terminalreporter.write_line(f"cells left out: {self.plan.summary()}")
        if self.path is not None:
            terminalreporter.write_line(f"results: {self.path}")

    def write(self) -> None:
        """All that is known, as pytest-benchmark writes it; without each round, as a result file is to be read."""
        if self.path is None:
            return
        hook = partial(self.config.hook.pytest_benchmark_generate_json, config=self.config, include_data=False)
        content = hook(benchmarks=self.benchmarks, machine_info=self.machine, commit_info=self.commit)
        content |= {"left_out": as_records(self.plan.left_out), "errors": self.errors}
        write_whole(self.path, lambda file: file.write(json.dumps(content, indent=4, default=str).encode()))


@cache
def timed() -> torch.device:
    """The accelerator, where there is one, made ready when first asked for."""
    return ready("auto")


def timer() -> float:
    """Seconds: pytest-benchmark asks for them without a word of the device, and its own clock waits for none."""
    return clock(timed())


def pytest_configure(config: pytest.Config) -> None:
    path, config.option.benchmark_json = config.option.benchmark_json, None
    config.pluginmanager.register(Results(config, timed(), path and Path(path)), "results")
    config.option.benchmark_timer = f"{__name__}.timer"
    # that a selection times nothing is no error
    config.addinivalue_line("filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning")


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    return pytestconfig.pluginmanager.get_plugin("results")


@pytest.fixture(scope="session")
def device(results: Results) -> torch.device:
    """The accelerator, where there is one."""
    return results.device


@pytest.fixture(scope="session")
def peaks(results: Results) -> Mapping[str, float]:
    """Of the machine, measured before the first benchmark."""
    return results.peaks
