"""The network of the tutorial: its parameters, its layers, and any image size."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks.peers.tasks import stn_classifiers
from scripts.models.stn import STNClassifier
from tests.support.networks import by_heart
from tests.support.strategies import random_images, seeds

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("training", [False, True])
@given(seeds)
def test_it_is_the_tutorial_network_also_with_dropout(training: bool, seed: int) -> None:
    torch.manual_seed(seed)
    networks = [network.train(training) for network in stn_classifiers(dropout=0.5).values()]
    x = random_images(seed, 4, 3, 32, 32, dtype=torch.float32)
    outputs = []
    for network in networks:
        torch.manual_seed(seed)
        outputs.append(network(x))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_it_has_the_parameters_of_the_published_run() -> None:
    assert sum(parameter.numel() for parameter in STNClassifier().parameters()) == 39_884


def test_it_learns_a_batch_by_heart() -> None:
    """Labels that nothing in the images tells, and every parameter takes part, those of the transformer too."""
    torch.manual_seed(0)
    model = STNClassifier(5, dropout=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = by_heart(model, random_images(0, 10, 3, 32, 32, dtype=torch.float32), torch.arange(10) % 5)
    assert losses[-1] < 0.1
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []


@given(st.sampled_from((16, 20, 33, 64)), st.sampled_from((16, 27, 48)), st.integers(2, 7))
def test_any_image_of_sixteen_pixels_or_more_is_classified(height: int, width: int, classes: int) -> None:
    logits, theta = STNClassifier(classes, 1)(torch.zeros(2, 1, height, width), return_theta=True)
    assert logits.shape == (2, classes)
    assert theta.shape == (2, 2, 3)


def test_without_the_transformer_images_reach_the_classifier_untouched() -> None:
    with_it, without = STNClassifier(dropout=0.0), STNClassifier(dropout=0.0, transform=False)
    without.load_state_dict(with_it.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(without(x), with_it(x), msg="the transformer starts as the identity")
    with pytest.raises(ValueError, match=re.escape("STNClassifier: return_theta (True) needs transform=True")):
        without(x, return_theta=True)


def test_sizes_may_be_of_any_integer_type_and_wrong_types_are_refused_by_name() -> None:
    assert repr(STNClassifier(np.int64(7), np.int64(2))) == repr(STNClassifier(7, 2))
    for name in ("num_classes", "in_channels", "dropout", "transform"):
        with pytest.raises(TypeError, match=rf"^STNClassifier: {name} \('7'\) must be "):
            STNClassifier(**{name: "7"})
    for name in ("num_classes", "in_channels"):
        with pytest.raises(ValueError, match=rf"^STNClassifier: {name} \(0\) must be at least 1$"):
            STNClassifier(**{name: 0})


@pytest.mark.parametrize("side", (32, 40))
def test_torch_fx_traces_it_and_torchvision_returns_what_its_layers_compute(side: int) -> None:
    model, x = STNClassifier().eval(), random_images(0, 2, 3, side, side, dtype=torch.float32)
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(traced(x, True), model(x, True))
    features = create_feature_extractor(model, ["transformer.localization.fc2", "fc2"])(x)
    logits, theta = model(x, return_theta=True)
    torch.testing.assert_close(features, {"transformer.localization.fc2": theta.flatten(1), "fc2": logits})
