"""Kill one of three machines at a random moment of a run, twenty times, and compare how the runs end.

    make torture-elastic                                              # 20 runs, about half a minute each
    python -m tests.scripts.system.elastic --kills 5 --seed 7         # fewer, reproducible

A machine is an agent of torchrun on this computer with the process that it starts: both are killed at once. Agents are
started with the command of scripts/README.md. The program ends with exit code 1 at the first run that does not end, or
ends differently from one that is left alone, and keeps the folders.
"""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from scripts.run.folder import RunFolder, digest, read_metrics
from scripts.system.command_line import option, parse, run, whole
from scripts.system.files import read_json, read_torch
from tests.support.sources import ROOT

EPOCHS = 6
FLAGS = ["--data", "digits", "--recipe", "tuned", "--device", "cpu", "--precision", "float32", "--lr", "0.002",
         "--epochs", str(EPOCHS), "--batch-size", "50", "--limit-train", "1000", "--limit-test", "200",
         "--save-minutes", "0.01"]  # fmt: skip
MACHINES = 3
PATIENCE = 900.0  # seconds: a run that takes longer hangs
UNMET = "Timeout waiting for key"  # what torch raises after five minutes if a machine has died while all met
ERROR = (0.02, 0.002)  # of weights and of losses: see "Several machines" in scripts/README.md


@dataclass(frozen=True)
class Options:
    """Kill one of three machines at a random moment of each run, and compare how the runs end."""

    kills: int = option(20, "of one machine in a run of its own", type=whole(1))
    seed: int | None = option(None, "of the moments (default: random, printed)", type=whole(0))


class Kill(NamedTuple):
    """Which machine, and after how many seconds."""

    machine: int
    seconds: float


def documented() -> tuple[dict[str, str], list[str]]:
    """The variables and arguments of the command for several machines in scripts/README.md."""
    page = (ROOT / "scripts" / "README.md").read_text("utf-8")
    (command,) = re.findall(r"^([A-Z_]+=\S+ \S+/torchrun .*?)\n```$", page, re.MULTILINE | re.DOTALL)
    words = shlex.split(command.replace("\\\n", ""))
    start = next(index for index, word in enumerate(words) if word.endswith("/torchrun"))
    return dict(word.split("=") for word in words[:start]), words[start + 1 :]


def agent(root: Path, machine: int, word: str) -> "subprocess.Popen[bytes]":
    """Start torchrun as the page says, for a run in a folder of its own, with one process on this computer.

    Args:
        root: Holds the run folder, and what each machine prints.
        machine: Its number.
        word: The name of this start.
    """
    variables, arguments = documented()
    ours = {"--nproc-per-node": "1", "--rdzv-id": word, "--rdzv-endpoint": str(root / "rendezvous"),
            "--out": str(root / "run")}  # fmt: skip
    for name, value in ours.items():
        arguments[arguments.index(name) + 1] = value
    command = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1", *arguments, *FLAGS]
    with (root / f"machine{machine}.txt").open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | variables | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def kill(machine: "subprocess.Popen[bytes]") -> None:
    """End an agent and what it has started, as a power cut does."""
    machine.send_signal(signal.SIGSTOP)  # it starts nothing more
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children")
    for child in children.read_text().split() if children.exists() else ():
        os.kill(int(child), signal.SIGKILL)
    machine.kill()
    machine.wait()


def attempt(root: Path, planned: Kill | None) -> tuple[float, str]:
    """Let three machines end a run, one of which is killed; return the seconds that it took and what was killed.

    Raises:
        SystemExit: If one of the others does not end with exit code 0.
    """
    root.mkdir()
    started = time.monotonic()
    codes, killed = together(root, range(MACHINES), "first", planned)
    left = [number for number in codes if not (killed and planned and number == planned.machine)]
    if all(codes[number] == 1 and UNMET in (root / f"machine{number}.txt").read_text() for number in left):
        killed += ", as they met: the others started again"
        codes, _ = together(root, left, "second", None)
    if any(codes[number] for number in left):
        sys.exit(f"exit codes of {left} must be 0; they are {codes}, and what the machines print is in {root}")
    return time.monotonic() - started, killed


def together(root: Path, numbers: Iterable[int], word: str, planned: Kill | None) -> tuple[dict[int, int], str]:
    """Start machines, kill one, wait for the end of all; return their exit codes and what was killed."""
    started, killed = time.monotonic(), ""
    machines = {number: agent(root, number, word) for number in numbers}
    try:
        while any(machine.poll() is None for machine in machines.values()):
            seconds = time.monotonic() - started
            if seconds > PATIENCE:
                sys.exit(f"a run must end within {PATIENCE} s; what the machines print is in {root}")
            if planned and not killed and seconds >= planned.seconds:
                killed = f"machine {planned.machine} after {seconds:4.1f} s, {state(root, planned.machine)}"
                kill(machines[planned.machine])
            time.sleep(0.05)
    finally:
        for machine in machines.values():
            if machine.poll() is None:
                kill(machine)
    return {number: machine.returncode for number, machine in machines.items()}, killed


