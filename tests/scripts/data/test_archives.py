"""An archive becomes a folder with plain files, or one line; never anything else, anywhere else."""

import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.data.archives import unpack
from scripts.system.errors import InputError
from tests.support.archives import LIMIT, member, write


def test_plain_files_of_one_folder_are_unpacked(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tar.gz", member("batches", tarfile.DIRTYPE), member("batches/1"), member("batches/2"))
    unpack(archive, tmp_path / "new" / "batches", LIMIT)
    names = sorted((tmp_path / "new" / "batches").iterdir())
    assert [(path.name, path.read_bytes()) for path in names] == [("1", b"four"), ("2", b"four")]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["batches"]


@pytest.mark.parametrize("hostile", [
    member("../boom"),
    member("batches/../../boom"),
    member("batches/.."),
    member("/tmp/boom"),
    member("other/1"),
    member("batches"),
    member("batches/deeper/1"),
    member("batches/more", tarfile.DIRTYPE),
    member("batches/1", tarfile.SYMTYPE, "/etc/passwd"),
    member("batches/1", tarfile.LNKTYPE, "../secret"),
    member("batches/1", tarfile.CHRTYPE),
    member("batches/1", tarfile.BLKTYPE),
    member("batches/1", tarfile.FIFOTYPE),
    member("batches/0"),
], ids=lambda info: f"{info.name}-{info.type.decode()}".replace("/", "|"))  # fmt: skip
def test_anything_else_is_refused_with_its_name_and_nothing_is_left(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    """The last one is there twice."""
    (tmp_path / "secret").write_text("precious")
    archive = write(tmp_path / "a.tar.gz", member("batches/0"), hostile)
    said = f"{archive} must hold plain files in batches/ alone, each once; {hostile.name} is none"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        unpack(archive, tmp_path / "new" / "batches", LIMIT)
    assert list((tmp_path / "new").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "new", "secret"]


def many_zeros(path: Path) -> None:
    write(path, member("batches/1"), content=bytes(50 * LIMIT))


def a_header_of_many_zeros(path: Path) -> None:
    write(path, member("batches/" + "1" * 50 * LIMIT))


@pytest.mark.parametrize("bomb", [many_zeros, a_header_of_many_zeros])
def test_a_small_archive_of_a_large_content_is_refused_before_it_is_written(
    tmp_path: Path, bomb: Callable[[Path], None]
) -> None:
    bomb(tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").stat().st_size < LIMIT / 2
    with pytest.raises(InputError, match=r"a\.tar\.gz must unpack to at most 100,000 bytes$"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "new" / "batches", LIMIT)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1, 5, 30, 100, -1, -9])
def test_an_archive_that_is_not_whole_is_refused(tmp_path: Path, kept: int) -> None:
    archive = write(tmp_path / "a.tar.gz", member("batches/1"), content=bytes(range(256)) * 20)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a\.tar\.gz must be a whole \.tar\.gz archive; it cannot be read$"):
        unpack(archive, tmp_path / "new" / "batches", LIMIT)
    assert list((tmp_path / "new").iterdir()) == []
