"""A compiled network has the output of the network."""

import pytest
import torch
from torch import nn

from scripts.models.cnn import Features
from scripts.models.stn import STNClassifier
from scripts.models.vit import VisionTransformer
from scripts.system.machine import Machine, this_machine
from scripts.training.compiled import Compiled, for_inference
from tests.support.machines import FAST_CPU, H100, MI300, PLAIN_CPU, T4, half_precision
from tests.support.marks import inductor_compiles_bfloat16

pytestmark = pytest.mark.numerics

SMALL = {"image_size": 32, "patch_size": 16, "dim": 32, "depth": 1, "num_heads": 2, "mlp_dim": 64, "dropout": 0.1}


@pytest.mark.parametrize("machine", [FAST_CPU, PLAIN_CPU], ids=("bfloat16", "float32"))
def test_the_default_type_is_that_of_precision_auto(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.training.compiled.this_machine", lambda device: machine)
    monkeypatch.setattr(torch, "compile", lambda network: network)
    output = for_inference(nn.Linear(3, 2))(torch.randn(4, 3))
    assert output.dtype == getattr(torch, machine.precision("auto"))


def test_half_precision_is_a_type_that_the_machine_has_kernels_for() -> None:
    chosen = {machine: half_precision(machine) for machine in (T4, H100, MI300, FAST_CPU, PLAIN_CPU)}
    assert [machine for machine, dtype in chosen.items() if dtype != torch.bfloat16] == [T4]
    assert chosen[T4] == torch.float16


@inductor_compiles_bfloat16
def test_inference_has_the_same_output_with_weights_as_constants(device: torch.device) -> None:
    """As arguments they would be cast and packed in every call."""
    dtype = half_precision(this_machine(device))
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL).to(device)
    nn.init.normal_(network.head.weight)
    assert network.training
    images = torch.randn(4, 3, 32, 32, device=device)
    ask = for_inference(network, dtype)
    before = ask(images)
    assert not before.requires_grad
    expected = network.eval()(images).detach()
    torch.testing.assert_close(before.float(), expected, atol=0.02 * expected.abs().max().item(), rtol=0)
    with torch.no_grad():
        network.encoder.blocks[0].mlp.fc1.weight.zero_()
    assert torch.equal(ask(images), before)


@inductor_compiles_bfloat16
def test_compiled_gradients_of_the_largest_value_are_those_of_the_network(device: torch.device) -> None:
    """Compiled code recomputes in float32 what the network rounds: nothing then equals the largest value any more."""
    torch.manual_seed(0)
    network = Features(3, 4, (8,), places=True).to(device)
    images, gradients = torch.randn(8, 3, 9, 9, device=device), []
    for call in (network, Compiled(network, 8)):
        with torch.autocast(device.type, half_precision(this_machine(device))):
            features = call(images)
        loss = (features.float() * torch.linspace(-1, 1, features.numel(), device=device).view_as(features)).sum()
        gradients.append(torch.autograd.grad(loss, [*network.parameters()]))
    for expected, gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, atol=0.1 * expected.abs().max().item(), rtol=0)


def test_options_of_the_network_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    compiled = Compiled(STNClassifier(), 2)
    for count in (2, 1):
        logits, theta = compiled(torch.randn(count, 3, 32, 32), return_theta=True)
        assert (logits.shape, theta.shape) == ((count, 10), (count, 2, 3))


@pytest.mark.parametrize("full", [4, 0])
def test_an_empty_share_of_a_batch_is_not_compiled(full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor has no backward pass for one; with more processes than images even a full batch has some."""
    monkeypatch.setattr(torch, "compile", lambda network, **_: None)
    Compiled(nn.Conv2d(3, 2, 4), full)(torch.randn(0, 3, 8, 8)).sum().backward()
