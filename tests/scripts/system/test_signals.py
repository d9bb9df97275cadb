"""Signals wait for the end of a step, but one that the run was told to ignore stays ignored."""

import signal

import pytest

from scripts.system.errors import Stopped
from scripts.system.signals import SIGNALS, deferred, stopping


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_what_was_ignored_before_is_ignored_still(number: signal.Signals) -> None:
    """As SIGHUP behind ``nohup``, and SIGINT where a script starts a job in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with deferred() as asked:
            signal.raise_signal(number)
            assert not asked
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_recorded_once_and_its_handler_is_back_then(number: signal.Signals) -> None:
    seen: list[int] = []
    before = signal.signal(number, lambda number, frame: seen.append(number))
    try:
        with deferred() as asked:
            signal.raise_signal(number)
            assert asked.by == number
            assert seen == []
            signal.raise_signal(number)
            assert seen == [number], "the second one takes effect at once"
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_where_there_is_nothing_to_save_a_signal_stops_at_once_and_names_the_run(number: signal.Signals) -> None:
    before = signal.signal(number, handler := lambda number, frame: None)
    try:
        with (
            pytest.raises(Stopped, match=f"^stopped by {number.name} after the last epoch$") as stopped,
            stopping("after the last epoch", "runs/first"),
        ):
            signal.raise_signal(number)
        assert (stopped.value.by, stopped.value.folder) == (number, "runs/first")
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
