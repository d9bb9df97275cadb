"""Laws of the localization network: the identity at the start, any image size, the weights of the tutorial."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, jacrev, vmap

from components import LocalizationNet
from components.localization_net import average_to
from tests import reference
from tests.support.strategies import batch_sizes, channels, image_sides, random_images, seeds

pytestmark = pytest.mark.numerics


def build(seed: int, *sizes: int, dtype: torch.dtype = torch.float64) -> LocalizationNet:
    """With a random head: the zero head of the start would hide the layers before it."""
    torch.manual_seed(seed)
    net = LocalizationNet(*sizes, dtype=dtype)
    nn.init.normal_(net.fc2.weight)
    return net


@given(seeds, batch_sizes, channels, image_sides, image_sides)
def test_it_starts_at_the_identity_for_any_input(seed: int, batch: int, in_channels: int, h: int, w: int) -> None:
    theta = LocalizationNet(in_channels)(100 * random_images(seed, batch, in_channels, h, w, dtype=torch.float32))
    assert torch.equal(theta.reshape(batch, 2, 3), torch.eye(2, 3).expand(batch, 2, 3))


@given(seeds, st.integers(1, 12).filter(lambda p: p != 6))
def test_other_parametrisations_start_at_zero(seed: int, num_params: int) -> None:
    theta = LocalizationNet(3, num_params)(random_images(seed, 2, 3, 32, 32, dtype=torch.float32))
    assert torch.equal(theta, torch.zeros(2, num_params))


@given(seeds, image_sides, image_sides)
def test_theta_depends_on_every_image_size_once_the_head_is_random(seed: int, h: int, w: int) -> None:
    net = build(seed, 1)
    first, second = (net(random_images(seed + i, 1, 1, h, w)) for i in range(2))
    assert first.shape == (1, 6)
    assert not torch.equal(first, second)


def test_the_device_that_is_named_counts_more_than_the_one_around_it() -> None:
    with torch.device("meta"):
        net = LocalizationNet(device="cpu")
        net.reset_parameters()
    assert net.fc2.bias.tolist() == [1, 0, 0, 0, 1, 0]


def test_at_the_start_only_the_head_gets_a_gradient() -> None:
    net = LocalizationNet()
    net(random_images(0, 4, 3, 32, 32, dtype=torch.float32)).square().sum().backward()
    assert net.fc2.weight.grad.any()
    assert not net.conv1.weight.grad.any(), "the gradient through a zero head is exactly zero"


def test_reset_parameters_redraws_every_layer_and_restores_the_identity() -> None:
    torch.manual_seed(0)
    net = LocalizationNet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    nn.init.ones_(net.fc2.weight)
    net.reset_parameters()
    same = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"fc2.weight", "fc2.bias"}
    assert torch.equal(net(torch.randn(1, 3, 32, 32)), torch.tensor([[1.0, 0, 0, 0, 1, 0]]))


@given(seeds, batch_sizes, image_sides, image_sides)
def test_the_slope_in_any_direction_equals_the_gradient(seed: int, batch: int, h: int, w: int) -> None:
    """Where the step crosses a kink of relu or max pooling, its slope lies between those at both ends."""
    net = build(seed, 2, 3)
    start = {"x": random_images(seed, batch, 2, h, w), **net.state_dict()}
    direction = {name: torch.randn_like(value) for name, value in start.items()}

    def loss_and_slope(step: float) -> tuple[Tensor, Tensor]:
        at = torch.tensor(step, dtype=torch.float64, requires_grad=True)
        moved = {name: value + at * direction[name] for name, value in start.items()}
        loss = functional_call(net, moved, (moved.pop("x"),)).sin().sum()
        return loss.detach(), *torch.autograd.grad(loss, at)

    (before, first), (after, last) = loss_and_slope(-1e-8), loss_and_slope(1e-8)
    slope = (after - before) / 2e-8
    torch.testing.assert_close(slope, slope.clamp(min(first, last), max(first, last)), atol=1e-4, rtol=1e-4)


def test_the_whole_jacobian_equals_finite_differences() -> None:
    """For the image and each of the 8,000 parameters, of which the contract checks one direction only."""
    net = build(0, 2, 5)
    start = {"x": random_images(0, 1, 2, 19, 23), **net.state_dict()}

    def theta(moved: dict[str, Tensor]) -> Tensor:
        return functional_call(net, {**start, **moved}, (moved.get("x", start["x"]),))[0]

    for name, value in start.items():

        def along(direction: Tensor, name: str = name, value: Tensor = value) -> Tensor:
            return theta({name: value + direction})

        steps = (1e-8 * torch.eye(value.numel(), dtype=torch.float64)).unflatten(1, value.shape).split(256)
        slopes = torch.cat([vmap(along)(step) - vmap(along)(-step) for step in steps]).T / 2e-8  # (5, numbers)
        jacobian = jacrev(along)(torch.zeros_like(value)).flatten(1)
        torch.testing.assert_close(jacobian, slopes, atol=1e-5, rtol=1e-4, msg=f"gradient of {name}")


@given(seeds)
def test_the_weights_of_the_tutorial_load_and_give_its_theta(seed: int) -> None:
    torch.manual_seed(seed)
    tutorial = nn.Sequential(  # at 32x32 pixels
        nn.Conv2d(3, 8, 7), nn.MaxPool2d(2, 2), nn.ReLU(), nn.Conv2d(8, 10, 5), nn.MaxPool2d(2, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(10 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 6),
    )  # fmt: skip
    net = LocalizationNet()
    net.load_state_dict(dict(zip(net.state_dict(), tutorial.state_dict().values(), strict=True)))
    assert sum(parameter.numel() for parameter in net.parameters()) == 8_544
    x = random_images(seed, 3, 3, 32, 32, dtype=torch.float32)
    torch.testing.assert_close(net(x), tutorial(x))


@given(seeds, st.integers(1, 17), st.integers(1, 17))
def test_a_small_image_is_centred_in_eighteen_pixels_of_zeros(seed: int, h: int, w: int) -> None:
    net, x = build(seed, 1), random_images(seed, 2, 1, h, w)
    top, left = (18 - h) // 2, (18 - w) // 2
    canvas = torch.zeros(2, 1, 18, 18, dtype=torch.float64)
    canvas[:, :, top : top + h, left : left + w] = x
    assert torch.equal(net(x), net(canvas))


def test_theta_stays_in_float32_under_autocast() -> None:
    net = LocalizationNet()
    nn.init.constant_(net.fc2.bias, 1 + 2**-20)
    x = random_images(0, 1, 3, 32, 32, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net(x), torch.full((1, 6), 1 + 2**-20))


@given(seeds, st.sampled_from((18, 33, 64, 97)), st.sampled_from((18, 33, 64, 97)))
def test_an_image_of_any_size_equals_the_reference(seed: int, h: int, w: int) -> None:
    net, x = build(seed), random_images(seed, 2, 3, h, w)
    torch.testing.assert_close(net(x), reference.localization_net(net, x))


def test_a_grid_of_the_right_size_is_not_averaged() -> None:
    x = random_images(0, 2, 3, 4, 4)
    assert average_to(x, 4) is x
    torch.testing.assert_close(average_to(x, 2), x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)))


@pytest.mark.parametrize("side", (32, 40), ids=("nothing to average", "averaged"))
def test_an_exported_graph_serves_every_image_size(side: int) -> None:
    """A graph exported at a size that needs no averaging must average other sizes."""
    net = build(0)
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    program = torch.export.export(net, (random_images(0, 2, 3, side, side),), dynamic_shapes=sizes).module()
    for shape in ((2, 3, 32, 32), (1, 3, 40, 61), (3, 3, 64, 32)):
        torch.testing.assert_close(program(random_images(1, *shape)), net(random_images(1, *shape)))
