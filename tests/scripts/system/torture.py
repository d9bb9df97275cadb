"""Kill short runs at random instants, resume them, and compare the results with those of an uninterrupted run.

    make torture                                      # 50 kills of each script
    python -m tests.scripts.system.torture --kills 5 --seed 7        # fewer, reproducible

Runs are forked from one process that has imported everything, since importing takes longer than training here. Three
of four kills come from outside after a random time, the fourth while a file is written. The Vision Transformer is
small. The program ends with exit code 1 at the first difference, and keeps the folders.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts import experiment, train_stn, train_vit
from scripts.data import datasets as data
from scripts.models.vit import PRESETS
from scripts.run.folder import read_metrics
from scripts.run.page import write_report
from scripts.system.command_line import option, parse, run, whole
from scripts.system.files import read_json
from tests.support.networks import TINY_PRESETS
from tests.support.runs import log_without_times, without_times

FLAGS = ["--data", "digits", "--device", "cpu", "--precision", "float32", "--save-minutes", "1e-9", "--epochs", "3",
         "--batch-size", "32", "--limit-train", "80", "--limit-test", "40"]  # fmt: skip
PATIENCE = 600.0  # seconds: a run that takes longer hangs
ENTRIES = {"train_stn": train_stn, "train_vit": train_vit}


@dataclass(frozen=True)
class Options:
    """Kill short runs at random instants, and compare the results with those of an uninterrupted run."""

    kills: int = option(50, "of each script", type=whole(1))
    seed: int | None = option(None, "of the instants (default: random, printed)", type=whole(0))


@dataclass(frozen=True)
class Kill:
    """After so many seconds, or when the n-th file reaches that point of being written."""

    seconds: float = PATIENCE
    point: str = ""
    count: int = 0

    def __str__(self) -> str:
        return f"at {self.point} {self.count}" if self.point else f"after {self.seconds:.3f} s"

    @classmethod
    def draw(cls, draw: random.Random, seconds: float) -> "Kill":
        """Draw a kill for a run of about 50 files that takes so many seconds up to its summary; the report follows."""
        if draw.random() < 0.25:
            return cls(point=draw.choice(("half a file", "sync", "rename")), count=draw.randint(1, 50))
        return cls(seconds=draw.uniform(0, 1.1 * seconds))

    def arm(self) -> None:
        """Make this process kill itself at that point."""
        left = self.count

        def reached() -> bool:
            nonlocal left
            left -= 1
            return left == 0

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*given: Any) -> Any:
                if reached():
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given)

            return wrapped

        def half(state: object, file: Any) -> None:
            content = BytesIO()
            save(state, content)
            if reached():
                file.write(content.getvalue()[: content.tell() // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            file.write(content.getvalue())

        save = torch.save
        if self.point == "sync":
            os.fsync = dying(os.fsync)
        elif self.point == "rename":
            Path.replace = dying(Path.replace)
        elif self.point:
            torch.save = half


def attempt(main: Callable[[], None], program: str, output: Path, kill: Kill) -> int | None:
    """Run ``main`` in a forked process, and return its exit code, or None if it was killed.

    Raises:
        SystemExit: If it is not killed and does not end.
    """
    child = os.fork()
    if child == 0:
        with output.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        kill.arm()
        try:
            run(main, program)
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    end = time.monotonic() + kill.seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if kill.seconds == PATIENCE:
        sys.exit(f"a run must end within {PATIENCE} s; its output is in {output}")
    return None


def start_or_resume(program: str, folder: Path, output: Path, kill: Kill) -> int | None:
    """Do what a user does after a crash: resume the run, or draw its report if it is finished, or start again."""
    if (folder / "summary.json").exists():
        return attempt(lambda: print(write_report(folder)), "report", output, kill)
    if not (folder / "config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
    given = ["--resume", str(folder)] if (folder / "config.json").exists() else [*FLAGS, "--out", str(folder)]
    entry = ENTRIES[program]
    return attempt(lambda: entry.main(parse(entry.Options, program, given)), program, output, kill)


def differences(one: Path, other: Path) -> list[str]:
    """List the differences of two run folders other than times; every file is opened."""
    names = [{path.name for path in folder.iterdir() if not path.name.startswith(".")} for folder in (one, other)]
    found = sorted(names[0] ^ names[1])
    for name in sorted(names[0] & names[1]):
        if name.endswith(".json"):
            read_json(one / name), read_json(other / name)
        if name.endswith(".pt"):
            states = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
            weights = [state.get("model", state) for state in states]
            found += [f"{name}: {key}" for key, value in weights[0].items() if not same(value, weights[1].get(key))]
    if without_times(read_metrics(one)) != without_times(read_metrics(other)):
        found.append("metrics.csv")
    if log_without_times(one) != log_without_times(other):
        found.append("train.log")
    return found


def same(one: object, other: object) -> bool:
    """Return whether two values of a checkpoint have the same bits."""
    return torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other


def torture(program: str, kills: int, draw: random.Random, root: Path) -> None:
    """Kill runs of one script that many times.

    Raises:
        SystemExit: At the first run that does not end, or ends differently.
    """
    whole_run, started = root / f"{program}-whole", time.time()
    if start_or_resume(program, whole_run, root / f"{program}-whole.txt", Kill()) != 0:
        sys.exit(f"{program} must finish when it is not killed; its output is in {whole_run}.txt")
    seconds, killed, runs = (whole_run / "summary.json").stat().st_mtime - started, 0, 0
    while killed < kills:
        runs += 1
        folder = root / f"{program}-{runs}"
        output = folder.with_suffix(".txt")
        while not (folder / "report.html").exists():
            kill = Kill.draw(draw, seconds) if killed < kills else Kill()
            ended = start_or_resume(program, folder, output, kill)
            if ended is None:
                killed += 1
                names = [name for name in ("config.json", "last.pt", "summary.json") if (folder / name).exists()]
                print(f"{program}: kill {killed} {kill}, run {runs} left {', '.join(names) or 'nothing'}", flush=True)
            elif ended != 0:
                sys.exit(f"{program}: run {runs} must resume; it ended with code {ended}, its output is in {output}")
        if found := differences(whole_run, folder):
            sys.exit(f"{program}: run {runs} must end like {whole_run}; {folder} differs in {', '.join(found)}")
    print(f"{program}: {killed} kills, {runs} runs, all with the same weights, metrics and log")


def main() -> None:
    """Kill runs of both scripts."""
    options = parse(Options, "torture")
    seed = random.randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}")
    torch.set_num_threads(1)
    PRESETS.update(TINY_PRESETS)
    digits = data.load("digits")
    experiment.load = lambda source: digits  # drawn only once
    root = Path(tempfile.mkdtemp(prefix="torture-"))
    for program in ENTRIES:
        torture(program, options.kills, random.Random(f"{seed} {program}"), root)
    shutil.rmtree(root)


if __name__ == "__main__":
    run(main, "torture")
