"""How the process of a run ends before the run does: killed at any step or file, or on a full disk."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch


class Killed(BaseException):
    """Stands in for SIGKILL: no code of the run handles it."""


class Death:
    """Kills a process at the n-th call of a function, or when it asks; afterwards it does nothing to any file."""

    def __init__(self, moment: str = "", count: int = 0) -> None:
        self.moment, self.left, self.dead = moment, count, False

    def __call__(self) -> None:
        self.dead = True
        raise Killed

    def reached(self, moment: str) -> bool:
        self.left -= moment == self.moment
        return moment == self.moment and self.left == 0

    def before(self, call: Callable[..., Any], moment: str = "") -> Callable[..., Any]:
        """The function, in whose place the process may die."""

        def wrapped(*given: Any, **options: Any) -> Any:
            if self.dead or (moment and self.reached(moment)):
                self()
            return call(*given, **options)

        return wrapped

    def half(self, state: object, file: Any) -> None:
        """Write half of a checkpoint, and die."""
        content = BytesIO()
        self.save(state, content)
        written = content.getvalue()
        if self.reached("half a file"):
            file.write(written[: len(written) // 2])
            file.flush()
            self()
        file.write(written)

    def sync(self, handle: int) -> None:
        if self.reached("full disk"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Let it come."""
        self.save = torch.save
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "save", self.half)
            patch.setattr(os, "fsync", self.before(self.sync, "sync"))  # which is slow, and no power is cut here
            patch.setattr(Path, "replace", self.before(Path.replace, "rename"))
            patch.setattr(Path, "unlink", self.before(Path.unlink))
            patch.setattr(os, "truncate", self.before(os.truncate))
            yield
