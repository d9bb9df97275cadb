"""Ctrl-C and a request to terminate wait until a training step is done and saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Asked:
    """Whether to stop, and by which signal."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.by is not None


@contextmanager
def deferred() -> Iterator[Asked]:
    """Note the first signal instead of obeying it; the second one is obeyed at once."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():  # python lets no other thread have handlers
        yield asked
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        asked.by = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
