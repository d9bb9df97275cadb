"""What the report shows of a Vision Transformer: attention in every layer, and where its tokens speak for a class."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scripts.data.transforms import Normalise
from scripts.models.vit import PRESETS
from scripts.run.attention_maps import attention_rollout, class_token_maps
from scripts.run.findings import evenly_spaced
from scripts.run.grad_cam import grad_cam
from scripts.subjects.vit import SHOWN, attention_findings, subject, token_findings
from scripts.train_vit import RECIPES, Options
from scripts.training.evaluation import Evaluation
from scripts.training.optimizers import Muon
from tests.support.networks import TINY_LITE, network
from tests.support.runs import PLAN
from tests.support.strategies import random_pixels

pytestmark = pytest.mark.numerics

IMAGES = random_pixels(0, 5, 32, 48)
NORMALISE = Normalise((0.4, 0.5, 0.6), (0.3, 0.25, 0.2))


@pytest.mark.parametrize(("heads", "shown"), [(3, 2), (12, 1)])
def test_attention_in_every_layer_is_that_of_the_first_images(heads: int, shown: int) -> None:
    """The weights of all layers and heads are large: they are computed for one image at a time."""
    model = network(num_heads=heads)
    found = attention_findings(model, IMAGES, NORMALISE, (4, 6))
    with torch.no_grad():
        _, weights = model(NORMALISE(IMAGES), return_weights=True)
    maps = class_token_maps(weights, (4, 6))
    assert torch.equal(found["attention_images"], IMAGES)
    torch.testing.assert_close(found["attention_rollout"], attention_rollout(weights, (4, 6)))
    torch.testing.assert_close(found["attention_last_layer"], maps[:, -1])
    assert found["attention_layers"].shape == (shown, 2, heads, 4, 6)
    torch.testing.assert_close(found["attention_layers"], maps[:shown])
    elements = {
        name: found[name].untyped_storage().nbytes() / 4 for name in ("attention_layers", "attention_last_layer")
    }
    assert elements == {"attention_layers": maps[:shown].numel(), "attention_last_layer": maps[:, -1].numel()}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_speak_where_they_enter_the_last_block(depth: int) -> None:
    """Behind it only the class token is read. Every map is of the predicted class, in the middle of each patch."""
    model = network(depth=depth)
    labels = torch.arange(5)
    found = token_findings(model, IMAGES, labels, NORMALISE, (4, 6))
    inputs = NORMALISE(IMAGES)
    with torch.no_grad():
        predictions = model(inputs).argmax(1)
    layer = model.encoder.blocks[depth - 2] if depth > 1 else model.embeddings
    maps = grad_cam(model, layer, inputs, predictions, grid=(4, 6))
    assert maps.any()
    assert torch.equal(found["cam_predictions"], predictions)
    assert torch.equal(found["cam_labels"], labels)
    assert torch.equal(found["cam_images"], IMAGES)
    assert found["cam_maps"].shape == (5, 32, 48)
    middle = found["cam_maps"].unfold(1, 8, 8).unfold(2, 8, 8)[..., 3:5, 3:5].mean((3, 4))
    torch.testing.assert_close(middle[:, 1:-1, 1:-1], blurred(maps)[:, 1:-1, 1:-1])


def blurred(maps: Tensor) -> Tensor:
    """What interpolation makes of the middle of a patch, which lies half a pixel beside four pixels."""
    kernel = torch.tensor([1.0, 30, 1]) / 32
    return torch.nn.functional.conv2d(maps.unsqueeze(1), torch.outer(kernel, kernel).view(1, 1, 3, 3), padding=1)[:, 0]


def test_findings_are_of_a_few_test_images_with_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "lite", TINY_LITE)
    chosen = RECIPES["lite"]
    plan = replace(
        PLAN, image_size=(16, 24), network=chosen.network, optimizer=chosen.optimizer, classes=(*map(str, range(100)),)
    )
    made = subject(Options(), plan, torch.device("cpu"))
    count = 60
    images, labels = random_pixels(1, count, 16, 24), torch.arange(count)
    test = evenly_spaced(count)
    found = made.findings(images[test], images[test], labels[test], Evaluation(torch.zeros(count, 100), labels, None))
    shown = evenly_spaced(len(test), SHOWN)
    assert torch.equal(found["cam_labels"], labels[test][shown])
    for name in ("cam_images", "attention_images"):
        assert torch.equal(found[name], images[test][shown])
    assert found["attention_rollout"].shape == (SHOWN, 4, 6)
    assert found["cam_maps"].shape == (SHOWN, 16, 24)


def test_a_network_that_pools_its_patches_shows_no_attention_of_a_class_token() -> None:
    """Nothing is read from that token."""
    network = {"preset": "lite", "depth": 2, "pool": "sequence"}
    plan = replace(PLAN, image_size=(16, 16), network=network, optimizer="muon", classes=("cat", "dog"))
    made = subject(Options(), plan, torch.device("cpu"))
    images, labels = random_pixels(1, 4, 16, 16), torch.tensor([0, 1, 0, 1])
    found = made.findings(images, images, labels, Evaluation(torch.zeros(4, 2), labels, None))
    assert found.keys() == {"cam_images", "cam_labels", "cam_predictions", "cam_maps"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_muon_computes_in_the_type_of_the_plan_on_every_machine(precision: str) -> None:
    """Else processes on two kinds of CPU would drift apart, and a run that goes on elsewhere would be another."""
    plan = replace(
        PLAN, precision=precision, image_size=(32, 32), network={"preset": "lite", "depth": 1}, optimizer="muon"
    )
    first, _ = subject(Options(), plan, torch.device("cpu")).optimizers
    assert isinstance(first, Muon)
    assert first.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
