"""Find out by experiment when a spatial transformer helps, or what each part of a recipe is worth.

    make study                                  # hours; finished runs are kept, an interrupted one is resumed
    make study OF=compact SEEDS=1               # what each part of recipe "compact" is worth
    python -m scripts.study --epochs 1 --limit-train 1000 --limit-test 500 --out runs/trial

A tenth of the training images chooses the best epoch; the test images are used once, after the last one. It may be
started several times, with OMP_NUM_THREADS=1 once for every core: each process trains what no other one has in hand.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.recipes.options import AUTO, RunOptions
from scripts.recipes.study import STUDIES, Options
from scripts.system.command_line import parse, run
from scripts.system.errors import InputError
from scripts.system.folders import make_folder
from scripts.system.locks import IN_USE, lock
from scripts.system.terminal import say


def main(options: Options) -> None:
    """Train what is not trained yet, and print a line for each run and a table of all."""
    # imported here: these load torch, and flags are read before that
    from scripts.data.datasets import CLUTTERED, load
    from scripts.experiment import Build, train
    from scripts.pages.study import TABLES, finished, read_summary
    from scripts.subjects import stn, vit

    if options.data.partition(":")[0] == CLUTTERED:
        raise InputError(f"--data ({options.data}) must be whole images; these are scenes")
    study = STUDIES[options.of]
    subjects: dict[str, Build[Any]] = {"transformer": stn.subject, "compact": vit.subject}
    out = Path(options.out or f"runs/study-{options.of}")
    make_folder(out, f"--out ({out})")
    if done := finished(options.of, out, options.seeds):
        before, now = done[0].runs[0]["dataset"], load(options.data).name
        if now != before:  # auto may find other data than when the study began
            wanted = f"must be {before}, as in the finished runs in {out}"
            raise InputError(f"--data ({options.data}) {wanted}; it is {now}")
    for arm, pose in study.runs:
        for seed in range(1, options.seeds + 1):
            folder = out / f"{arm}-{pose}-seed{seed}"
            with claimed(folder) as mine:
                if not mine:
                    say(f"{folder.name}: another process is at it")
                    continue
                train(arm_options(options, arm, pose, seed, folder), study.arms, subjects[options.of])
                summary = read_summary(options.of, folder / "summary.json")
                tested = summary.get("test_accuracy_in_poses", {pose: summary["best_test_accuracy"]})
                say(f"{folder.name}: {', '.join(f'{name} {accuracy:.2f} %' for name, accuracy in tested.items())}")
    say(TABLES[options.of](out, options.seeds))


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may train the run of that folder, which nobody else may do inside."""
    handle = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT)
    mine = True
    try:
        lock(handle)
    except OSError as error:  # also of file systems without locks, where it is on its own
        mine = error.errno not in IN_USE
    try:
        yield mine
    finally:
        os.close(handle)


def arm_options(options: Options, arm: str, pose: str, seed: int, folder: Path) -> RunOptions:
    """The flags of one run, which goes on if it was interrupted."""
    changes = {"pose": pose} | ({} if options.epochs is None else {"epochs": options.epochs})
    return STUDIES[options.of].options(
        recipe=arm,
        data=options.data,
        changes=changes,
        seed=seed,
        validation=0.1,
        limit_train=options.limit_train,
        limit_test=options.limit_test,
        resume=AUTO,
        out=str(folder),
    )


if __name__ == "__main__":
    run(lambda: main(parse(Options, "study")), "study", resumes=True)
