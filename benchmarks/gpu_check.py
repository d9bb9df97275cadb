"""Find out in ten minutes how the kit runs on a GPU: the most important first, all results in one folder.

    make gpu-check PYTHON=python3                # with the torch that is installed there
    python -m benchmarks.gpu_check --rehearse    # every step small, on the CPU

It needs no git, no network and no virtual environment of this kit. Each step is a process with its own time limit whose
output goes straight to a file, and summary.json is complete before and after each step, so that results survive however
the check ends.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.options import GpuCheckOptions
from scripts.system.command_line import parse, run
from scripts.system.errors import InputError

ROOT = Path(__file__).parent.parent
PASSED, FAILED, CUT_OFF, LEFT_OUT, RUNNING = "passed", "failed", "cut off", "left out", "running"
LEAST = 10.0  # seconds that must be left for a step to start
PATIENCE = 5  # a rehearsal on the CPU may take this many times as long
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short")


@dataclass(frozen=True)
class Step:
    """One step of the check.

    Args:
        name: Name of its files.
        question: What it finds out.
        seconds: Time limit.
        arguments: Arguments of python.
        rehearsal: Arguments of python that try the step on a CPU.
        packages: Packages that it imports besides torch.
    """

    name: str
    question: str
    seconds: float
    arguments: Sequence[str]
    rehearsal: Sequence[str]
    packages: Sequence[str] = ()


@dataclass
class Result:
    """The outcome of a step."""

    name: str
    question: str
    state: str = RUNNING
    seconds: float = 0.0
    remark: str = ""
    command: list[str] = field(default_factory=list)


def steps(out: Path, data: str) -> list[Step]:
    """All steps, the most important first."""
    tested = ("pytest", "hypothesis", "einops", "numpy")
    trained = ("numpy", "PIL", "einops", "tqdm", "requests", "pooch", "safetensors", "matplotlib", "jinja2", "sklearn")
    stn = ("-m", "scripts.train_stn", "--data", data, "--out", str(out / "train-stn"))
    vit = ("-m", "scripts.train_vit", "--data", data, "--out", str(out / "train-vit"))
    few = ("--device", "cpu", "--limit-train", "64", "--limit-test", "32")
    grid = (*PYTEST, "benchmarks/test_grid.py", f"--benchmark-json={out / 'bench.json'}")
    return [
        Step("machine", "which GPU is it, and what are its peaks?", 60,
             ("-m", "benchmarks.describe", "--out", str(out / "machine.json")),
             ("-m", "benchmarks.describe", "--device", "cpu", "--out", str(out / "machine.json")), ("numpy",)),
        Step("contract", "do the components keep the contract there?", 170,
             (*PYTEST, "tests/contract/test_contract.py", "--device", "cuda"),
             (*PYTEST, "tests/contract/test_contract.py", "-k", "MLP and not compiles"), tested),
        Step("runs", "do both models train, resume and predict there?", 90,
             (*PYTEST, "tests/scripts/test_gpu.py", "--device", "cuda"), (*PYTEST, "tests/scripts/test_gpu.py"),
             (*tested, *trained)),
        Step("train-stn", "how fast is a whole run of the spatial transformer?", 60,
             (*stn, "--device", "cuda", "--epochs", "5"), (*stn, *few, "--epochs", "1"), trained),
        Step("train-vit", "how fast is a whole run of the Vision Transformer?", 60,
             (*vit, "--device", "cuda", "--epochs", "5"), (*vit, *few, "--epochs", "1"), trained),
        Step("breakdown", "where does the time of ViT-B/16 go?", 70,
             ("-m", "benchmarks.breakdown", "--minutes", "0.3", "--out", str(out / "breakdown.json")),
             ("-m", "benchmarks.breakdown", "--smoke", "--device", "cpu"), ("numpy", "einops")),
        Step("bench", "how fast are components and models, and how close to the peak?", 150,
             (*grid, "-k", "batch64 and eager and not backward"),
             (*PYTEST, "benchmarks/test_grid.py", "--benchmark-disable", "-k", "MLP-lite and eager"),
             ("pytest", "pytest_benchmark", "einops", "numpy")),
        Step("peers", "is it faster than other libraries?", 120,
             ("-m", "benchmarks.bench_peers", "--minutes", "0.5", "--only", "b/16 training eager",
              "--out", str(out / "peers.json")),
             ("-m", "benchmarks.bench_peers", "--smoke", "--device", "cpu", "--only", "mlp eager"),
             ("timm", "torchvision", "transformers", "kornia", "vit_pytorch", "matplotlib")),
        Step("scaling", "how does the cost grow?", 60,
             ("-m", "benchmarks.scaling", "--minutes", "0.5", "--out", str(out / "scaling.json")),
             ("-m", "benchmarks.scaling", "--smoke", "--device", "cpu"), ("scipy", "matplotlib", "numpy", "einops")),
    ]  # fmt: skip


def main(options: GpuCheckOptions) -> bool:
    """Run every step that there is time for, and return whether none failed, and in a rehearsal none was left out.

    Raises:
        InputError: If there is no GPU, or the folder is not empty.
    """
    out = Path(options.out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out ({out}) must be a new or an empty folder; something is there already")
    data = options.data if options.data == "digits" else str(Path(options.data).absolute())
    for number in (signal.SIGTERM, signal.SIGHUP):  # by default they would leave a running step behind
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    out.mkdir(parents=True, exist_ok=True)
    environment = install(options.wheels, out)
    if not options.rehearse:
        require_gpu(environment)
    seconds = 60 * options.minutes * (PATIENCE if options.rehearse else 1)
    found = run_steps(steps(out, data), out, seconds, environment, rehearse=options.rehearse)
    print(f"All results are in {out}")
    bad = (FAILED, LEFT_OUT) if options.rehearse else (FAILED,)
    return not any(result.state in bad for result in found)


def install(wheels: str | None, out: Path) -> dict[str, str]:
    """Install the wheels into a folder beside the results, and return an environment that finds them.

    Raises:
        InputError: If pip cannot install them.
    """
    packages = out / "packages"
    paths = [str(ROOT), *([str(packages)] if wheels else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if wheels:
        files = [str(path) for path in sorted(Path(wheels).glob("*.whl"))]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(packages)]
        if not files or subprocess.run([*pip, *files], check=False).returncode:
            raise InputError(f"--wheels ({wheels}) must be a folder of wheels that pip can install here")
        sys.path.append(str(packages))  # where missing packages are looked for
    return environment


def require_gpu(environment: Mapping[str, str]) -> None:
    """Raise InputError if torch finds no GPU; another process asks, so that this one holds no memory there."""
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if asked.stdout.strip() != "True":
        said = asked.stderr.strip().splitlines() if asked.returncode else []
        why = said[-1] if said else "it finds none"
        raise InputError(f"gpu-check must run where torch finds a GPU; {why} (--rehearse tries it on the CPU)")


def run_steps(
    planned: Sequence[Step], out: Path, seconds: float, environment: Mapping[str, str], *, rehearse: bool
) -> list[Result]:
    """Run the steps in order, and write the summary before and after each."""
    end = time.monotonic() + seconds
    found: list[Result] = []
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def write_summary() -> None:
        content = {"started": started, "rehearsal": rehearse, "steps": [vars(result) for result in found]}
        temporary = out / ".summary.part"
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(out / "summary.json")

    for step in planned:
        result = Result(step.name, step.question)
        found.append(result)
        left = end - time.monotonic()
        missing = [name for name in step.packages if importlib.util.find_spec(name) is None]
        if missing or left < LEAST:
            result.state = LEFT_OUT
            result.remark = f"{', '.join(missing)} not installed" if missing else "no time left"
        else:
            result.command = ["python", *(step.rehearsal if rehearse else step.arguments)]
            write_summary()
            limit = step.seconds * (PATIENCE if rehearse else 1)
            run_step(result, out / f"{step.name}.log", min(limit, left), environment)
        write_summary()
        line = f"{result.name:<10} {result.state:<8} {result.seconds:5.0f} s  {result.question} {result.remark}"
        print(line.rstrip(), flush=True)
    return found


def run_step(result: Result, log: Path, seconds: float, environment: Mapping[str, str]) -> None:
    """Run the command of a step with its output in a file, and kill it with all its children when its time is up."""
    start = time.monotonic()
    command = [sys.executable, *result.command[1:]]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            code = process.wait(seconds)
            result.state, result.remark = (PASSED, "") if code == 0 else (FAILED, f"exit code {code}, see {log.name}")
        except subprocess.TimeoutExpired:
            result.state, result.remark = CUT_OFF, f"after {seconds:.0f} s, see {log.name}"
        finally:  # also when this process is terminated
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            result.seconds = round(time.monotonic() - start, 1)


if __name__ == "__main__":
    run(lambda: sys.exit(not main(parse(GpuCheckOptions, "gpu-check"))), "gpu-check")
