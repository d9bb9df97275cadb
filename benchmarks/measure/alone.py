"""Processes that measure one thing each: compiled networks are never quite forgotten, and would fill a single one."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from threading import Thread

from benchmarks.measure.devices import full_float32, keep_freed_memory


def alone(*, keeping: bool) -> ProcessPoolExecutor:
    """A new process.

    Args:
        keeping: Whether the memory of its freed tensors serves the next ones, as in the kit's runs.
    """
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(keeping,))


def _begin(keeping: bool) -> None:
    """End with the parent: a process that outlives one that was killed would spoil the next measurement."""

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    full_float32()
    if keeping:
        keep_freed_memory()
