"""The processes of one run, started by torchrun: each takes its share of every batch, and the first one writes.

    torchrun --nproc-per-node 2 -m scripts.train_stn

A run without torchrun is one process whose share is everything, with nobody to talk to.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(minutes=30)  # the others wait while the first process downloads the images


@dataclass(frozen=True)
class Processes:
    """This process among all of its run.

    Args:
        count: How many there are.
        rank: Which one this is, from 0.
        place: Which one of those on this machine, from 0.
        here: How many there are on this machine.
    """

    count: int = 1
    rank: int = 0
    place: int = 0
    here: int = 1

    @classmethod
    def started(cls) -> "Processes":
        """Those that torchrun started, else this one alone."""
        if not distributed.is_torchelastic_launched():
            return ALONE
        return cls(*(int(os.environ[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Let the processes talk to each other: NCCL between GPUs, gloo between CPUs.

        Raises:
            ConnectionError: If another process has ended early, or has not answered for half an hour.
        """
        if self.count == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
        try:
            yield
        except RuntimeError as error:
            if not any(name in str(error).lower() for name in ("gloo", "nccl")):  # they have no error of their own
                raise
            raise ConnectionError("another process of this run has ended or does not answer") from error
        finally:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, prints and reports."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of so many things in a row are this process's; shares differ by one at most."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, to the bit the same in each."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def joined(self, part: Tensor, count: int) -> Tensor:
        """So many things in a row, of which every process has its share."""
        whole = part.new_zeros(count, *part.shape[1:])
        whole[self.share(count)] = part
        return self.total(whole)

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.total(torch.tensor(float(here))))

    def told(self, words: str) -> str:
        """What the first process says."""
        said = [words]
        if self.count > 1:
            distributed.broadcast_object_list(said)
        return said[0]

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does it, then all others: what it leaves on the disk is there for them."""
        if not self.first:
            self.any(False)
        yield
        if self.first:
            self.any(False)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model for training: after a backward pass gradients are the mean over all processes."""
        return DistributedDataParallel(model) if self.count > 1 else model

    @staticmethod
    def accumulating(parallel: nn.Module) -> AbstractContextManager[None]:
        """Passes whose gradients stay here, to be averaged with those of a later one."""
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()

    def draw_apart(self, seed: int, step: int) -> None:
        """From this step on, let torch draw other numbers here than in any other process; the first draws on."""
        if not self.first:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.rank, step]).generate_state(1, np.uint64)[0]))


ALONE = Processes()
