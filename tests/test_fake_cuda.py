"""Both models on a cuda:0 that is not there, forward and backward; the components' turn is in test_contract.py."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scripts.models import STNClassifier, VisionTransformer
from tests import fake_cuda
from tests.marks import pretends_cuda
from tests.strategies import random_images

each_model = pytest.mark.parametrize("build", (STNClassifier, lambda: VisionTransformer.from_preset("lite")),
                                     ids=("STNClassifier", "VisionTransformer"))  # fmt: skip


@pretends_cuda
@each_model
def test_a_model_runs_forward_and_backward_there(build: Callable[[], nn.Module]) -> None:
    with FakeTensorMode(), torch.device("cuda:0"):
        model, x = build(), torch.empty(2, 3, 32, 32, requires_grad=True)
        slopes = fake_cuda.backward(model(x))
    assert set(slopes) == {x, *model.parameters()}
    for leaf, slope in slopes.items():
        assert str(leaf.device) == str(slope.device) == "cuda:0"
        assert (slope.shape, slope.dtype) == (leaf.shape, leaf.dtype)


@pretends_cuda
@each_model
def test_a_model_refuses_an_image_on_another_device(build: Callable[[], nn.Module]) -> None:
    with FakeTensorMode():
        for model, there in (("cuda:0", "cpu"), ("cpu", "cuda:0")):
            with torch.device(model):
                network = build()
            with pytest.raises(RuntimeError, match="device"):
                network(torch.empty(2, 3, 32, 32, device=there))


@each_model
def test_gradients_without_the_engine_are_those_of_the_engine(build: Callable[[], nn.Module]) -> None:
    """With real numbers on a CPU."""
    torch.manual_seed(0)
    model, x = build().eval(), random_images(0, 2, 3, 32, 32, dtype=torch.float32).requires_grad_()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    slopes = fake_cuda.backward(model(x))
    leaves = [x, *model.parameters()]
    torch.testing.assert_close([slopes[leaf] for leaf in leaves], [*torch.autograd.grad(model(x).sum(), leaves)])
