"""scripts/README.md agrees with the code: files, flags, commands and limits."""

import re

from scripts import annotate, convert, export, train_stn, train_vit
from scripts.data import image_tree
from scripts.models.stn import SMALLEST
from scripts.models.vit import FEWEST_PATCHES
from scripts.notebooks import make
from scripts.run import findings, page, theta
from scripts.subjects import vit as subject_vit
from scripts.system.command_line import parse
from scripts.training.plan import Recipe
from tests.support.sources import ROOT

SCRIPTS = ROOT / "scripts"
PAGE = (SCRIPTS / "README.md").read_text("utf-8")


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """The first column of a section's table, below its header."""
    return [row.split("|")[1].strip() for row in re.findall(r"^\|.*", section(title), re.MULTILINE)][2:]


def test_the_formats_that_images_may_have_are_those_that_are_read() -> None:
    listed = re.search(r"without other programs: ([^.]+)\.", section("Untrusted files"))[1]
    assert re.split(r",?\s+(?:and\s+)?", listed) == [*image_tree.FORMATS]


def test_every_flag_on_the_page_exists() -> None:
    programs = (train_stn, train_vit, convert, export, annotate, make)
    options = (*(program.Options for program in programs), Recipe)
    names = {name for each in options for name in each.__dataclass_fields__} | {"help"}
    flags = {"--" + name.replace("_", "-") for name in names}
    page = re.sub(r"^#SBATCH.*$", "", PAGE, flags=re.MULTILINE)
    of_torchrun = ("standalone", "local-addr", "nnodes", "nproc-per-node", "max-restarts")
    theirs = {f"--{name}" for name in of_torchrun}
    theirs |= {f"--rdzv-{name}" for name in ("backend", "conf", "endpoint", "id")}
    theirs |= {"--logdir", "--no-kill"}  # of TensorBoard and SLURM
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) - theirs
    assert named <= flags
    assert len(named) >= 8


def test_the_commands_on_the_page_are_valid() -> None:
    commands = re.findall(r"-m scripts\.train_stn (.*)", PAGE)
    assert [parse(train_stn.Options, "", command.split()).data for command in commands] == [
        "digits",
        "auto",
        "auto",
        "auto",
    ]
    for command in re.findall(r"-m scripts\.convert (.*)", PAGE):
        assert parse(convert.Options, "", command.split()).family in command
    (command,) = re.findall(r"-m scripts\.export ([^#\n]*)", PAGE)
    assert parse(export.Options, "", command.split()).format == "pt2"
    modules = re.findall(r"-m (scripts\.\w+)", PAGE)
    assert all((SCRIPTS.parent / module.replace(".", "/")).with_suffix(".py").is_file() for module in modules)


def test_the_run_folder_holds_what_the_page_lists() -> None:
    named = re.findall(r"`([\w.]+)`", " ".join(first_cells("The run folder")))
    figures = {
        f"{name}.png"
        for name in (
            "curves",
            "theta",
            "transformer",
            "poses",
            "angles",
            "grad_cam",
            "attention",
            "heads",
            "confusion",
            "misclassified",
        )
    }
    checkpoints = {"last.pt", "previous.pt", "best.pt", "checkpoints.json"}
    assert set(named) == {*page.NEEDED, "report.html"} | checkpoints | figures
    assert len(named) == len(set(named))


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    text = section("How to read the report")
    assert text.count(f"{theta.LEAST_SCALE} ") == text.count(f"{theta.GREATEST_SCALE}") == 2
    assert f"more than {theta.GREATEST_SHARE_OUTSIDE * 100:.0f} % of the sampled" in text
    assert f"Up to {findings.TRANSFORMED_SHOWN} test images" in text
    assert f"Up to {findings.WRONG_SHOWN} drawn" in text
    assert PAGE.count(f"{SMALLEST} pixels a side") == 2
    assert f"Up to {subject_vit.SHOWN} test images" in text
    assert f"With fewer than {FEWEST_PATCHES} the log" in PAGE
