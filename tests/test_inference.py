"""A network that is compiled for inference says what it says without, with the weights that it had."""

import torch
from torch import nn

from scripts.devices import choose_precision
from scripts.inference import for_inference
from scripts.models import VisionTransformer

SMALL = {"image_size": 32, "patch_size": 16, "dim": 32, "depth": 1, "num_heads": 2, "mlp_dim": 64, "dropout": 0.1}


def test_it_says_what_the_network_says_with_weights_as_constants_in_the_type_of_the_runs() -> None:
    """Were they arguments, they would be cast and packed in every call."""
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL)
    nn.init.normal_(network.head.weight)
    assert network.training
    images = torch.randn(4, 3, 32, 32)
    ask = for_inference(network)
    before = ask(images)
    assert not before.requires_grad
    assert before.dtype == getattr(torch, choose_precision("auto", images.device))
    expected = network.eval()(images).detach()
    torch.testing.assert_close(before.float(), expected, atol=0.02 * expected.abs().max().item(), rtol=0)
    with torch.no_grad():
        network.encoder.blocks[0].mlp.fc1.weight.zero_()
    assert torch.equal(ask(images), before)
