"""Archives, well-formed and malicious."""

import io
import tarfile
from pathlib import Path

LIMIT = 100_000


def write(path: Path, *members: tarfile.TarInfo, content: bytes = b"four") -> Path:
    """Write an archive of these members; every file gets the content."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if member.isfile():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if member.isfile() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info
