"""One run from flags to report, whatever the network: data -> plan -> network -> loop -> run folder -> report."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from scripts.data.batches import channel_statistics, resized
from scripts.data.datasets import Dataset, Split, load
from scripts.recipes.options import RunOptions
from scripts.run.findings import classification_findings, evenly_spaced
from scripts.run.folder import RunFolder, WatchedFolder, environment, read_config
from scripts.subjects.subject import Subject
from scripts.system.command_line import as_flags, asked, parse
from scripts.system.devices import choose_device, keep_freed_memory, passed_over
from scripts.system.errors import Diverged, InputError, Stopped
from scripts.system.files import read_torch
from scripts.system.machine import Machine, this_machine
from scripts.system.processes import Processes
from scripts.training.evaluation import Evaluation
from scripts.training.plan import Plan, Recipe
from scripts.training.trainer import Trainer

AnyOptions = TypeVar("AnyOptions", bound=RunOptions)
Build = Callable[[AnyOptions, Plan, torch.device], Subject]


def train(options: AnyOptions, recipes: Mapping[str, Recipe], build: Build[AnyOptions]) -> None:
    """Train what ``build`` makes of the plan, and leave a run folder with a report.

    Raises:
        InputError: If something that was asked for cannot be had.
    """
    if options.resume:
        options = asked_before(options, Path(options.resume))
    elif options.out:
        RunFolder.refuse_taken(Path(options.out))  # before anything is downloaded
    keep_freed_memory()
    processes = Processes.started()
    device = choose_device(options.device, processes)
    with processes.connected(device):
        with processes.first_alone():  # it downloads and decodes, and the others find what it left
            dataset = load(options.data)
        dataset = dataset.limited(options.limit_train, options.limit_test).to(device)
        images, held_out = dataset.train, dataset.test
        if options.validation:
            images, held_out = dataset.train.divided(options.validation)
        plan = planned(recipes[options.recipe], options, dataset, images, this_machine(device))
        torch.manual_seed(plan.seed)
        subject = build(options, plan, device)
        record = plan.record() | subject.settings
        folder = open_folder(options, dataset.name, processes)
        checkpoint = begin_or_go_on(folder, options, record, dataset, subject, device, processes)
        trainer = Trainer(
            plan=plan,
            model=subject.network,
            predict=subject.predict,
            describe=subject.describe,
            optimizers=subject.optimizers,
            train=images,
            held_out=held_out,
            held_out_name="validation" if options.validation else "test",
            save_minutes=options.save_minutes,
            processes=processes,
            folder=folder,
            about=record,
        )
        try:
            rows = trainer.fit(checkpoint)
        except (Stopped, Diverged):
            if processes.first:
                raise
            return  # it is said once
        last = shown = trainer.evaluate(dataset.test)
        best = max(row.get("test_accuracy", 0.0) for row in rows)
        if options.validation:  # then no row knows the test set, and the best checkpoint meets it here
            subject.network.load_state_dict(read_torch(folder.path / "best.pt")["model"])
            shown = trainer.evaluate(dataset.test)
            best = shown.accuracy
    if processes.first:
        finish(trainer, subject, dataset, rows, last.accuracy, best, shown)


def finish(
    trainer: Trainer,
    subject: Subject,
    dataset: Dataset,
    rows: Sequence[dict[str, float]],
    last: float,
    best: float,
    shown: Evaluation,
) -> None:
    """Write what the report needs, draw it, and print the last line.

    Args:
        trainer: Of the run that is over.
        subject: What it trained.
        dataset: Its images.
        rows: Of metrics.csv.
        last: Test accuracy after the last epoch.
        best: Test accuracy of the best checkpoint.
        shown: What the report shows of the test set.
    """
    plan, folder = trainer.plan, trainer.folder
    summary = {
        "dataset": dataset.name,
        "recipe": plan.recipe,
        "epochs": plan.epochs,
        "steps": plan.steps,
        "seed": plan.seed,
        "train_accuracy": round(rows[-1]["train_accuracy"], 2),
        "test_accuracy": round(last, 2),
        "best_test_accuracy": round(best, 2),
        "parameters": sum(parameter.numel() for parameter in subject.network.parameters()),
        "seconds": round(sum(row[name] for row in rows for name in row if name.endswith("_seconds")), 1),
        "images_per_second": round(statistics.median(row["images_per_second"] for row in rows)),
        "peak_memory_mib": round(max(row["peak_memory_mib"] for row in rows)),
        "run_folder": str(folder.path),
    }
    images = dataset.test.images
    found = classification_findings(images, shown.logits, shown.labels, dataset.classes)
    chosen = resized(images[evenly_spaced(len(images)).to(images.device)], plan.image_size)
    folder.checkpoint("findings.pt", found | subject.findings(chosen, plan.normalise))
    folder.json("summary.json", summary)  # last: with it a run is finished, and its report can be drawn
    folder.announce(dataset.notice)
    from scripts.run.page import write_report  # figures take a second, which the first step need not wait for

    print(f"Report: {write_report(folder.path)}")
    print(json.dumps(summary))


def planned(recipe: Recipe, options: RunOptions, dataset: Dataset, images: Split, machine: Machine) -> Plan:
    """The recipe with everything that flags, data and machine decide.

    Raises:
        InputError: If two flags contradict each other, or the machine cannot do what is asked.
    """
    changes = options.changes
    if {"steps", "epochs"} <= changes.keys():
        raise InputError(f"--steps ({changes['steps']}) and --epochs ({changes['epochs']}) cannot both be given")
    if "epochs" in changes:
        recipe = dataclasses.replace(recipe, steps=None)
    recipe = dataclasses.replace(recipe, **changes)
    steps_an_epoch = -(-len(images) // recipe.batch_size)
    steps = recipe.steps or recipe.epochs * steps_an_epoch
    height, width = images.images.shape[-2:]
    decided = {
        "steps": steps,
        "epochs": -(-steps // steps_an_epoch),
        "normalise": recipe.normalise or channel_statistics(images.images),
        "augment": dataclasses.replace(recipe.augment, mirror=recipe.augment.mirror and dataset.mirrors_keep_class),
        "image_size": recipe.image_size or (height, width),
        "precision": machine.precision(recipe.precision),
        "compiled": machine.compiled(options.compile, recipe.compiled, steps),
        "train_images": len(images),
        "test_images": len(dataset.test),
        "classes": tuple(dataset.classes),
    }
    return Plan(**(vars(recipe) | decided), recipe=options.recipe, seed=options.seed)


def asked_before(options: AnyOptions, folder: Path) -> AnyOptions:
    """The flags of the run in that folder.

    Raises:
        InputError: If there is no such run, or flags were given beside --resume.
    """
    if options != type(options)(resume=options.resume):
        raise InputError(f"--resume ({folder}) takes no other flag; the run goes on with its own")
    if not (folder / "config.json").is_file():
        raise InputError(f"--resume ({folder}) must be a run folder with its config.json; there is none")
    flags = read_config(folder)["asked"]
    try:
        before = parse(type(options), "", as_flags(flags))
    except InputError as error:
        raise InputError(f"--resume ({folder}) must hold flags of this script in config.json; {error}") from error
    return dataclasses.replace(before, resume=options.resume, out=options.resume)


def open_folder(options: RunOptions, dataset: str, processes: Processes) -> RunFolder:
    """The run folder: the first process opens it, and the others watch.

    Raises:
        InputError: If it is taken, or a run cannot go on there.
    """
    if not processes.first:
        return WatchedFolder(Path(processes.told("")))
    if options.resume:
        folder = RunFolder.reopen(Path(options.resume))
    else:
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        new = Path("runs") / f"{dataset.replace(':', '-')}-{options.recipe}-seed{options.seed}-{now}"
        folder = RunFolder.create(Path(options.out) if options.out else new)
    processes.told(str(folder.path))
    return folder


def begin_or_go_on(
    folder: RunFolder,
    options: RunOptions,
    record: dict[str, Any],
    dataset: Dataset,
    subject: Subject,
    device: torch.device,
    processes: Processes,
) -> dict[str, Any] | None:
    """Write what the flags came to into a new folder, or return the checkpoint to go on from, where there is one.

    Raises:
        InputError: If data or recipe are no longer those that the run began with.
    """
    checkpoint = None
    if options.resume:
        refuse_change(folder.path, record)
        checkpoint = folder.last_sound()
    else:
        source = {"data": dataset.description, "notice": dataset.notice}
        folder.json("environment.json", environment(device) | {"processes": processes.count} | source)
        folder.json("config.json", {"asked": asked(options), "resolved": record})  # last: with it the run can go on
    if checkpoint is None:
        folder.rewind(0, [])
        folder.announce(dataset.notice)
        images = f"{record['train_images']} images to train on, {record['test_images']} to test"
        for line in (f"{dataset.description}: {images}", *passed_over(options.device, device), *subject.remarks):
            folder.log(line)
    return checkpoint


def refuse_change(folder: Path, record: dict[str, Any]) -> None:
    """Raise InputError if data or recipe are no longer those that the run began with."""
    before, now = read_config(folder)["resolved"], json.loads(json.dumps(record))
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise InputError(
                f"--resume ({folder}) must go on with the same {name}; it was {before.get(name)} and is {now.get(name)}"
            )
