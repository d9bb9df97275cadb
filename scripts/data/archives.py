"""Unpack a .tar.gz that is not trusted: plain files in one folder, of a bounded size, and all of them or none."""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.system.errors import InputError


class _Bounded:
    """A stream out of which no more than so many bytes come: a small archive can hold terabytes, in headers as well."""

    def __init__(self, stream: gzip.GzipFile, limit: int, archive: Path) -> None:
        self.stream, self.left = stream, limit
        self.refusal = f"{archive} must unpack to at most {limit:,} bytes"

    def read(self, size: int) -> bytes:
        part = self.stream.read(size)
        self.left -= len(part)
        if self.left < 0:
            raise InputError(self.refusal)
        return part


def unpack(archive: Path, target: Path, limit: int) -> None:
    """Unpack an archive of one folder; ``target``, of the same name, appears once everything is there.

    Raises:
        InputError: If the archive holds anything else than plain files in that folder, each once, is not whole, or
            unpacks to more than ``limit`` bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary, gzip.open(archive) as stream:
        content, whole = _Bounded(stream, limit, archive), Path(temporary, target.name)
        whole.mkdir()
        try:
            with tarfile.open(fileobj=content, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    _unpack_member(tar, member, whole, archive)
            while content.read(1 << 16):  # to its end, where the checksum is
                pass
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{archive} must be a whole .tar.gz archive; it cannot be read") from error
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    """Write one file; its name is taken apart before any path is made of it."""
    if member.isdir() and member.name == folder.name:
        return
    parent, _, name = member.name.partition("/")
    plain = member.isfile() and parent == folder.name and "/" not in name and name.strip(".")
    if not plain or (folder / name).exists():
        raise InputError(f"{archive} must hold plain files in {folder.name}/ alone, each once; {member.name} is none")
    content = tar.extractfile(member)
    assert content is not None
    with (folder / name).open("xb") as file:
        shutil.copyfileobj(content, file)
