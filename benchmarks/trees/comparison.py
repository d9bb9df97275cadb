"""Check whether this tree is slower than another one: both are timed now, alternating in every round.

Figures in a result file are no baseline: on a shared machine the same code differs by 40 % from hour to hour. So the
file only names a commit and a machine. Components and scripts of that commit come from git, and two processes, one for
each tree, time every cell with this tree's benchmarks, alternating in every round, so that conditions are the same.
Two processes with the same code may differ by a few percent throughout their lives. So a cell is slower if the whole
95 % interval of the ratio lies above 1.05, and does so again in two new processes.
"""

import dataclasses
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.grid.cells import Cell, grid
from benchmarks.grid.selection import obstacle, select
from benchmarks.measure.devices import ready
from benchmarks.measure.machine import peaks
from benchmarks.measure.timing import Interval, affordable, in_turn, ratio, repeats
from benchmarks.options import CompareOptions
from scripts.system.errors import InputError
from scripts.system.machine import this_machine

ROOT = Path(__file__).parents[2]
PROCESSES = 2  # that hold a cell at the same time: one for each tree
SLOWER, UNCLEAR = 1.05, 1.2  # bounds of the ratio: the whole interval lies above the first, or reaches above the second
SAMPLE = 0.002  # seconds: shorter than a time slice of another process, so that most samples are undisturbed


def main(options: CompareOptions) -> bool:
    """Print a line for each cell, and return whether any cell is slower.

    Raises:
        InputError: If the base is unknown or from another machine, or no cell is selected.
    """
    device = ready("auto")
    commit = commit_of(options.base, device)
    machine = this_machine(device)
    everything = worthwhile(cell for cell in grid() if not obstacle(cell, machine, PROCESSES))
    named = [cell for cell in everything if options.only in str(cell)]
    if not named:
        raise InputError(f"--only ({options.only}) must be part of a cell's name, as in {everything[0]}")
    planned = select(named, machine, peaks(device), copies=PROCESSES)
    chosen = planned.cells
    if planned.left_out:
        print(f"cells left out: {planned.summary()}")
    with TemporaryDirectory() as folder:
        trees = {"now": ROOT, "base": Path(folder)}
        extract(commit, trees["base"])
        slower = compare(trees, chosen, options.seconds)
    print(f"{len(slower)} of {len(chosen)} cells are slower than at {commit[:12]}")
    return bool(slower)


def compare(trees: dict[str, Path], chosen: Sequence[Cell], seconds: float) -> list[Cell]:
    """Return the cells that are slower in both of two measurements."""
    found = [cell for cell, interval in measured(trees, chosen, seconds) if interval.low > SLOWER]
    if found:
        print("these again, in new processes:")
    return [cell for cell, interval in measured(trees, found, seconds) if interval.low > SLOWER]


def measured(trees: dict[str, Path], chosen: Sequence[Cell], seconds: float) -> Iterable[tuple[Cell, Interval]]:
    """Yield each cell with the ratio of its time now to its time at the base."""
    if not chosen:
        return
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(path)) for name, path in trees.items()}
        for cell in chosen:
            once = {name: min(worker.time(cell) for _ in range(3)) for name, worker in workers.items()}
            count = repeats(min(once.values()), SAMPLE)
            rounds = affordable(seconds, count * sum(once.values()))
            times = in_turn({name: partial(worker.time, cell, count) for name, worker in workers.items()}, rounds)
            for worker in workers.values():
                worker.time(cell, 0)
            interval = ratio(times["now"], times["base"])
            print(f"{cell!s:<62} {interval} {verdict(interval)}".rstrip(), flush=True)
            yield cell, interval


def verdict(interval: Interval) -> str:
    """A remark on a ratio; empty if the cell is not slower, as far as the interval shows."""
    if interval.low > SLOWER:
        return "slower"
    return f"may be slower by up to {interval.high - 1:.0%}: try more --seconds" if interval.high > UNCLEAR else ""


class Worker:
    """A process that times the components of one tree.

    Args:
        tree: A folder with ``components``, ``scripts`` and ``benchmarks``.
    """

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def __enter__(self) -> "Worker":
        command = [sys.executable, "-m", "benchmarks.trees.worker"]
        self.process = subprocess.Popen(
            command, cwd=self.tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its input, so that it ends

    def time(self, cell: Cell, repeats: int = 1) -> float:
        """Seconds of a call, as the mean of ``repeats``; with 0 the output is checked again instead.

        Raises:
            InputError: If the cell fails in that tree.
        """
        with suppress(BrokenPipeError):  # a process that has ended gives no answer either
            self.process.stdin.write(json.dumps({"cell": dataclasses.asdict(cell), "repeats": repeats}) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise InputError(f"{cell} must run in {self.tree}; it failed with the error above")
        return float(answer)


def worthwhile(grid: Iterable[Cell]) -> list[Cell]:
    """The cells that show any change: forward pass and step, eager, at the largest batch up to 64 of each workload."""
    few = [cell for cell in grid if cell.mode != "backward" and not cell.compiled and cell.batch <= 64]
    largest = {(cell.row, cell.mode, cell.dtype): cell for cell in few}  # batches are in rising order
    return [*largest.values()]


def commit_of(base: str, device: torch.device) -> str:
    """Return the commit that a result file was measured at, or that a revision names.

    Raises:
        InputError: If git does not know it, or the file comes from another machine.
    """
    revision = base
    if Path(base).is_file():
        info = read_machine(Path(base))
        here = this_machine(device).identity
        if info["identity"] != here:
            raise InputError(f"base ({base}) must come from this machine ({here}), not from {info['identity']}")
        revision = info["commit"]
        if revision is None:
            raise InputError(f"base ({base}) must name its commit; it was measured without git")
        if info["uncommitted_changes"] is None:
            print(f"{base} may have been measured with uncommitted changes; compared with its commit")
        elif info["uncommitted_changes"]:
            print(f"{base} was measured with uncommitted changes; compared with its commit")
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except subprocess.CalledProcessError:
        raise InputError(f"base ({base}) must be a result file or a commit; git does not know {revision}") from None


def read_machine(path: Path) -> dict[str, Any]:
    """Read the machine and the commit from a result file.

    Raises:
        InputError: If it is no result file.
    """
    try:
        info = json.loads(path.read_text("utf-8"))["machine_info"]
        return {key: info[key] for key in ("identity", "uncommitted_changes", "commit")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"base ({path}) must be a JSON file of `make bench`") from error


def extract(commit: str, folder: Path) -> None:
    """Write components and scripts of a commit and the benchmarks of this tree into a folder.

    The scripts are this tree's too if that commit arranges them differently, or has none.

    Raises:
        InputError: If the commit has no components.
    """
    git = ["git", "-C", str(ROOT)]
    listed = subprocess.run([*git, "ls-tree", "-d", "--name-only", commit], capture_output=True, text=True, check=True)
    there = [name for name in ("components", "scripts") if name in listed.stdout.splitlines()]
    if "components" not in there:
        raise InputError(f"base ({commit}) must have components/, which is what is compared")
    command = [*git, "archive", commit, *there]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run, tarfile.open(fileobj=run.stdout, mode="r|") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # new in Python 3.10.12 and 3.11.4
        tar.extractall(folder)
    if not (folder / "scripts" / "models").is_dir():
        print(f"{commit[:12]} has no scripts/models/: both use the scripts of this tree, only components differ")
        rmtree(folder / "scripts", ignore_errors=True)
        copytree(ROOT / "scripts", folder / "scripts")
    copytree(ROOT / "benchmarks", folder / "benchmarks")
