"""Where torch takes a module apart: replicas of DataParallel, whose parameters are plain tensors, and sharded ones."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.contract.cases import CASES, Case

RESETTABLE = [case for case in CASES if hasattr(case.build(device="meta"), "reset_parameters")]


def replica(module: nn.Module) -> nn.Module:
    """What ``nn.DataParallel`` makes of a module for another device."""
    copies: dict[nn.Module | None, Any] = {each: each._replicate_for_data_parallel() for each in module.modules()}
    for each, copy in copies.items():
        for name, child in each._modules.items():
            copy._modules[name] = copies[child]
        for name, tensor in (each._parameters | each._buffers).items():
            setattr(copy, name, None if tensor is None else tensor.detach().clone())
    return copies[module]


@pytest.fixture
def _two_processes() -> Iterator[None]:
    """This is the first of two processes; the other one need not be there."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_replica_computes_the_same(case: Case) -> None:
    module, x = case.module().eval(), case.input()
    assert not [*replica(module).parameters()]
    torch.testing.assert_close(replica(module)(x), module(x))


@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support")
@pytest.mark.usefixtures("_two_processes")
@pytest.mark.parametrize("case", RESETTABLE, ids=lambda case: case.name)
def test_every_shard_of_a_parameter_is_drawn(case: Case) -> None:
    """A network that no process can hold is built on "meta", sharded, given memory, and reset."""
    module = case.build(device="meta")
    fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    module.to_empty(device="cpu")
    shards = {name: parameter.to_local() for name, parameter in module.named_parameters()}
    with torch.no_grad():
        for shard in shards.values():
            shard.fill_(7)
    module.reset_parameters()
    assert [name for name, shard in shards.items() if (shard == 7).any()] == []
