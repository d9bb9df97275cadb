"""What every component promises, checked for every row of ``cases.py``.

Oracles come from elsewhere: a float64 reference, a finite difference, a closed form, a second run.
"""

import copy
import inspect
import pickle
import re

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, stack_module_state, vmap

from tests.cases import CASES, Case, Refusal
from tests.marks import pretends_cuda

RATES = {"dropout", "attn_dropout", "stochastic_depth"}

each_component = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_place = pytest.mark.parametrize(
    "factory", ({"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}), ids=str
)
each_rate = pytest.mark.parametrize(
    ("case", "rate"), [pytest.param(case, rate, id=f"{case.name}-{rate}") for case in CASES for rate in case.rates]
)


def gradients(module: nn.Module, x: Tensor, grad_output: Tensor) -> list[Tensor]:
    """The gradients of input and parameters, in that order."""
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(module(x), [x, *module.parameters()], grad_output))


@each_component
@pytest.mark.parametrize("batch", (0, 1, 5))
def test_the_output_shape_follows_from_the_configuration(case: Case, batch: int) -> None:
    x = case.input(batch).requires_grad_()
    output = case.module()(x)
    assert output.shape == (batch, *case.output_shape)
    output.sum().backward()
    assert x.grad.shape == x.shape


@each_component
def test_the_value_is_that_of_an_independent_float64_reference(case: Case) -> None:
    module, x = case.module(), case.input()
    torch.testing.assert_close(module(x).double(), case.reference(module, x), atol=1e-5, rtol=1e-5)
    module, x = module.double(), x.double()
    torch.testing.assert_close(module(x), case.reference(module, x), atol=1e-12, rtol=1e-12)


def assert_all_there(case: Case, module: nn.Module, factory: dict) -> None:
    """Every tensor of the module, and what it makes of an input there, has this type and device."""
    x = torch.zeros((2, *case.input_shape), **factory)
    for tensor in (*module.parameters(), *module.buffers(), module(x)):
        assert tensor.dtype == factory.get("dtype", torch.float32)
        assert tensor.device.type == factory.get("device", "cpu")


@each_component
@each_place
def test_factory_options_reach_every_tensor_and_the_output(case: Case, factory: dict) -> None:
    assert_all_there(case, case.build(**factory), factory)


@each_component
@each_place
def test_a_module_that_moves_takes_every_tensor_along(case: Case, factory: dict) -> None:
    """What is neither parameter nor buffer stays behind."""
    assert_all_there(case, case.build().to(**factory), factory)


@each_component
def test_gradients_of_input_and_parameters_equal_finite_differences(case: Case) -> None:
    module, x = case.module(dtype=torch.float64), case.input(1, dtype=torch.float64)
    names, values = zip(*module.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,)).sin().sum()

    # a step of 1e-8 makes it unlikely (1e-5 a run) to straddle a kink of relu, max pooling or bilinear sampling
    inputs = (x.requires_grad_(), *(value.detach().requires_grad_() for value in values))
    assert torch.autograd.gradcheck(call, inputs, eps=1e-8, atol=1e-5, rtol=1e-4)


@each_component
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    module = case.module()
    module(case.input(5)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


@each_component
def test_weights_move_to_a_fresh_instance_by_frozen_names(case: Case) -> None:
    source, target, x = case.module(seed=0), case.module(seed=1), case.input()
    assert not torch.equal(source(x), target(x))
    assert tuple(source.state_dict()) == case.keys
    target.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(source(x), target(x))


@each_component
@pytest.mark.parametrize("clone", (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))), ids=("deepcopy", "pickle"))
def test_a_copy_is_equal_and_shares_nothing(case: Case, clone) -> None:
    module, x = case.module(), case.input()
    before = module(x)  # first: a tensor with a history that the module kept could not be copied
    twin = clone(module)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(module(x), before)


@each_component
def test_the_input_is_left_alone(case: Case) -> None:
    x = case.input()
    before, version = x.clone(), x._version
    case.module()(x)
    assert torch.equal(x, before)
    assert x._version == version


@each_component
def test_memory_layout_changes_neither_output_nor_gradients(case: Case) -> None:
    module, x = case.module(dtype=torch.float64), case.input(dtype=torch.float64)
    grad_output = torch.randn_like(module(x))
    strided = torch.stack([x, x + 1], -1)[..., 0]
    strided_grad = torch.stack([grad_output, grad_output + 1], -1)[..., 0]
    assert not strided.is_contiguous()
    assert not strided_grad.is_contiguous()
    layouts = {"strided": (strided, strided_grad)}
    if x.ndim == 4:
        layouts["channels_last"] = (x.to(memory_format=torch.channels_last), grad_output)
    for layout, (inputs, grads) in layouts.items():
        torch.testing.assert_close(module(inputs), module(x), msg=layout)
        torch.testing.assert_close(gradients(module, inputs, grads), gradients(module, x, grad_output), msg=layout)


