"""Downloads from a server on loopback: the first host with the right file wins, failing ones are named."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.data.download import fetch
from scripts.system.errors import InputError
from tests.support.servers import refused, serving

CONTENT = bytes(range(256)) * 512  # 128 KiB
MD5 = hashlib.md5(CONTENT).hexdigest()
HASTE = {"connect_seconds": 1.0, "stall_seconds": 0.3, "slowest": 10e6}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(CONTENT) as address:
        yield address


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_good_host_delivers_the_file(server: str, tmp_path: Path) -> None:
    target = fetch([f"{server}/good"], MD5, tmp_path / "new" / "file.bin", **HASTE)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_host_that_sends_too_much_is_left_before_the_disk_is_full(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"failed: 127\.0\.0\.1:\d+ sent more than 0 MB"):
        fetch([f"{server}/wrong"], MD5, tmp_path / "file.bin", **HASTE, largest=len(CONTENT) - 2048)
    assert list(tmp_path.iterdir()) == []
    fetch([f"{server}/good"], MD5, tmp_path / "file.bin", **HASTE, largest=len(CONTENT))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "broke off"),
        ("wrong", f"sent another file (MD5 is not {MD5})"),
        ("stalled", "stalled"),
        ("crawling", "too slow"),
        ("missing", "answered 404"),
        ("refused", "not reached (ConnectionError)"),
    ],
)
def test_a_bad_host_is_left_for_the_next_and_named_if_there_is_none(
    server: str, tmp_path: Path, kind: str, reason: str
) -> None:
    bad = refused() if kind == "refused" else f"{server}/{kind}"
    # the last host may be slow, so another one that fails at once comes after it
    with pytest.raises(InputError) as caught:
        fetch([bad, f"{server}/missing/last"], MD5, tmp_path / "file.bin", **HASTE)
    line = str(caught.value)
    assert line.startswith("download of file.bin failed: 127.0.0.1:")
    assert reason in line.split(";")[0]
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == [], "no partial file"
    fetch([bad, f"{server}/good"], MD5, tmp_path / "file.bin", **HASTE)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_the_last_host_may_be_slow(server: str, tmp_path: Path) -> None:
    fetch([f"{server}/crawling"], MD5, tmp_path / "file.bin", **HASTE)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_crawling_host_is_left_after_the_window(server: str, tmp_path: Path) -> None:
    start = time.monotonic()
    fetch([f"{server}/crawling", f"{server}/good"], MD5, tmp_path / "file.bin", **HASTE)
    assert 0.3 < time.monotonic() - start < 1.5, "the whole file would crawl for 2.6 seconds"


def test_an_existing_file_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert fetch([refused()], MD5, tmp_path / "file.bin", **HASTE).read_bytes() == CONTENT
