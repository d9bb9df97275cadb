"""The record of a run names the code, the versions and the machine."""

import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from scripts.run import environment as module
from scripts.run.environment import environment


def test_the_environment_names_commit_versions_and_device() -> None:
    found = environment(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert re.fullmatch("[0-9a-f]{40}", found["commit"] or "0" * 40)
    assert found["torch"] == torch.__version__
    assert found["accelerator"] is None


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code outside of any repository."""
    code = tmp_path / "anywhere" / "scripts" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("code")
    monkeypatch.setattr(module, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return code


def revision() -> tuple[str | None, bool | None]:
    found = environment(torch.device("cpu"))
    return found["commit"], found["uncommitted_changes"]


def commit(folder: Path, *paths: str) -> None:
    nobody = ("-c", "user.name=n", "-c", "user.email=e")
    for command in (["init"], ["add", *paths], [*nobody, "commit", "--message", "first"]):
        subprocess.run(["git", "-C", folder, *command], capture_output=True, check=True)


def test_in_a_checkout_commit_and_changes_are_known(copied: Path) -> None:
    commit(copied.parent.parent, ".")
    first, changed = revision()
    assert re.fullmatch("[0-9a-f]{40}", first or "")
    assert changed is False
    copied.write_text("other code")
    assert revision() == (first, True)


def test_outside_of_its_own_repository_commit_and_changes_are_unknown(copied: Path) -> None:
    """Also if it is installed into an environment inside the checkout of another project."""
    assert revision() == (None, None)
    (copied.parent.parent / "theirs.py").write_text("code")
    commit(copied.parent.parent, "theirs.py")
    assert revision() == (None, None)


def test_without_git_commit_and_changes_are_unknown(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(copied.parent.parent, ".")
    monkeypatch.setenv("PATH", str(copied.parent))
    assert revision() == (None, None)


def test_with_a_damaged_index_changes_are_unknown(copied: Path) -> None:
    commit(copied.parent.parent, ".")
    (copied.parent.parent / ".git" / "index").write_text("damaged")
    assert revision()[1] is None


def test_torchvision_is_noted_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(torch.device("cpu"))["torchvision"] == version("torchvision")

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("scripts.run.environment.version", missing)
    assert environment(torch.device("cpu"))["torchvision"] is None
