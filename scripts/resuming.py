"""Which run ``--resume`` goes on with: its flags come from its folder, and must still mean the same plan."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from scripts.data.datasets import CLUTTERED, NAMED
from scripts.recipes.options import AUTO, RunOptions
from scripts.run.folder import RunFolder, read_config
from scripts.system.command_line import as_flags, flag_values, parse
from scripts.system.errors import InputError
from scripts.system.machine import Machine
from scripts.system.processes import Processes
from scripts.training.plan import Recipe

VISIBLE = 60.0  # seconds until all machines see what one has written: NFS remembers names for half a minute
UNLOCKED = 120.0  # seconds until a machine that died has lost its lock: NFS waits for one and a half minutes
AnyOptions = TypeVar("AnyOptions", bound=RunOptions)


def begun_or_new(options: AnyOptions) -> AnyOptions:
    """Return what ``--resume auto`` stands for: the run in ``--out`` if one has begun there, else a new one.

    Raises:
        InputError: If there is no ``--out``, or the run in it has other flags.
    """
    if options.out is None:
        raise InputError("--out (None) must be a folder with --resume auto, to start the run in or to go on in")
    folder, new = Path(options.out), dataclasses.replace(options, resume=None)
    if not (folder / "config.json").is_file():
        return new
    asked = dataclasses.replace(_asked(type(options), folder, read_config(folder)), out=options.out)
    before, now = flag_values(asked), flag_values(new)
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            was, given = before.get(name), now.get(name)
            flag = f"--{name.replace('_', '-')} ({given})"
            raise InputError(f"{flag} must be {was}, as in the run that {folder} holds")
    return type(options)(resume=options.out)


def is_finished(options: RunOptions) -> bool:
    """Whether the run to go on with has nothing left to do."""
    return options.resume is not None and (Path(options.resume) / "summary.json").is_file()


def original_options(options: AnyOptions, folder: Path) -> AnyOptions:
    """Read from config.json the flags that the run was started with.

    Raises:
        InputError: If the folder holds no run of this script, or flags were given beside --resume.
    """
    if options != type(options)(resume=options.resume) or not options.given <= {"resume"}:
        raise InputError(f"--resume ({folder}) takes no other flag; a run resumes with its own flags")
    if not (folder / "config.json").is_file():
        raise InputError(f"--resume ({folder}) must be a run folder; it has no config.json")
    config = read_config(folder)
    original = _asked(type(options), folder, config)
    start, colon, place = original.data.rpartition(f"{CLUTTERED}:")
    moved: dict[str, Any] = {}
    if place not in ("", CLUTTERED, *NAMED):
        moved["data"] = f"{start}{colon}{_as_it_was(place, config, Path.is_dir)}"
    if weights := getattr(original, "weights", None):
        moved["weights"] = _as_it_was(weights, config, Path.is_file)
    return dataclasses.replace(original, **moved, resume=options.resume, out=options.resume)


def _as_it_was(path: str, config: Mapping[str, Any], there: Callable[[Path], bool]) -> str:
    """A path of the run, which may have been relative to another folder than this one."""
    other = Path(str(config.get("working_directory", "")), path)
    return str(other) if not Path(path).exists() and there(other) else path


def _asked(kind: type[AnyOptions], folder: Path, config: dict[str, Any]) -> AnyOptions:
    """The flags that a run was started with."""
    try:
        return parse(kind, "", as_flags(config["asked"]))
    except InputError as error:
        raise InputError(f"--resume ({folder}) must hold flags of this script in config.json; {error}") from error


def as_begun(options: RunOptions, recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """Return what ``auto`` stood for when a resumed run began: this machine might decide otherwise.

    Raises:
        InputError: If its steps are compiled, and this machine has no compiler.
    """
    if not options.resume:
        return {}
    resolved, decided = read_config(Path(options.resume))["resolved"], {}
    asked = options.changes.get("precision", recipe.precision)
    if asked == AUTO and resolved.get("precision") in ("float32", "bfloat16"):  # any other is a change of the file
        decided["precision"] = resolved["precision"]
    if options.compile == AUTO and resolved.get("compiled") in (True, False):
        decided["compiled"] = resolved["compiled"]
    if decided.get("compiled") and not machine.compiles:
        wanted = f"needs {machine.compiler_wanted}, as its steps are compiled"
        raise InputError(f"--resume ({options.resume}) {wanted}; there is none for {machine.device}")
    return decided


def refuse_unshared(folder: RunFolder, processes: Processes) -> None:
    """Raise InputError in every process that does not see the run folder as the first one does.

    All resume from the checkpoint in it, and if the first process dies another one writes there.
    """
    seen, end = processes.broadcast(folder.seen()), time.monotonic() + VISIBLE
    while (here := folder.seen()) != seen:
        if time.monotonic() >= end:
            differs = "has no config.json" if here.startswith("nothing") else "holds another run or checkpoint"
            wanted = "must be one folder that the machines of all processes share"
            raise InputError(f"run folder ({folder.path}) {wanted}; for process {processes.rank} it {differs}")
        time.sleep(min(1.0, VISIBLE))


def refuse_change(folder: Path, record: dict[str, Any]) -> None:
    """Raise InputError if plan or network differ from those that the run began with."""
    before, now = read_config(folder)["resolved"], json.loads(json.dumps(record))
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise InputError(
                f"--resume ({folder}) must keep the same {name}; it was {before.get(name)} and is now {now.get(name)}"
            )
