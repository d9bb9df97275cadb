"""The processes of one run, started by torchrun: each takes its share of every batch, and the first one writes.

    torchrun --nproc-per-node 2 -m scripts.train_stn

Without torchrun there is one process, whose share is everything. If one dies the others end, and torchrun starts those
that are left again.
"""

import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from scripts.system.errors import Diverged, Stopped, one_line

MEETING = timedelta(minutes=2)  # from the first process that wants to connect to the last: the time to import torch
ANSWER = timedelta(minutes=10)  # for the work of one process between two exchanges: a machine without power is silent
PATIENCE = timedelta(minutes=30)  # the others wait while the first process downloads the images, or writes the report
GONE = "another process of this run has ended or does not answer"


@dataclass(frozen=True)
class Processes:
    """This process among all processes of its run.

    Args:
        count: Number of processes.
        rank: Index of this one, from 0.
        place: Its index among those on this machine, from 0.
        here: Number of processes on this machine.
        restarts: How often torchrun starts the processes that are left again.
    """

    count: int = 1
    rank: int = 0
    place: int = 0
    here: int = 1
    restarts: int = 0

    @classmethod
    def started(cls) -> "Processes":
        """Return the processes that torchrun started, or a single one without torchrun."""
        if not distributed.is_available() or not distributed.is_torchelastic_launched():
            return ALONE
        names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS")
        return cls(*(int(os.environ[name]) for name in names))

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Connect the processes: NCCL between GPUs, gloo between CPUs.

        Raises:
            ConnectionError: If another process has ended early or does not come, or has not answered for ten minutes.
        """
        if self.count == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            distributed.init_process_group(
                backend, store=self._met(), rank=self.rank, world_size=self.count, timeout=ANSWER
            )
            yield
        except RuntimeError as error:  # gloo and NCCL have no error class
            if not isinstance(error, distributed.DistError) and not re.search("gloo|nccl", str(error), re.IGNORECASE):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ConnectionError(f"{GONE}: {one_line(reason)}") from error
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()

    def _met(self) -> "distributed.Store":
        """Return the store of all processes once each has come.

        Raises:
            ConnectionError: If the first process does not come; torch would try twice as long, and print its stack.
        """
        end = time.monotonic() + MEETING.total_seconds()
        while not (self.first or _answers(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])):
            if time.monotonic() >= end:
                raise ConnectionError(GONE)
            time.sleep(0.2)
        store, *_ = next(distributed.rendezvous("env://", timeout=MEETING))
        store.set(f"process {self.rank}", "here")
        store.wait([f"process {rank}" for rank in range(self.count)], MEETING)
        return store

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and reports."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the part of ``count`` consecutive items that belongs to this process; parts differ by at most one."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, with the same bits in each."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def joined(self, part: Tensor, count: int) -> Tensor:
        """Gather ``count`` items of which every process has its share."""
        whole = part.new_zeros(count, *part.shape[1:])
        whole[self.share(count)] = part
        return self.total(whole)

    def any(self, here: bool) -> bool:
        """Return whether the value is true in any process."""
        return bool(self.total(torch.tensor(float(here))))

    def agree(self, values: Iterable[Tensor]) -> None:
        """Overwrite the values with those of the first process."""
        if self.count > 1:
            for value in values:
                distributed.broadcast(value, src=0)

    def broadcast(self, text: str) -> str:
        """Return the text of the first process."""
        texts = [text]
        if self.count > 1:
            distributed.broadcast_object_list(texts)
        return texts[0]

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process, then in all others, which find the files that it wrote."""
        if self.count == 1:
            yield
            return
        patient = distributed.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(patient, distributed.ProcessGroup), "this process is one of all"
        if not self.first:
            distributed.barrier(patient)
        yield
        if self.first:
            distributed.barrier(patient)

    @contextmanager
    def first_reports(self) -> Iterator[None]:
        """Let only the first process raise what ends the training of all; the others exit with its code.

        Raises:
            Stopped: In the first process.
            Diverged: In the first process.
            SystemExit: In the others.
        """
        try:
            yield
        except (Stopped, Diverged) as ended:
            if isinstance(ended, Stopped):
                self.any(True)  # until the first has saved: torchrun terminates it as soon as another one exits
            if self.first:
                raise
            sys.exit(128 + ended.by if isinstance(ended, Stopped) else 1)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap the model for training, so that a backward pass averages gradients over all processes."""
        return DistributedDataParallel(model) if self.count > 1 else model

    @staticmethod
    def accumulating(parallel: nn.Module) -> AbstractContextManager[None]:
        """Accumulate gradients locally until a later backward pass averages them."""
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()

    def draw_apart(self, seed: int, step: int) -> None:
        """Seed torch differently in every process but the first, which continues its sequence."""
        if not self.first:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.rank, step]).generate_state(1, np.uint64)[0]))


def _answers(host: str, port: str) -> bool:
    """Whether somebody listens at an address."""
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


ALONE = Processes()
