"""Faults of older versions of torch: which tests must fail with which versions, and why.

These tests are strict expected failures: if one passes, the suite fails until its line is corrected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
import torch


@dataclass(frozen=True)
class Fault:
    """A fault of torch.

    Args:
        tests: The beginning of the test ids that show it, as pytest writes them.
        since: The first version with the fault, of those that the components support.
        mended: The first version without it.
        wrong: What goes wrong.
        without_gpu: Whether it appears only without a GPU.
    """

    tests: str
    since: str
    mended: str
    wrong: str
    without_gpu: bool = False

    def is_in(self, version: str, gpu: bool) -> bool:
        """Whether this version of torch has the fault, on a machine with or without a GPU."""
        known = torch.torch_version.TorchVersion(version)  # compares numbers: 2.10 comes after 2.9
        return known >= self.since and known < self.mended and not (self.without_gpu and gpu)


COMPILING_IS_EXPORTING = "torch.compiler.is_exporting() is true in torch.compile too: Attention takes the fused kernel"
NO_DRIVER = "FakeTensorMode asks for a driver when it copies to a cuda:0 that is not there"

FAULTS = (
    Fault(
        "test_contract.py::test_second_derivatives_equal_finite_differences[SpatialTransformer", "2.8", "2.12",
        "grid_sample has no second derivatives",
    ),
    Fault(
        "test_contract.py::test_gradients_of_every_sample_at_once_are_those_of_a_loop[SpatialTransformer",
        "2.8", "2.12",
        "vmap takes the gradient of grid_sample only where the image needs one too",
    ),
    Fault(
        "test_localization_net.py::test_an_exported_graph_serves_every_image_size", "2.9", "2.13",
        "torch.export turns max_pool2d after a convolution into a guard that refuses odd sides",
    ),
    Fault(
        "test_attention.py::test_a_compiled_graph_of_any_length_keeps_to_the_choice[", "2.8", "2.12",
        COMPILING_IS_EXPORTING,
    ),
    Fault(
        "test_attention.py::test_compiling_does_not_bring_the_slow_kernel_back[Attention-False]", "2.8", "2.12",
        COMPILING_IS_EXPORTING,
    ),
    Fault(
        "test_attention.py::test_compiling_does_not_bring_the_slow_kernel_back[WrittenOut-True]", "2.8", "2.12",
        "Inductor does not recognise attention that is written out this way",
    ),
    Fault(
        "test_contract.py::test_it_runs_forward_and_backward_on_cuda_without_a_gpu", "2.8", "2.10",
        NO_DRIVER, without_gpu=True,
    ),
    Fault(
        "test_contract.py::test_an_input_on_another_device_is_refused", "2.8", "2.10",
        NO_DRIVER, without_gpu=True,
    ),
)  # fmt: skip


def expect(items: Iterable[pytest.Item]) -> None:
    """Mark the tests that must fail with the installed torch."""
    for item in items:
        for fault in FAULTS:
            if f"/{fault.tests}" in f"/{item.nodeid}" and fault.is_in(torch.__version__, torch.cuda.is_available()):
                item.add_marker(pytest.mark.xfail(reason=f"torch before {fault.mended}: {fault.wrong}", strict=True))
