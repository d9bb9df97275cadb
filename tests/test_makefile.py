"""What people type reaches the scripts as they typed it."""

import os
import shlex
import subprocess

import pytest

from tests.support.sources import ROOT


def recipe(*arguments: str) -> list[str]:
    """The last command of what make would run."""
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout.replace("\\\n", "").rstrip("\n").rpartition("\n")[2])


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
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    probe = "-include Makefile\nprobe:\n\t@echo safe=$$PYTHONSAFEPATH\n"
    done = subprocess.run(
        ["make", "-f", "-", "probe"], cwd=ROOT, env=environment, input=probe, capture_output=True, text=True, check=True
    )
    assert done.stdout == "safe=\n"
