"""scripts/README.md says what the scripts do: files, flags, commands, recipes, limits."""

import re

import pytest

from scripts import convert, train_stn, train_vit
from scripts.models.stn import SMALLEST, STNClassifier
from scripts.models.vit import FEWEST_PATCHES, VisionTransformer
from scripts.run import findings, page, theta
from scripts.subjects import stn as subject_stn
from scripts.subjects import vit as subject_vit
from scripts.system.command_line import parse
from tests.support.sources import ROOT

SCRIPTS = ROOT / "scripts"
PAGE = (SCRIPTS / "README.md").read_text("utf-8")


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """What stands in the first column of a section's table, below its header."""
    return [row.split("|")[1].strip() for row in re.findall(r"^\|.*", section(title), re.MULTILINE)][2:]


def test_every_flag_on_the_page_exists() -> None:
    options = (train_stn.Options, train_vit.Options, convert.Options)
    names = {name for each in options for name in each.__dataclass_fields__} | {"help"}
    flags = {"--" + name.replace("_", "-") for name in names}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - {"--standalone", "--nproc-per-node"}  # of torchrun
    assert named <= flags
    assert len(named) >= 8


def test_the_commands_on_the_page_are_understood() -> None:
    commands = re.findall(r"-m scripts\.train_stn (.*)", PAGE)
    assert [parse(train_stn.Options, "", command.split()).data for command in commands] == ["digits", "auto"]
    for command in re.findall(r"-m scripts\.convert (.*)", PAGE):
        assert parse(convert.Options, "", command.split()).family in command
    modules = re.findall(r"-m (scripts\.\w+)", PAGE)
    assert all((SCRIPTS.parent / module.replace(".", "/")).with_suffix(".py").is_file() for module in modules)


def test_the_run_folder_holds_what_the_page_lists() -> None:
    named = re.findall(r"`([\w.]+)`", " ".join(first_cells("The run folder")))
    figures = {f"{name}.png" for name in ("curves", "theta", "transformer", "attention", "confusion", "misclassified")}
    checkpoints = {"last.pt", "previous.pt", "best.pt", "checkpoints.json"}
    assert set(named) == {*page.NEEDED, "report.html"} | checkpoints | figures
    assert len(named) == len(set(named))


def test_the_recipe_table_is_that_of_the_recipes() -> None:
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in section("The recipes of train-stn").splitlines()]
    table = {row[0]: dict(zip(("tutorial", "tuned"), row[1:], strict=True)) for row in rows if len(row) == 3}
    for name, recipe in train_stn.RECIPES.items():
        optimizers = subject_stn.OPTIMIZERS[recipe.optimizer](STNClassifier(), recipe.lr)
        numbers = {
            "learning rate": [group["lr"] for optimizer in optimizers for group in optimizer.param_groups],
            "batch size": [recipe.batch_size],
            "dropout": [recipe.dropout],
        }
        for title, values in numbers.items():
            assert [float(number) for number in re.findall(r"[\d.]*\d", table[title][name])] == pytest.approx(values)
        assert ("mirrored" in table["training images"][name]) == recipe.augment.mirror
        assert (f"up to {recipe.augment.shift} pixels" in table["training images"][name]) == bool(recipe.augment.shift)
        assert ("CIFAR-10" in table["training images"][name]) == (recipe.normalise is not None)
        assert table["`--precision`"][name].startswith(f"`{recipe.precision}`")
        assert (table["over the run"][name] == "constant") == (recipe.schedule(0.01) == recipe.schedule(0.99) == 1)
    assert "rises for 20 % of the steps" in table["over the run"]["tuned"]
    assert max((step / 100 for step in range(101)), key=train_stn.RECIPES["tuned"].schedule) == 0.2


def test_the_table_of_vit_recipes_is_that_of_the_recipes() -> None:
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in section("The recipes of train-vit").splitlines()]
    names, *table = [row for row in rows if len(row) == 4]
    table = {row[0]: row[1:] for row in table}
    for column, name in enumerate(("lite", "b16", "b16-finetune")):
        recipe, said = train_vit.RECIPES[name], {title: row[column] for title, row in table.items()}
        assert f"`{name}`" in names[1 + column]
        network = VisionTransformer.from_preset(recipe.preset, device="meta", **recipe.options)
        optimizers = subject_vit.OPTIMIZERS[recipe.optimizer](network, recipe.lr)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        for title, wanted in {
            "learning rate": sorted(set(rates), reverse=True),
            "batch size": [recipe.batch_size, recipe.at_once]
            if recipe.at_once < recipe.batch_size
            else [recipe.batch_size],
            "length": [recipe.steps or recipe.epochs],
            "dropout": [network.embeddings.dropout.p],
        }.items():
            numbers = re.findall(r"[\d.,]*\d", said[title])
            assert [float(number.replace(",", "")) for number in numbers] == pytest.approx(wanted), title
        size = [len(network.encoder.blocks), network.head.in_features, network.embeddings.patch_size]
        numbers = [int(number) for number in re.findall(r"(?<![/\w])\d+", said["network"])]
        assert numbers == (size if recipe.image_size is None else []), "fine-tuning is of the same ViT-B/16"
        assert (said["images"] == "as they are") == (recipe.image_size is None)
        assert ("resized to 224x224" in said["images"]) == (recipe.image_size == 224)
        assert ("`--weights`" in said["starts from"]) == recipe.pretrained
        assert ("half" in said["patches left out"]) == (network.patch_dropout == 0.5)
        assert said["longest gradient"] == ("any" if recipe.clip is None else f"{recipe.clip:g}")
        assert ("mirrored" in said["training images"]) == recipe.augment.mirror
        assert (f"up to {recipe.augment.shift} pixels" in said["training images"]) == bool(recipe.augment.shift)
        assert ("5 % of the area" in said["training images"]) == (recipe.augment.crop == 0.05)
        top = max((step / 100 for step in range(101)), key=recipe.schedule)
        assert top == pytest.approx({"lite": 0.1, "b16": 0.2, "b16-finetune": 0.05}[name])
        rise = f"{top * recipe.steps:.0f} steps" if recipe.steps else f"{top:.0%} of the steps".replace("%", " %")
        assert f"rises for {rise}" in said["over the run"]
    short = train_vit.RECIPES["b16-finetune-500"]
    assert (short.steps, max(range(501), key=lambda step: short.schedule(step / 500))) == (500, 100)


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    text = section("How to read the report")
    assert text.count(f"{theta.LEAST_SCALE} ") == text.count(f"{theta.GREATEST_SCALE}") == 2
    assert f"more than {theta.GREATEST_SHARE_OUTSIDE * 100:.0f} % of the sampled" in text
    assert f"Up to {findings.TRANSFORMED_SHOWN} test images" in text
    assert f"Up to {findings.WRONG_SHOWN} drawn" in text
    assert PAGE.count(f"{SMALLEST} pixels a side") == 2
    assert f"Up to {subject_vit.SHOWN} test images" in text
    assert f"With fewer than {FEWEST_PATCHES} the log" in PAGE
