"""Fixtures for runs: images in a current directory of their own, and no report or one without figures."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from scripts.run import figures, page
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


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with every title and caption, but with empty figures."""
    monkeypatch.setattr(page, "figures", Mock(MOST_CLASSES=figures.MOST_CLASSES))
    monkeypatch.setattr(page, "heat_maps", Mock())
