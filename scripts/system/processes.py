"""The processes of one run, started by torchrun: each takes its share of every batch, and the first one writes.

    torchrun --nproc-per-node 2 -m scripts.train_stn

Without torchrun there is one process, whose share is everything.
"""

import os
from collections.abc import Iterable, Iterator
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
    """This process among all processes of its run.

    Args:
        count: Number of processes.
        rank: Index of this one, from 0.
        place: Its index among those on this machine, from 0.
        here: Number of processes on this machine.
    """

    count: int = 1
    rank: int = 0
    place: int = 0
    here: int = 1

    @classmethod
    def started(cls) -> "Processes":
        """Return the processes that torchrun started, or a single one without torchrun."""
        if not distributed.is_torchelastic_launched():
            return ALONE
        return cls(*(int(os.environ[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Connect the processes: NCCL between GPUs, gloo between CPUs.

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
            if not any(name in str(error).lower() for name in ("gloo", "nccl")):  # they have no error class
                raise
            raise ConnectionError("another process of this run has ended or does not answer") from error
        finally:
            distributed.destroy_process_group()

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
        if not self.first:
            self.any(False)
        yield
        if self.first:
            self.any(False)

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


ALONE = Processes()
