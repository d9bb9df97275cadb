"""One run from flags to report, whatever the network: data -> batches -> network -> loop -> run folder -> report."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from scripts.data.batches import channel_statistics, resized
from scripts.data.datasets import Dataset, Split, load
from scripts.recipes.recipe import Recipe, RunOptions
from scripts.run.findings import classification_findings, evenly_spaced
from scripts.run.folder import RunFolder, WatchedFolder, environment, read_config
from scripts.subjects.subject import Subject
from scripts.system.command_line import as_flags, parse
from scripts.system.devices import choose_device, keep_freed_memory, passed_over
from scripts.system.errors import Diverged, InputError, Stopped
from scripts.system.files import read_torch
from scripts.system.machine import Machine, this_machine
from scripts.system.processes import Processes
from scripts.training.trainer import Trainer

AnyOptions = TypeVar("AnyOptions", bound=RunOptions)
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def conduct(
    options: AnyOptions,
    recipes: Mapping[str, AnyRecipe],
    build: Callable[[AnyOptions, AnyRecipe, Dataset, torch.device], Subject],
) -> None:
    """Train what ``build`` makes of the settled recipe, and leave a run folder with a report.

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
        train, held_out = (
            dataset.train.divided(options.validation) if options.validation else (dataset.train, dataset.test)
        )
        recipe = settle(recipes[options.recipe], options, dataset, train, this_machine(device))
        torch.manual_seed(options.seed)
        subject = build(options, recipe, dataset, device)
        trainer, checkpoint = prepare(options, recipe, subject, dataset, train, held_out, processes)
        folder, normalise = trainer.folder, recipe.normalise
        assert normalise is not None
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
    if not processes.first:
        return
    summary = {
        "dataset": dataset.name,
        "recipe": options.recipe,
        "epochs": trainer.epochs,
        "steps": trainer.steps,
        "seed": options.seed,
        "train_accuracy": round(rows[-1]["train_accuracy"], 2),
        "test_accuracy": round(last.accuracy, 2),
        "best_test_accuracy": round(best, 2),
        "parameters": sum(parameter.numel() for parameter in subject.network.parameters()),
        "seconds": round(sum(row[name] for row in rows for name in row if name.endswith("_seconds")), 1),
        "images_per_second": round(statistics.median(row["images_per_second"] for row in rows)),
        "peak_memory_mib": round(max(row["peak_memory_mib"] for row in rows)),
        "run_folder": str(folder.path),
    }
    images = dataset.test.images
    found = classification_findings(images, shown.logits, shown.labels, dataset.classes)
    chosen = resized(images[evenly_spaced(len(images)).to(images.device)], subject.size)
    folder.checkpoint("findings.pt", found | subject.findings(chosen, normalise))
    folder.json("summary.json", summary)  # last: with it a run is finished, and its report can be drawn
    folder.announce(dataset.notice)
    from scripts.run.page import (
        write_report,  # figures and templates take a second, which the first step need not wait for
    )

    print(f"Report: {write_report(folder.path)}")
    print(json.dumps(summary))


def asked_before(options: AnyOptions, folder: Path) -> AnyOptions:
    """The flags of the run in that folder.

    Raises:
        InputError: If there is no such run, or flags were given beside --resume.
    """
    if options != type(options)(resume=options.resume):
        raise InputError(f"--resume ({folder}) takes no other flag; the run goes on with its own")
    if not (folder / "config.json").is_file():
        raise InputError(f"--resume ({folder}) must be a run folder with its config.json; there is none")
    asked = read_config(folder)["asked"]
    try:
        before = parse(type(options), "", as_flags(asked))
    except InputError as error:
        raise InputError(f"--resume ({folder}) must hold flags of this script in config.json; {error}") from error
    return dataclasses.replace(before, resume=options.resume, out=options.resume)


