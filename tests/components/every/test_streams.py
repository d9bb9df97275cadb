"""No component reads what is on a GPU or waits for it, and each works on any stream, on two at once, and in a graph.

What a call needs of a value on the GPU would stop the host until all work before it is done, and cannot be captured in
a CUDA graph. Whether it asks for one shows without a GPU; streams and graphs need one: ``make test-gpu``.
"""

import ast
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from inspect import signature

import pytest
import torch
from torch import Tensor, nn

from tests.contract.cases import CASES, Case
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.sources import modules

each_row = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
STREAMS = {
    "synchronize",
    "Stream",
    "Event",
    "current_stream",
    "default_stream",
    "stream",
    "wait_stream",
    "record_stream",
}
# one for every flag and none: the numbers that a spline solves its equations with come from the host in every call
KNOWN_WAITS = {"SpatialTransformer of ThinPlateSpline": 2}
BUSY = 50_000_000  # clock cycles: some hundredths of a second


def passes(module: nn.Module, x: Tensor, **options: object) -> list[Tensor]:
    """The output, and the gradients of input and parameters."""
    x = x.detach().requires_grad_()
    output = module(x, **options)
    first = output[0] if isinstance(output, tuple) else output
    return [first.detach(), *torch.autograd.grad(first.square().sum(), [x, *module.parameters()])]


def training(case: Case, device: str) -> nn.Module:
    """A module whose every rate is above zero."""
    return case.build(device=device, **dict.fromkeys(case.rates, 0.25)).train()


def ways(module: nn.Module) -> list[dict[str, bool]]:
    """Without a flag, and with each that ``forward`` has."""
    return [{}, *({name: True} for name, each in signature(module.forward).parameters.items() if each.default is False)]


@each_row
def test_neither_pass_reads_a_value(case: Case) -> None:
    """On the device "meta" no tensor has any: what asks for one, or for a copy on the CPU, is an error."""
    module, x = training(case, "meta"), torch.empty((2, *case.input_shape), device="meta")
    for way in ways(module):
        assert {tensor.device.type for tensor in passes(module, x, **way)} == {"meta"}


@pretends_cuda
@each_row
def test_neither_pass_waits_for_a_gpu(case: Case) -> None:
    with fake_cuda.gpu() as traffic:
        module = training(case, "cuda:0")
        x = torch.empty((2, *case.input_shape), device="cuda:0", requires_grad=True)
        before = traffic.waits
        for way in ways(module):
            output = module(x, **way)
            fake_cuda.backward(output[0] if way else output)
        assert traffic.waits - before == KNOWN_WAITS.get(case.name, 0)


def test_no_component_knows_of_streams() -> None:
    """It leaves the choice to its caller: whoever picks one himself has to wait for the other."""
    trees = [(path.name, ast.parse(path.read_text("utf-8"))) for path in modules("components")]
    found = {(name, node.attr) for name, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [(name, attribute) for name, attribute in sorted(found) if attribute in STREAMS] == []


@each_row
def test_two_calls_at_once_do_not_disturb_each_other(case: Case, device: torch.device) -> None:
    """Two streams on a GPU, and on a CPU two threads, layer by layer: what is kept during a call would be mixed up."""
    case = replace(case, device=device.type)
    module, inputs = case.module(dtype=torch.float64), [case.input(3, seed, torch.float64) for seed in (1, 2)]
    expected = [passes(module, x) for x in inputs]
    if device.type == "cuda":
        streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        torch.cuda.synchronize()
        found = []
        for stream, x in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(BUSY)  # so that both are at work together
                found.append(passes(module, x))
        torch.cuda.synchronize()
    else:
        both = threading.Barrier(2, timeout=5)

        def in_step(*_: object) -> None:
            both.wait()

        hooks = [layer.register_forward_pre_hook(in_step) for layer in module.modules()]
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda x: passes(module, x), inputs))
        for hook in hooks:  # rows of the contract share their localization
            hook.remove()
    torch.testing.assert_close(found, expected)


@pytest.fixture
def _on_a_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("only a GPU has streams: make test-gpu")


@pytest.mark.usefixtures("_on_a_gpu")
@each_row
def test_on_a_side_stream_it_computes_the_same_while_the_default_one_is_busy(case: Case) -> None:
    """What it would do on the default stream, such as sending a constant there, would come too late."""
    case = replace(case, device="cuda")
    module, x = case.module(dtype=torch.float64), case.input(dtype=torch.float64)
    expected, side = passes(module, x), torch.cuda.Stream()
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY)
    with torch.cuda.stream(side):
        found = [tensor.cpu() for tensor in passes(module, x)]
    assert not torch.cuda.default_stream().query(), "the default stream must be busy still, or nothing was tested"
    torch.testing.assert_close(found, [tensor.cpu() for tensor in expected])


@pytest.mark.usefixtures("_on_a_gpu")
@each_row
def test_a_graph_that_was_captured_computes_the_same_for_other_numbers(case: Case) -> None:
    case = replace(case, device="cuda")
    if case.name in KNOWN_WAITS:
        pytest.skip("a graph may not wait")
    module, x, other = case.module().eval(), case.input(), case.input(seed=2)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):  # libraries set themselves up
            module(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = module(x)
    x.copy_(other)
    graph.replay()
    torch.testing.assert_close(output, module(other))
