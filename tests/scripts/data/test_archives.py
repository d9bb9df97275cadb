"""Unpacking creates one folder of plain files or raises an error, and writes nothing elsewhere."""

import re
import tarfile
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
    member("batches/1", tarfile.GNUTYPE_SPARSE),
    member("batches/1", tarfile.CHRTYPE),
    member("batches/1", tarfile.BLKTYPE),
    member("batches/1", tarfile.FIFOTYPE),
    member("batches/0"),
], ids=lambda info: f"{info.name}-{info.type.decode()}".replace("/", "|"))  # fmt: skip
def test_other_members_are_refused_by_name_and_leave_nothing(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    """The last one is in the archive twice."""
    (tmp_path / "secret").write_text("precious")
    archive = write(tmp_path / "a.tar.gz", member("batches/0"), hostile)
    message = f"{archive} must hold only plain files in batches/, each once; {hostile.name} is not"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        unpack(archive, tmp_path / "new" / "batches", LIMIT)
    assert list((tmp_path / "new").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "new", "secret"]


@pytest.mark.parametrize(("name", "content"), [("batches/1", bytes(50 * LIMIT)), ("batches/" + "1" * 50 * LIMIT, b"")],
                         ids=("content", "header"))  # fmt: skip
def test_a_small_archive_of_large_content_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    archive = write(tmp_path / "a.tar.gz", member(name), content=content)
    assert archive.stat().st_size < LIMIT / 2
    with pytest.raises(InputError, match=r"a\.tar\.gz must unpack to at most 100,000 bytes$"):
        unpack(archive, tmp_path / "new" / "batches", LIMIT)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1, 5, 30, 100, -1, -9])
def test_a_truncated_archive_is_refused(tmp_path: Path, kept: int) -> None:
    archive = write(tmp_path / "a.tar.gz", member("batches/1"), content=bytes(range(256)) * 20)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a\.tar\.gz must be a complete \.tar\.gz archive; it cannot be read$"):
        unpack(archive, tmp_path / "new" / "batches", LIMIT)
    assert list((tmp_path / "new").iterdir()) == []
