"""Averaged weights are what is evaluated and saved; training goes on with its own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.training.state import State
from tests.support.runs import PLAN, at_step, run, trainer

pytestmark = pytest.mark.numerics


def normed() -> nn.Module:
    """A network with running statistics, which are averaged like weights, and a counter, which is not."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2))


def test_what_is_evaluated_and_saved_is_the_moving_average_of_all_steps(tmp_path: Path) -> None:
    model, seen, evaluated = normed(), [], []
    made = trainer(
        tmp_path / "run", model=model, predict=lambda x: (model(x), None), steps=8, averaged=0.35,
        optimizers=[torch.optim.SGD(model.parameters(), lr=0.05)], describe=None,
    )  # fmt: skip

    def copied(network: nn.Module) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in network.state_dict().items()}

    made.optimizers[0].register_step_post_hook(lambda *given: seen.append(copied(model)))
    model.register_forward_pre_hook(
        lambda network, given: None if network.training else evaluated.append(copied(network))
    )
    made.fit()
    assert len(seen) == 8
    average = seen[0]
    for n, weights in enumerate(seen[1:], start=1):
        kept = min(0.35, (1 + n) / (10 + n))
        average = {
            name: kept * average[name] + (1 - kept) * value if value.is_floating_point() else average[name]
            for name, value in weights.items()
        }
    last = torch.load(made.folder.path / "last.pt", weights_only=True)
    for name, value in average.items():
        if not value.is_floating_point():
            assert last["model"][name] == seen[-1][name] == 8, "the steps that were counted"
        if value.is_floating_point():
            torch.testing.assert_close(last["model"][name], value)
            torch.testing.assert_close(evaluated[-1][name], value)
            torch.testing.assert_close(model.state_dict()[name], value)
            assert torch.equal(last["trained"][name], seen[-1][name])
    assert not torch.equal(average["3.weight"], seen[-1]["3.weight"])


@pytest.mark.parametrize(("steps", "most"), [(20, 1e-3), (100, 1e-6), (10_000, 1e-12)])
def test_little_of_the_first_step_is_left_in_a_run_of_any_length(steps: int, most: float) -> None:
    """With its decay alone an average of 100 steps would have 61 % of it, and be no better than chance."""
    state = State(nn.Linear(1, 1), [], replace(PLAN, averaged=0.995), torch.device("cpu"))
    with torch.no_grad():
        state.model.weight.fill_(1.0)
        state.update_average()
        state.model.weight.zero_()
        for _ in range(steps - 1):
            state.update_average()
    assert 0 <= state.average.weight.item() < most


def test_training_is_that_of_a_run_without_average(tmp_path: Path) -> None:
    for name, decay in (("averaged", 0.9), ("plain", 0.0)):
        run(tmp_path / name, averaged=decay).fit()
    trained, expected = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("averaged", "plain"))
    assert all(torch.equal(trained["trained"][name], value) for name, value in expected["model"].items())
    assert "trained" not in expected


def test_a_skipped_step_leaves_the_average_as_it_is(tmp_path: Path) -> None:
    made = run(tmp_path / "run", averaged=0.5, save_minutes=60.0)

    def broken() -> None:
        made.model[0].weight.register_hook(lambda gradient: gradient * torch.nan)

    with at_step(4, broken):
        made.fit()
    last = torch.load(made.folder.path / "last.pt", weights_only=True)
    assert last["averaged_steps"] == 3, "all steps after the third are skipped"
