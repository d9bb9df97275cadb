"""The range test of a run, ``--find-lr``: which learning rates train its network on its data.

    make train-stn ARGS=--find-lr

Leaves a plot and a table of learning rate and loss; the last line on standard output has the suggestion.
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.data.datasets import Dataset, Split
from scripts.recipes.options import RunOptions
from scripts.run.folder import ReadOnlyFolder
from scripts.subjects.subject import Subject
from scripts.system.devices import compiler_works, memory_suffices, unused_gpu
from scripts.system.errors import InputError
from scripts.system.files import write_bytes, write_whole
from scripts.system.folders import make_folder, timed
from scripts.system.libraries import plain_figures
from scripts.system.processes import Processes
from scripts.system.terminal import say
from scripts.training.plan import Plan
from scripts.training.range_test import FALLEN, HIGHEST, LEAST_FALL, LOWEST, STEPS, RangeTest, range_test
from scripts.training.trainer import Trainer

# the test has a length of its own, and evaluates and saves nothing
SENSELESS = ("epochs", "steps", "tta", "limit_test", "save_minutes")


def refuse_senseless(options: RunOptions) -> None:
    """Raise InputError if flags say how to do what a range test does not do."""
    values = {**vars(options), **options.changes}
    for name in SENSELESS:
        if name in options.given | options.changes.keys():
            wanted = f"must be left out with --find-lr, which makes {STEPS} steps and evaluates nothing"
            raise InputError(f"--{name.replace('_', '-')} ({values[name]}) {wanted}")
    if options.tensorboard:
        raise InputError("--tensorboard must be left out with --find-lr, which draws a plot of its own")


def find_lr(
    options: RunOptions, plan: Plan, subject: Subject, train: Split, dataset: Dataset, processes: Processes
) -> None:
    """Make the range test, write ``find_lr.png`` and ``find_lr.csv``, and print the suggestion."""
    device = train.labels.device
    folder = Path(options.out) if options.out else timed(dataset.name, options.recipe, f"find-lr-seed{options.seed}")
    if processes.first:
        low, high = (f"{plan.lr * factor:.3g}" for factor in (LOWEST, HIGHEST))
        say("\n".join([
            *([f"NOTICE: {dataset.notice}"] if dataset.notice else []),
            f"{dataset.description}: {plan.train_images} training images",
            *([f"left out: {dataset.left_out}"] if dataset.left_out else []),
            *unused_gpu(options.device, device), *subject.remarks,
            f"Range test: up to {STEPS} steps with learning rates from {low} to {high}",
        ]))  # fmt: skip
    trainer = Trainer(
        plan=dataclasses.replace(plan, compiled=options.compile == "yes"),  # it does not pay in so few steps
        model=subject.network,
        objective=subject.objective,
        optimizers=subject.optimizers,
        train=train,
        held_out=train,
        processes=processes,
        folder=ReadOnlyFolder(folder),
    )
    fewer = f"--at-once ({plan.at_once}) must be lower"
    with processes.first_reports(), written_to(folder, processes), memory_suffices(fewer), compiler_works():
        found = range_test(trainer)
    if processes.first:
        say(verdict(found))
        write(folder, found, f"Range test of recipe {plan.recipe} on {dataset.name}, seed {plan.seed}")
        say(f"Plot: {folder / 'find_lr.png'}")
        say(json.dumps({
            "dataset": dataset.name, "recipe": plan.recipe, "seed": plan.seed, "lr": plan.lr,
            "suggested_lr": rounded(found.suggestion), "diverged_at": rounded(found.diverged_at),
            "steps": len(found.rates), "plot": str(folder / "find_lr.png"), "table": str(folder / "find_lr.csv"),
        }))  # fmt: skip


@contextmanager
def written_to(folder: Path, processes: Processes) -> Iterator[None]:
    """Make the folder before the work begins whose results go there; if the work fails, it leaves none.

    Raises:
        InputError: If that cannot be done.
    """
    new = processes.first and not folder.exists()
    if new:
        make_folder(folder, f"--out ({folder})")
    try:
        yield
    except BaseException:
        if new:
            folder.rmdir()
        raise


def rounded(rate: float | None) -> float | None:
    """A rate with three digits; the test knows no more."""
    return None if rate is None else float(f"{rate:.3g}")


def verdict(found: RangeTest) -> str:
    """Say what is suggested, and how it was chosen."""
    ended = "did not diverge" if found.diverged_at is None else f"diverged at {found.diverged_at:.3g}"
    if found.suggestion is None:
        return f"No suggestion: the loss fell by less than {LEAST_FALL:.0%} and {ended}"
    least = found.rates[found.least]
    return (
        f"Suggested: --lr {found.suggestion:.3g}, where the smoothed loss has done {FALLEN:.0%} of its fall; "
        f"it was least at {least:.3g} and {ended}"
    )


def write(folder: Path, found: RangeTest, title: str) -> None:
    """Write the table and the plot."""
    from scripts.run.figures import range_curve  # imports matplotlib, which takes a second

    rows = zip(found.rates, found.losses, found.smoothed, strict=True)
    lines = ["lr,loss,smoothed_loss", *(",".join(f"{value:.6g}" for value in row) for row in rows)]
    write_bytes(folder / "find_lr.csv", ("\n".join(lines) + "\n").encode())
    curve = (found.rates, found.losses, found.smoothed)
    with plain_figures():
        write_whole(folder / "find_lr.png", lambda file: range_curve(*curve, found.suggestion, title, file))
