"""Every component keeps what the contract promises in any configuration, as far as drawing many can be afforded.

What compiles, exports, traces, draws thousands of numbers or takes a whole Jacobian stays on the rows of ``cases.py``.
"""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.contract import planted
from tests.contract.cases import layers
from tests.contract.drawn.configurations import CONFIGURATIONS, Drawn
from tests.contract.items import ITEMS, checks
from tests.contract.table import ROWS
from tests.contract.test_contract import constructor_call, rebuilt
from tests.support.strategies import generator, token_counts

pytestmark = pytest.mark.numerics

DRAWN = (  # items whose tests take some milliseconds
    "shape", "smallest input", "dtype and device", "factory options", "moves", "reference value",
    "every parameter learns", "state_dict", "copies", "input untouched", "strides", "channels last", "train and eval",
    "determinism", "batch independence", "per-sample gradients", "vmap", "refusals",
)  # fmt: skip
few = settings(max_examples=-(-settings.default.max_examples // 3))  # an example is some forty tests
each_component = pytest.mark.parametrize("name", CONFIGURATIONS)


def broken(case: Drawn) -> dict[str, str]:
    """The items that a configuration breaks, each with its first error."""
    owed = [check for check in checks(case) if check.item in DRAWN]
    errors = ((check.item, check.error(case)) for check in owed)
    return {item: f"{type(error).__name__}: {error}" for item, error in errors if error is not None}


@each_component
@few
@given(data=st.data())
def test_a_drawn_configuration_keeps_the_contract(name: str, data: st.DataObject) -> None:
    assert broken(data.draw(CONFIGURATIONS[name])) == {}


@each_component
@given(data=st.data())
def test_what_print_shows_of_a_drawn_configuration_builds_the_same_function(name: str, data: st.DataObject) -> None:
    case = data.draw(CONFIGURATIONS[name])
    rates = {rate: data.draw(st.sampled_from((0.0, 0.25, 0.5)), rate) for rate in case.rates}
    module = case.module(**rates)
    if name == "SpatialTransformer":
        given_options = {**case.options, "localization": module.localization}
    else:
        given_options = constructor_call(case)[1] | rates
    again, x = rebuilt(module, case.kind, given_options), case.input()
    assert repr(again) == repr(module)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again.eval()(x), module.eval()(x))


@pytest.mark.parametrize("name", ["Attention", "MLP", "Block", "Encoder"])
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_permuted_tokens_give_permuted_output_in_any_configuration(name: str, data, seed: int) -> None:
    case = data.draw(CONFIGURATIONS[name])
    module, x = case.module(dtype=torch.float64), case.input(dtype=torch.float64)
    assume(x.ndim > 2)  # an MLP may be given tokens without an axis of them
    order = torch.randperm(x.shape[1], generator=generator(seed))
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


def test_every_component_has_configurations_and_every_item_exists() -> None:
    assert CONFIGURATIONS.keys() == ROWS.keys()
    assert set(DRAWN) <= ITEMS.keys()


FAULTS = {
    planted.WritesToItsInput: "input untouched", planted.SeesTheBatch: "batch independence",
    planted.DropsInEvaluation: "train and eval", planted.KeepsItsOutput: "copies", planted.KeepsItsBias: "determinism",
    planted.ForgetsTheType: "factory options", planted.HasAnIdleWeight: "every parameter learns",
    planted.NeedsContiguousInput: "strides",
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
@settings(max_examples=3)
@given(dim=st.sampled_from((2, 3, 5)), count=token_counts.filter(lambda count: count > 1))
def test_a_planted_fault_is_found_in_any_configuration(kind: type[planted.Clean], dim: int, count: int) -> None:
    def build(**options: object) -> planted.Clean:
        return kind(dim, **options)

    keys = (*(("idle",) if kind is planted.HasAnIdleWeight else ()), *layers("layer"))
    case = Drawn(
        kind.__name__, build, (count, dim), (count, dim), lambda module, x: x, keys, rates=("dropout",), kind=kind,
        exempt=dict.fromkeys(("reference value", "smallest input", "channels last", "refusals"), "of no use here"),
    )  # fmt: skip
    assert FAULTS[kind] in broken(case)
    clean = Drawn(**{**vars(case), "build": lambda **options: planted.Clean(dim, **options), "keys": layers("layer")})
    assert broken(clean) == {}