def state(root: Path, machine: int) -> str:
    """How far the run is, and whether that machine has its first process."""
    log, printed = root / "run" / "train.log", (root / f"machine{machine}.txt").read_text()
    epochs = re.findall(r"^Epoch (\d+)", log.read_text() if log.exists() else "", re.MULTILINE)
    where = f"in epoch {epochs[-1]}" if epochs else "before the first epoch"
    if (root / "run" / "summary.json").exists():
        where = "while the report is written"
    return where + (", the first" if "training images" in printed else "")


def faults(run_folder: Path, whole_run: Path) -> list[str]:
    """What a run that has ended must have in common with one that was left alone, whatever its numbers are.

    Both have made the same steps on the same images exactly if the schedules and the generator are at the same place.
    """
    RunFolder(run_folder)  # raises InputError if a process still has it in hand
    names = ("summary.json", "report.html", "findings.pt", "best.pt")
    found = [f"no {name}" for name in names if not (run_folder / name).exists()]
    if digest(run_folder / "last.pt") not in read_json(run_folder / "checkpoints.json")["sha256"]:
        found.append("last.pt damaged")
    mine, theirs = (read_torch(folder / "last.pt") for folder in (run_folder, whole_run))
    if not torch.equal(mine["generator"], theirs["generator"]):
        found.append("other images")
    if mine["schedulers"] != theirs["schedulers"]:
        found.append("another number of steps")
    epochs, wanted = ([(row["epoch"], row["lr"]) for row in read_metrics(path)] for path in (run_folder, whole_run))
    if epochs != wanted:
        found.append(f"in metrics.csv epochs and rates {epochs}")
    logs = [
        re.findall(r"^Epoch .*", (path / "train.log").read_text(), re.MULTILINE) for path in (run_folder, whole_run)
    ]
    if logs[0] != logs[1]:
        found.append(f"in train.log {logs[0]}")
    return found


def distances(one: Path, other: Path) -> tuple[float, float]:
    """The largest difference of a weight or running statistic, and of a loss of an epoch."""
    mine, theirs = (read_torch(folder / "last.pt")["model"] for folder in (one, other))
    weights = max((weight.double() - theirs[name].double()).abs().max().item() for name, weight in mine.items())
    names = ("train_loss", "test_loss")
    rows = zip(read_metrics(one), read_metrics(other), strict=True)
    return weights, max(abs(row[name] - whole[name]) for row, whole in rows for name in names)


def alone(root: Path, processes: int) -> Path:
    """Let one machine with so many processes end the run."""
    root.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
    command = [*torchrun, "--nproc-per-node", str(processes), "-m", "scripts.train_stn", "--out", str(root / "run")]
    with (root / "printed.txt").open("wb") as output:
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *FLAGS], cwd=ROOT, stdout=output, stderr=output, check=True, env=threads)
    return root / "run"


def within(apart: Sequence[float]) -> str:
    """How far two runs are apart."""
    return "weights within {:.1e}, losses within {:.1e}".format(*apart)


def main() -> None:
    """Kill machines, and print what came of it."""
    options = parse(Options, "elastic")
    seed = random.randrange(2**31) if options.seed is None else options.seed
    draw, root = random.Random(seed), Path(tempfile.mkdtemp(prefix="elastic-"))
    print(f"seed {seed}, {root}", flush=True)
    seconds, _ = attempt(root / "whole", None)
    whole_run = root / "whole" / "run"
    print(f"three machines, none killed: {seconds:.0f} s", flush=True)
    for count in (1, 2):
        print(
            f"{count} processes, none killed: {within(distances(alone(root / f'{count}', count), whole_run))}",
            flush=True,
        )
    largest = [0.0, 0.0]
    number = 0
    while number < options.kills:
        here = root / f"run{number + 1}"
        taken, killed = attempt(here, Kill(draw.randrange(MACHINES), draw.uniform(0, seconds)))
        if not killed:  # this computer is faster now
            seconds = taken
            shutil.rmtree(here)
            continue
        number += 1
        apart = distances(here / "run", whole_run)
        largest = [max(each) for each in zip(largest, apart, strict=True)]
        print(f"run {number}: {killed}; {taken:.0f} s, {within(apart)}", flush=True)
        found = faults(here / "run", whole_run)
        printed = "".join(path.read_text(errors="replace") for path in here.glob("machine*.txt"))
        found += ["a traceback of the script"] if "in train\n" in printed else []
        found += ["other numbers"] if any(one > most for one, most in zip(apart, ERROR, strict=True)) else []
        if found:
            sys.exit(f"run {number} must end like {whole_run}; {here / 'run'} has {', '.join(found)}")
        shutil.rmtree(here)
    print(f"{options.kills} runs ended, with the same steps on the same images; {within(largest)}")
    shutil.rmtree(root)


if __name__ == "__main__":
    run(main, "elastic")
