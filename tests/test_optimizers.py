"""KernelMuon is torch's Muon, on kernels seen as matrices."""

import torch
from hypothesis import given
from torch import nn

from scripts.optimizers import KernelMuon
from tests.strategies import generator, seeds


@given(seeds)
def test_a_kernel_moves_as_the_matrix_of_its_output_channels(seed: int) -> None:
    start = torch.randn(5, 3, 2, 2, generator=generator(seed))
    kernel = nn.Parameter(start.clone().to(memory_format=torch.channels_last))
    matrix = nn.Parameter(start.flatten(1).clone())
    ours = KernelMuon([kernel], lr=0.1, weight_decay=0.01)
    torchs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.01)
    for step in range(3):
        gradient = torch.randn(5, 3, 2, 2, generator=generator(seed + step))
        kernel.grad, matrix.grad = gradient.clone(), gradient.flatten(1)
        ours.step()
        torchs.step()
    assert not torch.equal(kernel, start)
    assert torch.equal(kernel.flatten(1), matrix)


def test_gradients_do_not_pile_up_from_step_to_step() -> None:
    kernel = nn.Parameter(torch.ones(2, 3))
    optimizer = KernelMuon([kernel], lr=0.1, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        kernel.sum().backward()
        assert torch.equal(kernel.grad, torch.ones(2, 3))
        optimizer.step()


def test_it_follows_weights_that_were_loaded_after_it_was_made() -> None:
    kernel = nn.Parameter(torch.zeros(3, 4))
    optimizer = KernelMuon([kernel], lr=0.1, weight_decay=0.0)
    with torch.no_grad():
        kernel.fill_(7)
    kernel.grad = torch.zeros(3, 4)
    optimizer.step()
    assert torch.equal(kernel, torch.full((3, 4), 7.0))


def test_a_kernel_without_a_gradient_stays() -> None:
    kernel = nn.Parameter(torch.ones(2, 3))
    KernelMuon([kernel], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(kernel, torch.ones(2, 3))
