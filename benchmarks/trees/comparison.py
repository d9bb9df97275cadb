"""Whether this tree is slower than another: both are measured now, in turn.

Why not against the figures in the file? On a shared machine the same code differs by 40 % from hour to hour. So the
file says which tree and which machine; that tree's components and scripts are taken from git, and each cell is timed
by two processes, one a tree, in turn in every round: both meet the same machine. The benchmarks themselves are this
tree's for both. A cell is slower if the whole 95 % interval of the ratio lies above 1.05, because two processes with
the same code may differ by a few percent for as long as they live, and if it does so again in two new processes.
"""

import dataclasses
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.grid.cells import Cell, grid
from benchmarks.grid.plan import obstacle, plan
from benchmarks.measure.devices import ready
from benchmarks.measure.machine import peaks
from benchmarks.measure.timing import Interval, affordable, in_turn, ratio, repeats
from benchmarks.options import CompareOptions
from scripts.system.errors import InputError
from scripts.system.machine import this_machine

ROOT = Path(__file__).parents[2]
PROCESSES = 2  # that hold a cell: this tree's and the other's
SLOWER, UNCLEAR = 1.05, 1.2  # above which an interval lies, or reaches
SAMPLE = 0.002  # seconds: shorter than the turn of another process on a busy processor, so that most are undisturbed


def main(options: CompareOptions) -> bool:
    """Print a line for each cell, and return whether one is slower.

    Raises:
        InputError: If the base cannot be had, comes from another machine, or there is nothing to compare.
    """
    device = ready("auto")
    commit = commit_of(options.base, device)
    machine = this_machine(device)
    everything = worthwhile(cell for cell in grid() if not obstacle(cell, machine, PROCESSES))
    named = [cell for cell in everything if options.only in str(cell)]
    if not named:
        raise InputError(f"--only ({options.only}) must be part of a cell's name, as in {everything[0]}")
    planned = plan(named, machine, peaks(device), copies=PROCESSES)
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
    """The cells that are slower now, twice."""
    found = [cell for cell, interval in measured(trees, chosen, seconds) if interval.low > SLOWER]
    if found:
        print("once more, in new processes:")
    return [cell for cell, interval in measured(trees, found, seconds) if interval.low > SLOWER]


def measured(trees: dict[str, Path], chosen: Sequence[Cell], seconds: float) -> Iterable[tuple[Cell, Interval]]:
    """Each cell's time now over its time at the base."""
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
    """What is to be said of a ratio: nothing, where it is known to be harmless."""
    if interval.low > SLOWER:
        return "slower"
    return f"may be slower by {interval.high - 1:.0%}: give it more --seconds" if interval.high > UNCLEAR else ""


class Worker:
    """A process that times the components of one tree.

    Args:
        tree: Folder with ``components``, ``scripts`` and ``benchmarks``.
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
        self.process.communicate()  # nobody asks any more: it ends

    def time(self, cell: Cell, repeats: int = 1) -> float:
        """Seconds of a call; without repeats its output is judged instead.

        Raises:
            InputError: If that tree cannot do it.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"cell": dataclasses.asdict(cell), "repeats": repeats}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise InputError(f"{cell} must run in {self.tree}; it does not, as is said above")
        return float(answer)


def worthwhile(grid: Iterable[Cell]) -> list[Cell]:
    """Of the grid what shows every change: forward pass and step, eager, the largest batch up to 64 of each row."""
    few = [cell for cell in grid if cell.mode != "backward" and not cell.compiled and cell.batch <= 64]
    largest = {(cell.row, cell.mode, cell.dtype): cell for cell in few}  # batches rise
    return [*largest.values()]


def commit_of(base: str, device: torch.device) -> str:
    """The commit that a result file was measured at, or that a revision names.

    Raises:
        InputError: If there is none, or the file comes from another machine.
    """
    revision = base
    if Path(base).is_file():
        info = read_machine(Path(base))
        here = this_machine(device).identity
        if info["identity"] != here:
            raise InputError(f"base ({base}) must come from this machine ({here}), not from {info['identity']}")
        revision = info["commit"]
        if revision is None:
            raise InputError(f"base ({base}) must say of which commit it is; it was measured where there was no git")
        if info["uncommitted_changes"] is None:
            print(f"{base} does not know of changes that no commit has; compared with its commit")
        elif info["uncommitted_changes"]:
            print(f"{base} was measured with changes that no commit has; compared with the commit below them")
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except subprocess.CalledProcessError:
        at = "" if revision == base else f"at commit {revision}, "
        raise InputError(f"base ({base}) must be a result file or a commit; {at}git knows none") from None


def read_machine(path: Path) -> dict[str, Any]:
    """What a result file says of its machine and its tree.

    Raises:
        InputError: If it is no result file.
    """
    try:
        info = json.loads(path.read_text("utf-8"))["machine_info"]
        return {key: info[key] for key in ("identity", "uncommitted_changes", "commit")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"base ({path}) must be a JSON file of `make bench`") from error


def extract(commit: str, folder: Path) -> None:
    """Components and scripts of a commit, and the benchmarks of this tree.

    Of a commit whose scripts lay elsewhere, the components alone.
    """
    command = ["git", "-C", str(ROOT), "archive", commit, "components", "scripts"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as git, tarfile.open(fileobj=git.stdout, mode="r|") as tar:
        tar.extractall(folder, filter="data")
    if not (folder / "scripts" / "models").is_dir():
        print(f"{commit[:12]} has no scripts/models/: both use the scripts of this tree, the components are compared")
        rmtree(folder / "scripts", ignore_errors=True)
        copytree(ROOT / "scripts", folder / "scripts")
    copytree(ROOT / "benchmarks", folder / "benchmarks")