@each_component
def test_evaluation_equals_training_where_nothing_is_dropped(case: Case) -> None:
    module, x = case.module(), case.input()
    assert torch.equal(module.train()(x), module.eval()(x))


@each_component
def test_every_rate_that_a_constructor_takes_is_under_contract(case: Case) -> None:
    assert set(inspect.signature(type(case.build())).parameters) & RATES == set(case.rates)


@each_rate
def test_nothing_is_dropped_in_evaluation(case: Case, rate: str) -> None:
    """Dropout that lives on in eval: timm #1978, torchtune #1791, vjepa2 #160."""
    dropping, x = case.module(**{rate: 0.5}).eval(), case.input()
    assert torch.equal(dropping(x), case.module()(x))
    assert torch.equal(dropping(x), dropping(x))


@each_rate
def test_training_drops_something_else_in_every_sample_and_every_call(case: Case, rate: str) -> None:
    torch.manual_seed(0)
    dropping, x = case.module(**{rate: 0.5}), case.input(1).expand(16, *case.input_shape)
    first, second = dropping(x), dropping(x)
    # not merely other bits: equal samples of a batch may be rounded differently
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, first[:1].expand_as(first))


@each_component
def test_the_same_seed_gives_the_same_bits(case: Case) -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(5)
        module, x = case.build(), case.input()
        return [module(x), *module.state_dict().values(), *gradients(module, x, torch.ones_like(module(x)))]

    assert all(torch.equal(first, second) for first, second in zip(run(), run(), strict=True))


@each_component
def test_samples_of_a_batch_do_not_know_each_other(case: Case) -> None:
    module, x = case.module(dtype=torch.float64), case.input(3, dtype=torch.float64).requires_grad_()
    output = module(x)
    for i in range(3):
        torch.testing.assert_close(output[i : i + 1], module(x[i : i + 1]))
        (grad,) = torch.autograd.grad(output[i].sum(), x, retain_graph=True)
        assert [bool(row.any()) for row in grad] == [j == i for j in range(3)]


@each_component
def test_it_compiles_into_one_graph_that_serves_every_batch_size(case: Case) -> None:
    module, graphs = case.module(), []

    def backend(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    for batch in (3, 5, 2, 7):
        x = case.input(batch)
        torch.testing.assert_close(compiled(x), module(x))
    assert len(graphs) <= 2, "one static graph, then one with a dynamic batch"


@each_component
def test_it_exports_with_a_dynamic_batch(case: Case) -> None:
    module = case.module()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (case.input(3),), dynamic_shapes=({0: batch},))
    for size in (3, 5):
        torch.testing.assert_close(program.module()(case.input(size)), module(case.input(size)))


# torch 2.14 runs the fused attention of the CPU in a loop under vmap, and warns that this is slow
@pytest.mark.filterwarnings("ignore:There is a performance drop.*scaled_dot_product:UserWarning")
@each_component
def test_vmap_over_stacked_parameters_is_a_loop_over_modules(case: Case) -> None:
    modules, x = [case.module(seed) for seed in range(3)], case.input()
    parameters, buffers = stack_module_state(modules)
    skeleton = copy.deepcopy(modules[0]).to("meta")
    together = vmap(lambda p, b: functional_call(skeleton, (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([module(x) for module in modules]), atol=1e-5, rtol=1e-4)


@each_component
def test_half_precision_stays_near_float32_and_finite(case: Case) -> None:
    module, x = case.module(), case.input()
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, large = module(x), module(1000 * x)
    assert mixed.dtype == case.autocast_dtype
    assert large.isfinite().all()
    # bfloat16 keeps 8 bits; measured 0.004 and, where the row's own head rounds theta, 0.033
    assert (mixed - exact).norm() < 0.05 * exact.norm()
    half = copy.deepcopy(module).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - exact).norm() < 0.1 * exact.norm()


@pretends_cuda
@each_component
def test_it_runs_on_cuda_and_refuses_mixed_devices(case: Case) -> None:
    with FakeTensorMode():
        module = case.build(device="cuda:0")
        # forward only: without a driver, torch's autograd engine refuses fake CUDA tensors (no primary context)
        output = module(torch.empty((2, *case.input_shape), device="cuda:0"))
        assert {str(t.device) for t in (output, *module.parameters(), *module.buffers())} == {"cuda:0"}
        with pytest.raises(RuntimeError, match="device"):
            module(torch.empty(2, *case.input_shape))


@pytest.mark.parametrize("refusal", [pytest.param(r, id=r.message) for case in CASES for r in case.refusals])
def test_bad_input_is_refused_with_name_value_and_requirement(refusal: Refusal) -> None:
    with pytest.raises(refusal.error, match=f"^{re.escape(refusal.message)}$"):
        refusal.call()
