"""What people type reaches the scripts as they typed it."""

import os
import shlex
import subprocess

import pytest

from tests.support.sources import ROOT


def make(*arguments: str, makefile: str = "", **variables: str) -> str:
    """What make prints; the make that runs the suite leaves variables behind."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment | variables,
        input=makefile,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def recipe(*arguments: str) -> list[str]:
    """The last command of what make would run."""
    printed = make("-n", *arguments)
    return shlex.split(printed.replace("\\\n", "").rstrip("\n").rpartition("\n")[2])


@pytest.mark.parametrize(
    "name", ["bob's photos", "a b", "~/photos", 'say "cheese"', "100% $HOME", "back\\slash", "q;r&s|t"]
)
def test_a_folder_of_any_name_reaches_the_script(name: str) -> None:
    escaped = name.replace("$", "$$")  # as make itself wants it
    given = recipe("train-vit", f"DATA={escaped}", f"OUT={escaped}", f"WEIGHTS={escaped}")
    assert given[-6:] == ["--data", name, "--out", name, "--weights", name]
    assert recipe("gpu-check", f"OUT={escaped}")[-2:] == ["--out", name]
    assert recipe("bench-compare", f"BASE={escaped}")[-1] == name
    assert f"--benchmark-json={name}" in recipe("bench", f"OUT={escaped}")


def test_a_python_that_is_told_to_be_safe_still_finds_the_scripts() -> None:
    """PYTHONSAFEPATH takes the folder of the checkout off the path."""
    probe = "-include Makefile\nprobe:\n\t@echo safe=$$PYTHONSAFEPATH\n"
    assert make("-f", "-", "probe", makefile=probe, PYTHONSAFEPATH="1") == "safe=\n"
