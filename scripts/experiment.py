"""One run from flags to report, for any network: data -> plan -> network -> run folder -> loop -> report."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch

from scripts.data.batches import channel_statistics, resized
from scripts.data.datasets import Dataset, Split, load
from scripts.data.poses import POSES, posed_split
from scripts.find_lr import find_lr, refuse_senseless
from scripts.recipes.options import AUTO, RunOptions
from scripts.resuming import (
    UNLOCKED,
    as_begun,
    begun_or_new,
    is_finished,
    original_options,
    refuse_change,
    refuse_unshared,
)
from scripts.run.environment import environment
from scripts.run.findings import classification_findings, evenly_spaced
from scripts.run.folder import ReadOnlyFolder, RunFolder, half_written
from scripts.run.tensorboard import Events, refuse_without_tensorboard
from scripts.subjects.subject import Subject
from scripts.system.command_line import flag_values
from scripts.system.devices import choose_device, compiler_works, keep_freed_memory, memory_suffices, unused_gpu
from scripts.system.errors import InputError
from scripts.system.files import read_torch
from scripts.system.folders import timed
from scripts.system.machine import Machine, this_machine
from scripts.system.processes import Processes
from scripts.system.signals import stopping
from scripts.system.terminal import say, warn
from scripts.training.evaluation import Evaluation
from scripts.training.plan import Plan, Recipe
from scripts.training.trainer import Trainer, refuse_version

AnyOptions = TypeVar("AnyOptions", bound=RunOptions)
Build = Callable[[AnyOptions, Plan, torch.device], Subject]


def train(options: AnyOptions, recipes: Mapping[str, Recipe], build: Build[AnyOptions]) -> None:
    """Train the network that ``build`` returns for the plan, and leave a run folder with a report.

    With ``--find-lr`` the training is a range test, and the folder holds its plot.

    Raises:
        InputError: If flags, data, machine and run folder do not allow the run.
    """
    processes = Processes.started()
    run = continued(options, processes)
    if run is None:
        return
    if run.find_lr:
        refuse_senseless(run)
    if run.tensorboard:
        refuse_without_tensorboard()
    keep_freed_memory()
    device = choose_device(run.device, processes)
    fits = f"--data ({run.data}) must fit into memory, or --limit-train and --limit-test be lower"
    with processes.connected(device), ExitStack() as held:
        with memory_suffices(fits):
            with processes.first_alone():  # it downloads and decodes; the others find the files
                dataset = load(run.data)
            dataset = dataset.limited(run.limit_train, run.limit_test).to(device)
        images, held_out = dataset.train.divided(run.validation) if run.validation else (dataset.train, dataset.test)
        dataset = dataclasses.replace(dataset, train=images)  # the others would stay in memory
        machine = this_machine(device)
        recipe = recipes[run.recipe]
        plan = planned(recipe, run, dataset, images, machine, as_begun(run, recipe, machine))
        torch.manual_seed(plan.seed)
        subject = build(run, plan, device)
        if run.find_lr:
            find_lr(run, plan, subject, images, dataset, processes)
            return
        folder = open_folder(run, dataset.name, processes)
        held.callback(folder.release)
        hashes = [split.digest() for split in (images, held_out, dataset.test)]
        about = plan.record() | subject.settings | {"images": hashes}
        checkpoint = begun(folder, run, plan, about, subject.remarks, dataset, machine, processes)
        with memory_suffices(fits):
            test = posed_split(dataset.test, plan.poses)
            held_out = posed_split(held_out, plan.poses) if run.validation else test
        trainer = Trainer(
            plan=plan,
            model=subject.network,
            objective=subject.objective,
            predict=subject.predict,
            describe=subject.describe,
            before_epoch=subject.before_epoch,
            optimizers=subject.optimizers,
            train=images,
            held_out=held_out,
            held_out_name="validation" if run.validation else "test",
            save_minutes=run.save_minutes,
            processes=processes,
            folder=folder,
            about=about,
        )
        fewer = f"--at-once ({plan.at_once}) must be lower"
        with processes.first_reports(), memory_suffices(fewer), compiler_works():
            rows = trainer.fit(checkpoint)
        with stopping(f"after {len(rows)} epochs, before the report", str(folder.path)):
            shown, numbers = tested(trainer, rows, test, dataset, subject)
            with processes.first_alone():  # the others wait for the report: if the first dies, one of them writes it
                if processes.first:
                    found = findings(subject, plan, test, dataset, shown)
                    finish(folder, found, numbers | found.get("numbers", {}), dataset.notice)


def continued(options: AnyOptions, processes: Processes) -> AnyOptions | None:
    """Return the options of the run: where it is resumed those that it began with, and None if it is finished.

    Raises:
        InputError: If the run folder does not allow it.
    """
    if options.resume == AUTO:
        options = begun_or_new(options)
        if is_finished(options):
            if processes.first:
                say(f"the run in {options.resume} is finished")
                complete(Path(str(options.resume)), processes)
            return None
    if options.resume:
        return original_options(options, Path(options.resume))
    if options.out:
        RunFolder.refuse_taken(Path(options.out))  # before anything is downloaded
    return options


def begun(
    folder: RunFolder,
    options: RunOptions,
    plan: Plan,
    about: dict[str, Any],
    remarks: Sequence[str],
    dataset: Dataset,
    machine: Machine,
    processes: Processes,
) -> dict[str, Any] | None:
    """Write down what a new run is, or see that a resumed one is still the same: its last checkpoint, None if new.

    Raises:
        InputError: If a resumed run was another, or not all processes see its folder.
    """
    if not options.resume:
        write_config(folder, options, about, dataset, machine, processes)
    refuse_unshared(folder, processes)
    checkpoint = folder.last_checkpoint()
    refuse_version(folder.path, checkpoint)
    refuse_change(folder.path, about)
    if processes.first and options.resume and plan.precision not in (options.changes.get("precision"), *machine.types):
        slow = "which this machine has no instructions for, far more slowly than it began"
        warn(f"WARNING: {folder.path} goes on in {plan.precision}, {slow}")
    if checkpoint is None:
        begin_log(folder, plan, dataset, [*unused_gpu(options.device, machine.device), *remarks])
    return checkpoint


def write_config(
    folder: RunFolder,
    options: RunOptions,
    record: dict[str, Any],
    dataset: Dataset,
    machine: Machine,
    processes: Processes,
) -> None:
    """Write environment.json and config.json, with which a run can be resumed."""
    origin = {"processes": processes.count, "data": dataset.description, "notice": dataset.notice}
    folder.json("environment.json", environment(machine.device) | origin | {"left_out": dataset.left_out})
    config = {"asked": flag_values(options), "resolved": record, "working_directory": str(Path.cwd())}
    folder.json("config.json", config)  # last: now it can resume


def begin_log(folder: RunFolder, plan: Plan, dataset: Dataset, remarks: Sequence[str]) -> None:
    """Begin the log with the data; there is none of an earlier try."""
    counts = f"{dataset.description}: {plan.train_images} training images, {plan.test_images} test images"
    folder.rewind(0, [])
    folder.announce(dataset.notice)
    left_out = [f"left out: {dataset.left_out}"] if dataset.left_out else []
    folder.log("\n".join([counts, *left_out, *remarks]))


def tested(
    trainer: Trainer, rows: Sequence[dict[str, float]], test: Split, dataset: Dataset, subject: Subject
) -> tuple[Evaluation, dict[str, Any]]:
    """Test the network: what it says of every image, for the report, and the numbers of the summary.

    Raises:
        InputError: If the best checkpoint, which a run with a validation split is judged by, is damaged.
    """
    last = shown = trainer.evaluate(test)
    alone = {}
    if trainer.plan.tta != "none":
        plain = dataclasses.replace(trainer, plan=dataclasses.replace(trainer.plan, tta="none"))
        alone["test_accuracy_without_tta"] = round(plain.evaluate(test).accuracy, 2)
    best = max(row.get("test_accuracy", 0.0) for row in rows)
    if trainer.held_out_name == "validation":  # no row has a test accuracy: the best checkpoint is tested here
        load_best(subject.network, trainer.folder.path, rows)
        shown = trainer.evaluate(test)
        best = shown.accuracy
    posed_tests = ((name, posed_split(dataset.test, POSES[name])) for name in subject.tested_in)
    in_poses = {name: round(trainer.evaluate(split).accuracy, 2) for name, split in posed_tests}
    numbers = {"dataset": dataset.name, **summary(trainer, rows, last.accuracy, best), **alone}
    return shown, numbers | ({"test_accuracy_in_poses": in_poses} if in_poses else {})


def findings(subject: Subject, plan: Plan, test: Split, dataset: Dataset, shown: Evaluation) -> dict[str, Any]:
    """What the report shows of some test images, as posed in this run and upright."""
    chosen = evenly_spaced(len(test)).to(test.images.device)
    posed, upright = (resized(split.images[chosen], plan.image_size) for split in (test, dataset.test))
    found = classification_findings(test.images, shown.logits, shown.labels, dataset.classes)
    return found | subject.findings(posed, upright, shown.labels[chosen], shown)


def load_best(network: torch.nn.Module, folder: Path, rows: Sequence[dict[str, float]]) -> None:
    """Load the checkpoint with the best validation accuracy.

    Raises:
        InputError: If it is damaged, or of another run.
    """
    path, accuracy = folder / "best.pt", "validation_accuracy"
    wanted = f"{path} must be the best checkpoint of this run"
    if not path.is_file():
        raise InputError(f"{wanted}; it is missing")
    saved = read_torch(path)
    try:
        if saved["metrics"][accuracy] != rows[saved["epoch"] - 1][accuracy]:
            raise ValueError(f"another {accuracy}")
        network.load_state_dict(saved["model"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{wanted}; it holds something else") from error


def summary(trainer: Trainer, rows: Sequence[dict[str, float]], last: float, best: float) -> dict[str, Any]:
    """The headline numbers of a run.

    Args:
        trainer: After training.
        rows: The rows of metrics.csv.
        last: Test accuracy after the last epoch, in percent.
        best: Test accuracy of the best checkpoint, in percent.
    """
    plan = trainer.plan
    return {
        "recipe": plan.recipe,
        "tta": plan.tta,
        "epochs": plan.epochs,
        "steps": plan.steps,
        "seed": plan.seed,
        # JSON has no NaN: in the last epoch every step may have been skipped
        "train_accuracy": round(rows[-1]["train_accuracy"], 2) if math.isfinite(rows[-1]["train_accuracy"]) else None,
        "test_accuracy": round(last, 2),
        "best_test_accuracy": round(best, 2),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "seconds": round(sum(row[name] for row in rows for name in row if name.endswith("_seconds")), 1),
        "images_per_second": round(statistics.median(row["images_per_second"] for row in rows)),
        "peak_memory_mib": round(max(row["peak_memory_mib"] for row in rows)),
        "run_folder": str(trainer.folder.path),
    }


def finish(folder: RunFolder, found: dict[str, Any], numbers: dict[str, Any], notice: str) -> None:
    """Write findings.pt and summary.json, draw the report, and print the summary as the last line."""
    folder.checkpoint("findings.pt", found)
    folder.json("summary.json", numbers)  # last: it marks the run as finished
    folder.announce(notice)
    draw_report(folder.path)
    if folder.events is not None:
        folder.events.figures()
    say(json.dumps(numbers))


def complete(path: Path, processes: Processes) -> None:
    """Do what a finished run left undone if it was killed as it drew its report.

    Raises:
        InputError: If the process that finished the run is drawing still, or a file of the run is damaged.
    """
    undrawn = not (path / "report.html").exists()
    if undrawn or half_written(path):
        folder = RunFolder(path, patience(processes))
        try:
            if undrawn:
                draw_report(path)
            folder.sweep()
        finally:
            folder.release()


def draw_report(path: Path) -> None:
    """Draw the report of a finished run, and say where it is."""
    from scripts.run.page import write_report  # imports matplotlib, which takes a second

    say(f"Report: {write_report(path)}")


def planned(
    recipe: Recipe,
    options: RunOptions,
    dataset: Dataset,
    images: Split,
    machine: Machine,
    begun_as: dict[str, Any] | None = None,
) -> Plan:
    """Complete the recipe with everything that flags, data and machine decide, or decided where the run began.

    Raises:
        InputError: If two flags contradict each other, or machine or data do not support one.
    """
    changes = options.changes
    if {"steps", "epochs"} <= changes.keys():
        raise InputError(f"--steps ({changes['steps']}) and --epochs ({changes['epochs']}) cannot both be given")
    if "epochs" in changes:
        recipe = dataclasses.replace(recipe, steps=None)
    recipe = dataclasses.replace(recipe, **changes)
    if recipe.tta == "mirror" and not dataset.mirrors_keep_class:
        raise InputError(f"--tta (mirror) must be none for {dataset.name}, whose mirror images are other classes")
    if recipe.tta == "turns" and POSES[recipe.pose].turns == 1:
        raise InputError(f"--tta (turns) must be none or mirror with --pose {recipe.pose}, which has no fixed turns")
    placed = images.boxes is not None
    if placed and recipe.pose != "none":
        raise InputError(f"--pose ({recipe.pose}) must be none for {dataset.name}, whose objects have their own places")
    augment = dataclasses.replace(recipe.augment, mirror=recipe.augment.mirror and dataset.mirrors_keep_class)
    augment = augment.in_place() if placed else augment
    steps_an_epoch = -(-len(images) // recipe.batch_size)
    steps = recipe.steps or recipe.epochs * steps_an_epoch
    height, width = images.images.shape[-2:]
    if augment.shift >= min(height, width):
        wanted = f"images of more than {augment.shift} pixels a side for recipe {options.recipe}"
        raise InputError(f"--data ({options.data}) must hold {wanted}, which shifts them by up to {augment.shift}")
    decided = {
        "steps": steps,
        "epochs": -(-steps // steps_an_epoch),
        "normalise": recipe.normalise or channel_statistics(images.images),
        "augment": augment,
        "poses": POSES[recipe.pose],
        "placed": placed,
        "image_size": recipe.image_size or (height, width),
        "precision": machine.precision(recipe.precision),
        "compiled": machine.compiled(options.compile, recipe.compiled, steps),
        "train_images": len(images),
        "test_images": len(dataset.test),
        "classes": tuple(dataset.classes),
    }
    return Plan(**(vars(recipe) | decided | (begun_as or {})), recipe=options.recipe, seed=options.seed)


def open_folder(options: RunOptions, dataset: str, processes: Processes) -> RunFolder:
    """Create or reopen the run folder in the first process; the others open it read-only.

    Raises:
        InputError: If a new run would overwrite something, or the run to resume is finished or still running.
    """
    if not processes.first:
        return ReadOnlyFolder(Path(processes.broadcast("")))
    if options.resume:
        folder = RunFolder.reopen(Path(options.resume), patience(processes))
    else:
        new = Path(options.out) if options.out else timed(dataset, options.recipe, f"seed{options.seed}")
        folder = RunFolder.create(new, patience(processes))
    folder.events = Events(folder.path) if options.tensorboard else None
    processes.broadcast(str(folder.path))
    return folder


def patience(processes: Processes) -> float:
    """How long to wait for the lock of a run folder, in seconds: a machine that died holds it for some time."""
    return UNLOCKED if processes.restarts else 0.0
