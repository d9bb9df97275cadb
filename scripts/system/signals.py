"""Ctrl-C, SIGTERM and SIGHUP: deferred until a training step is finished and saved, and at once behind the last one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from scripts.system.errors import Stopped

# SIGHUP: the connection has dropped; Windows lacks it
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Asked:
    """A request to stop, if a signal has made one."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.by is not None


@contextmanager
def stopping(when: str, folder: str) -> Iterator[None]:
    """Let any of the signals raise ``Stopped`` at once, where nothing has to be saved.

    Args:
        when: How far it got, for the message.
        folder: The run folder, from which it can be resumed; empty if it cannot.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, f"stopped by {signal.Signals(number).name} {when}", folder)

    with handled(stop):
        yield


@contextmanager
def deferred() -> Iterator[Asked]:
    """Record the first signal instead of handling it; a second one takes effect at once.

    Signals that are ignored stay so, such as SIGHUP behind ``nohup``.
    """
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        asked.by = signal.Signals(number)
        restore()

    with handled(note) as restore:
        yield asked


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[Callable[[], None]]:
    """Handle the signals in another way, but for those that are ignored; gives what puts the ways before back."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield lambda: None
        return
    before = {number: found for number in SIGNALS if (found := signal.getsignal(number)) is not signal.SIG_IGN}

    def restore() -> None:
        for number, found in before.items():
            signal.signal(number, found)

    for number in before:
        signal.signal(number, handler)
    try:
        yield restore
    finally:
        restore()
