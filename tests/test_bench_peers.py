"""The comparison with peers: everyone does the same work, and the table says what was measured."""

import pytest
import torch

from benchmarks import peers
from benchmarks.timing import check

ROWS = {row.name: row for row in peers.rows(small=True)}


@pytest.mark.parametrize("name", ROWS)
def test_everyone_in_a_row_computes_the_same_output_and_gradient(name: str) -> None:
    torch.manual_seed(0)
    row = ROWS[name]
    found = {}
    for library, module in row.build().items():
        x = torch.rand(row.inference, *row.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        output = module.eval()(x)
        output.square().sum().backward()
        found[library] = output.detach(), x.grad
        assert all(parameter.grad is not None for parameter in module.parameters()), library
    assert len(found) > 1
    for output, gradient in found.values():
        check(output, found[peers.KIT][0])
        check(gradient, found[peers.KIT][1])


def test_the_rows_of_both_sizes_are_the_same() -> None:
    assert [row.name for row in peers.rows()] == [*ROWS]
