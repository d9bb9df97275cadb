"""Both models on a fake cuda:0: forward, backward, and the findings of a run. Components are in test_contract.py."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scripts.data.batches import channel_statistics, resized
from scripts.data.datasets import Split
from scripts.models.stn import STNClassifier
from scripts.models.vit import VisionTransformer
from scripts.run.attention_maps import attention_rollout, class_token_maps
from scripts.run.findings import classification_findings
from scripts.run.theta import theta_statistics
from scripts.training.evaluation import Evaluation
from tests.support import fake_cuda
from tests.support.marks import pretends_cuda
from tests.support.strategies import random_images

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


@pretends_cuda
@each_model
def test_the_findings_of_a_run_need_no_float64_there(build: Callable[[], nn.Module]) -> None:
    """Apple's GPUs have none, so what must be exact is computed on the CPU."""
    with fake_cuda.gpu():
        with torch.device("cuda:0"):
            model = build().eval()
            images, labels = torch.zeros(9, 3, 32, 32, dtype=torch.uint8), torch.zeros(9, dtype=torch.long)
        split, normalise = Split(images, labels).sample(8), channel_statistics(images)
        x = normalise(resized(resized(split.images, (40, 24)), (32, 32)))
        extra = {"return_theta": True} if isinstance(model, STNClassifier) else {"return_weights": True}
        logits, found = model(x, **extra)
        assert Evaluation(logits, split.labels, None).line("test")
        findings = classification_findings(split.images, logits, split.labels, ["class"] * 10)
        if isinstance(model, STNClassifier):
            theta_statistics(found, 32, 32)
        else:
            findings["rollout"] = attention_rollout(found, (8, 8)).cpu()
            findings["maps"] = class_token_maps(found, (8, 8)).cpu()
        findings["images"] = normalise.undo(x).cpu()
        assert {str(value.device) for value in findings.values() if isinstance(value, torch.Tensor)} == {"cpu"}


@pretends_cuda
def test_float64_on_a_gpu_is_noticed() -> None:
    with fake_cuda.gpu():
        x = torch.zeros(2, device="cuda:0")
        assert x.cpu().double().dtype == torch.float64
        for spoil in (lambda: x.double(), lambda: torch.zeros(2, dtype=torch.float64).to("cuda:0")):
            with pytest.raises(AssertionError, match="_to_copy"):
                spoil()


@pretends_cuda
def test_copies_and_waits_are_counted() -> None:
    """The host waits for values, for sizes that depend on them, and for copies other than non-blocking pinned ones."""
    with fake_cuda.gpu() as traffic:
        x, cpu, pinned = torch.zeros(3, device="cuda:0"), torch.zeros(3), torch.zeros(3).pin_memory()

        def cost(call: Callable[[], object]) -> tuple[int, int]:
            before = traffic.copies, traffic.waits
            call()
            return traffic.copies - before[0], traffic.waits - before[1]

        assert cost(lambda: x + x.flip(0)) == (0, 0)
        assert cost(lambda: cpu.sum().item()) == (0, 0)
        assert cost(lambda: cpu.to("cuda:0")) == cost(lambda: x.cpu()) == cost(lambda: x.copy_(cpu)) == (1, 1)
        assert cost(lambda: cpu.to("cuda:0", non_blocking=True)) == (1, 1)
        assert cost(lambda: pinned.to("cuda:0")) == (1, 1)
        assert cost(lambda: pinned.to("cuda:0", non_blocking=True)) == (1, 0)
        assert cost(lambda: x.copy_(pinned, non_blocking=True)) == (1, 0)
        assert cost(lambda: x.sum().item()) == cost(x.nonzero) == (0, 1)
        assert cost(x.tolist) == (1, 1)


@each_model
def test_gradients_without_the_engine_are_those_of_the_engine(build: Callable[[], nn.Module]) -> None:
    """On a CPU, with real values."""
    torch.manual_seed(0)
    model, x = build().eval(), random_images(0, 2, 3, 32, 32, dtype=torch.float32).requires_grad_()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    slopes = fake_cuda.backward(model(x))
    leaves = [x, *model.parameters()]
    torch.testing.assert_close([slopes[leaf] for leaf in leaves], [*torch.autograd.grad(model(x).sum(), leaves)])
