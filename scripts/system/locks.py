"""Locks on files, which end with the process that has them."""

import errno
import sys
import time

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

IN_USE = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what ``lock`` fails with if another process has the lock


def lock_within(handle: int, patience: float) -> None:
    """Lock a file as soon as no other process has locked it.

    Raises:
        OSError: If another process still has after so many seconds.
    """
    end = time.monotonic() + patience
    while True:
        try:
            lock(handle)
            return
        except OSError as error:
            if error.errno not in IN_USE or time.monotonic() >= end:
                raise
        time.sleep(min(1.0, patience))


def lock(handle: int) -> None:
    """Lock a file until it is closed.

    Raises:
        OSError: If another process has locked it.
    """
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