def settle(recipe: AnyRecipe, options: RunOptions, dataset: Dataset, train: Split, machine: Machine) -> AnyRecipe:
    """The recipe with everything that flags, data and machine decide.

    Raises:
        InputError: If two flags contradict each other, or the machine cannot do what is asked.
    """
    if options.steps and options.epochs:
        raise InputError(f"--steps ({options.steps}) and --epochs ({options.epochs}) cannot both be given")
    batch_size = options.batch_size or recipe.batch_size
    steps = options.steps or (None if options.epochs else recipe.steps)
    steps = steps or (options.epochs or recipe.epochs) * -(-len(train) // batch_size)
    return dataclasses.replace(
        recipe,
        lr=options.lr or recipe.lr,
        batch_size=batch_size,
        at_once=options.at_once or recipe.at_once,
        steps=steps,
        normalise=recipe.normalise or channel_statistics(train.images),
        augment=dataclasses.replace(recipe.augment, mirror=recipe.augment.mirror and dataset.mirrors_keep_class),
        precision=machine.precision(options.precision or recipe.precision),
        compiled=machine.compiled(options.compile, recipe.compiled, steps),
    )


def prepare(
    options: RunOptions,
    recipe: Recipe,
    subject: Subject,
    dataset: Dataset,
    train: Split,
    held_out: Split,
    processes: Processes,
) -> tuple[Trainer, dict[str, Any] | None]:
    """A trainer with a run folder that says what the options came to, and the checkpoint to go on from.

    Raises:
        InputError: If the folder is taken, or a run cannot go on there.
    """
    normalise, steps = recipe.normalise, recipe.steps
    assert normalise is not None
    assert steps is not None
    resolved = {
        "lr": recipe.lr,
        "batch_size": recipe.batch_size,
        "steps": steps,
        "clip": recipe.clip,
        "at_once": recipe.at_once,
        **subject.settings,
        "normalise": dataclasses.asdict(normalise),
        "augment": dataclasses.asdict(recipe.augment),
        "precision": recipe.precision,
        "compiled": recipe.compiled,
        "image_size": list(subject.size),
        "train_images": len(train),
        "test_images": len(dataset.test),
        "classes": list(dataset.classes),
    }
    device = train.labels.device
    checkpoint = None
    folder = open_folder(options, dataset.name, processes)
    if options.resume:
        refuse_change(folder.path, resolved)
        checkpoint = folder.last_sound()
    else:
        source = {"data": dataset.description, "notice": dataset.notice}
        folder.json("environment.json", environment(device) | {"processes": processes.count} | source)
        # last: with it the run can go on
        folder.json("config.json", {"asked": dataclasses.asdict(options), "resolved": resolved})
    if checkpoint is None:
        folder.rewind(0, [])
        folder.announce(dataset.notice)
        folder.log(f"{dataset.description}: {len(train)} images to train on, {len(dataset.test)} to test")
        for line in (*passed_over(options.device, device), *subject.remarks):
            folder.log(line)
    network = subject.network
    trainer = Trainer(
        model=network,
        predict=subject.predict or (lambda images: (network(images), None)),
        describe=subject.describe,
        optimizers=subject.optimizers,
        schedule=recipe.schedule,
        clip=recipe.clip,
        train=train,
        held_out=held_out,
        held_out_name="validation" if options.validation else "test",
        prepare=lambda images: normalise(resized(images, subject.size)),
        augment=recipe.augment,
        batch_size=recipe.batch_size,
        at_once=recipe.at_once,
        steps=steps,
        precision=recipe.precision,
        compiled=recipe.compiled,
        seed=options.seed,
        save_minutes=options.save_minutes,
        processes=processes,
        folder=folder,
        about={"recipe": options.recipe, **resolved},
    )
    return trainer, checkpoint


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
        folder = RunFolder.create(Path(options.out) if options.out else default_folder(options, dataset))
    processes.told(str(folder.path))
    return folder


def refuse_change(folder: Path, resolved: dict[str, Any]) -> None:
    """Raise InputError if data or recipe are no longer those that the run began with."""
    before, now = read_config(folder)["resolved"], json.loads(json.dumps(resolved))
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise InputError(
                f"--resume ({folder}) must go on with the same {name}; it was {before.get(name)} and is {now.get(name)}"
            )


def default_folder(options: RunOptions, dataset: str) -> Path:
    """A name that no other run has."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{dataset.replace(':', '-')}-{options.recipe}-seed{options.seed}-{now}"
