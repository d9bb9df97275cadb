"""Defer Ctrl-C, SIGTERM and SIGHUP until a training step is finished and saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the connection has dropped; Windows lacks it
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Asked:
    """A request to stop, if a signal has made one."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.by is not None


@contextmanager
def deferred() -> Iterator[Asked]:
    """Record the first signal instead of handling it; a second one takes effect at once.

    Signals that are ignored stay so, such as SIGHUP behind ``nohup``.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        asked.by = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
