"""New processes for single measurements: a process never frees all of a compiled network, so that one would fill up."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from threading import Thread

from benchmarks.measure.devices import ready


def alone() -> ProcessPoolExecutor:
    """Return a pool of one new process."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Set up the process. It ends with its parent: outliving a killed one, it would disturb later measurements."""

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    ready("cpu")
