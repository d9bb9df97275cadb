"""What people type reaches the scripts as they typed it, and what pip installs is what the pages say."""

import dataclasses
import importlib
import os
import re
import shlex
import subprocess

import pytest
from packaging.requirements import Requirement

from tests.support.sources import ROOT, dotted, modules


def run(*arguments: str, makefile: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make; the make that runs the suite, and the user, leave variables behind."""
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment | variables,
        input=makefile,
        capture_output=True,
        text=True,
        check=False,
    )


def make(*arguments: str, makefile: str = "", **variables: str) -> str:
    """What make prints."""
    done = run(*arguments, makefile=makefile, **variables)
    done.check_returncode()
    return done.stdout


def recipe(*arguments: str) -> list[str]:
    """The last command of what make would run."""
    printed = make("-n", *arguments)
    return shlex.split(printed.replace("\\\n", "").rstrip("\n").rpartition("\n")[2])


@pytest.mark.parametrize(
    "name", ["bob's photos", "a b", "~/photos", 'say "cheese"', "100% $HOME", "back\\slash", "q;r&s|t", "-d"]
)
def test_a_folder_of_any_name_reaches_the_script(name: str) -> None:
    escaped = name.replace("$", "$$")  # as make itself wants it
    given = recipe("train-vit", f"DATA={escaped}", f"OUT={escaped}", f"WEIGHTS={escaped}")
    assert given[-3:] == [f"--data={name}", f"--out={name}", f"--weights={name}"]
    assert recipe("export", f"RUN={escaped}", "ARGS=--format pt2")[-4:] == ["--format", "pt2", "--", name]
    assert recipe("gpu-check", f"OUT={escaped}")[-1] == f"--out={name}"
    assert recipe("real-weights", f"FOLDER={escaped}")[-1] == f"--folder={name}"
    assert recipe("annotate", f"RUN={escaped}", f"OUT={escaped}")[-2:] == [f"--run={name}", f"--out={name}"]
    assert recipe("annotate")[-1] == "scripts.annotate", "without a run"
    assert recipe("bench-compare", f"BASE={escaped}", "ARGS=--only Block")[-4:] == ["--only", "Block", "--", name]
    assert f"--benchmark-json={name}" in recipe("bench", f"OUT={escaped}")


@pytest.mark.parametrize("count", ["abc", "0", "-1", "1.5", "2 3", "2;3", "it's"])
@pytest.mark.parametrize("target", ["train-stn", "train-vit"])
def test_a_number_of_processes_that_is_none_is_one_line(target: str, count: str) -> None:
    done = run("-n", target, f"PROCESSES={count}")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"*** PROCESSES ({count}) must be a whole number, at least 1.  Stop."), line


@pytest.mark.parametrize("count", ["1", "2", "16"])
def test_processes_are_started_by_torchrun(count: str) -> None:
    command = recipe("train-stn", f"PROCESSES={count}")
    assert command[0].endswith("torchrun")
    assert command[command.index("--nproc-per-node") + 1] == count


def test_variables_of_the_user_are_not_those_of_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "7")
    assert "--seed" not in recipe("train-stn")


def test_an_environment_is_made_once_and_kept_where_packages_cannot_be_had() -> None:
    """It is updated when pyproject.toml changes, which must not take it away from somebody without a network."""
    for target in ("lint", "test-oldest"):
        printed = make("-n", "-W", "pyproject.toml", target)
        assert "pip install" in printed
        assert "/bin/pip ||" in printed, "where Debian lacked python3-venv, a half-made environment has no pip"
        assert "rm -rf" not in printed


def test_a_setting_that_has_a_variable_reaches_the_script() -> None:
    given = recipe("train-stn", "RECIPE=small", "POSE=c8", "SEED=2", "EPOCHS=3", "ARGS=--no-transformer")
    flags = ["--epochs=3", "--recipe=small", "--pose=c8", "--seed=2", "--no-transformer"]
    assert given[given.index("scripts.train_stn") + 1 :] == flags


def test_a_python_that_is_told_to_be_safe_still_finds_the_scripts() -> None:
    """PYTHONSAFEPATH takes the folder of the checkout off the path."""
    probe = "-include Makefile\nprobe:\n\t@echo safe=$$PYTHONSAFEPATH\n"
    assert make("-f", "-", "probe", makefile=probe, PYTHONSAFEPATH="1") == "safe=\n"


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    for torch, variables in (("torch==2.8", []), ("torch==2.11", ["TORCH=2.11"])):
        printed = make("-n", "OLDEST=.venv-nowhere", *variables, ".venv-nowhere/ready")
        (install,) = (line for line in printed.splitlines() if " install " in line)
        assert {torch, "einops==0.8", "scipy==1.11.2"} <= set(install.split())


@pytest.mark.parametrize(("name", "kept", "replaced"), (
    ("torch",
     ("2.8.0", "2.8.0+cu128", "2.8.0a0+git1234567", "2.8.0.dev20250601", "2.9.0.dev20250901", "2.13.0a0+nv25.06"),
     ("2.7.1", "2.7.1+cu126", "2.7.0a0+nv25.03")),
    ("torchvision", ("0.23.0", "0.23.0a0+428a54c", "0.24.0a0", "0.25.0.dev20251201"), ("0.22.1", "0.22.0a0")),
))  # fmt: skip
def test_builds_of_vendors_are_kept_where_the_kit_is_installed(name: str, kept: tuple, replaced: tuple) -> None:
    """Containers and clusters have their own; they are named like versions before the release."""
    bounds = re.findall(rf'"({name}>=[^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert bounds
    for bound in bounds:
        allowed = Requirement(bound).specifier
        assert [version for version in kept + replaced if version in allowed] == [*kept]


def test_a_flag_that_nobody_gives_has_a_value_that_could_be_given() -> None:
    """Defaults are checked like flags: one that is no choice would refuse the plain command."""
    files = [path for floor in ("scripts", "benchmarks") for path in modules(floor)]
    named = [path for path in files if re.search(r"^class \w*Options\b", path.read_text("utf-8"), re.MULTILINE)]
    kinds = [kind for path in named for kind in vars(importlib.import_module(dotted(path))).values()]
    kinds = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    limited = [field for kind in kinds for field in dataclasses.fields(kind) if field.metadata.get("choices")]
    given = [field for field in limited if field.default not in (None, dataclasses.MISSING)]
    assert [field for field in given if field.default not in field.metadata["choices"]] == []
    assert len(given) > 5
