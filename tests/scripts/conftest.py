"""Fixtures for runs: images in a current directory of their own, and no report."""

from pathlib import Path

import pytest

from scripts.run import page
from tests.support.trees import write_tree


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images in the current directory."""
    monkeypatch.chdir(tmp_path)
    return write_tree(tmp_path / "photos")


@pytest.fixture
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second."""
    monkeypatch.setattr(page, "write_report", lambda folder: folder / "report.html")
