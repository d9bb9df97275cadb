"""Unpack an untrusted .tar.gz: plain files in one folder, of bounded size, all of them or none."""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.system.errors import InputError


class _Bounded:
    """A stream that returns at most ``limit`` bytes: a small archive can hold terabytes, in headers as well."""

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
    """Unpack an archive of one folder; ``target``, of the same name, appears once it is complete.

    Raises:
        InputError: If the archive holds anything but plain files in that folder, each once, if it is damaged, or if it
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
            while content.read(1 << 16):  # the checksum is at the end
                pass
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{archive} must be a complete .tar.gz archive; it cannot be read") from error
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    """Write one file; its name is checked before it becomes a path."""
    if member.isdir() and member.name == folder.name:
        return
    parent, _, name = member.name.partition("/")
    plain = member.isfile() and parent == folder.name and "/" not in name and name.strip(".")
    if not plain or (folder / name).exists():
        raise InputError(f"{archive} must hold only plain files in {folder.name}/, each once; {member.name} is not")
    content = tar.extractfile(member)
    assert content is not None
    with (folder / name).open("xb") as file:
        shutil.copyfileobj(content, file)
