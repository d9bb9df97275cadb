"""Read or unpack an untrusted .tar.gz: plain files in one folder, of bounded size, all of them or none."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
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


def contents(archive: Path, folder: str, limit: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file of an archive of one folder.

    Raises:
        InputError: If the archive holds anything but plain files in that folder, each once, if it is damaged, or if it
            unpacks to more than ``limit`` bytes.
    """
    with gzip.open(archive) as stream:
        content, names = _Bounded(stream, limit, archive), set()
        try:
            with tarfile.open(fileobj=content, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    if member.isdir() and member.name == folder:
                        continue
                    parent, _, name = member.name.partition("/")  # checked before it becomes a path
                    plain = member.isfile() and not member.issparse()  # a sparse file may be of any size
                    if not (plain and parent == folder and "/" not in name and name.strip(".")) or name in names:
                        wanted = f"only plain files in {folder}/, each once"
                        raise InputError(f"{archive} must hold {wanted}; {member.name} is not")
                    names.add(name)
                    file = tar.extractfile(member)
                    assert file is not None
                    yield name, file.read()
            while content.read(1 << 16):  # the checksum is at the end
                pass
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{archive} must be a complete .tar.gz archive; it cannot be read") from error


def unpack(archive: Path, target: Path, limit: int) -> None:
    """Unpack an archive of one folder; ``target``, of the same name, appears once it is complete.

    Raises:
        InputError: As ``contents``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
        whole = Path(temporary, target.name)
        whole.mkdir()
        for name, content in contents(archive, target.name, limit):
            with (whole / name).open("xb") as file:
                file.write(content)
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise
