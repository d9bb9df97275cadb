"""What depends on the GPU: fused attention, and runs of both models. ``make test-gpu`` runs this on one."""

import copy
import json
import math
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from components import Attention, Encoder
from scripts import train_stn, train_vit
from scripts.models.stn import STNClassifier
from scripts.models.vit import PRESETS, VisionTransformer
from scripts.run import page
from scripts.run.folder import read_metrics
from scripts.system.command_line import as_flags, parse
from scripts.system.errors import Stopped
from scripts.system.machine import this_machine
from scripts.training import range_test
from tests.support.machines import half_precision
from tests.support.runs import at_step
from tests.support.strategies import generator, random_mask, random_tokens
from tests.support.trees import write_tree

pytestmark = pytest.mark.numerics

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
BATCH, HEADS, TOKENS, DIM = 2, 2, 7, 128  # heads of 64: narrower ones than 8 are not fused
MASKS = {
    "no mask": None,
    "padding": torch.arange(TOKENS) < torch.tensor([[TOKENS], [TOKENS - 3]])[:, None, None],
    "one for each head, with an empty row": random_mask(0, BATCH, HEADS, TOKENS).index_fill(2, torch.tensor(1), False),
    "numbers": torch.randn(BATCH, HEADS, TOKENS, TOKENS, generator=generator(0)),
}
SMALL = {"image_size": 32, "patch_size": 8, "dim": DIM, "depth": 2, "num_heads": HEADS, "mlp_dim": 96}
COMPONENTS = {
    "Attention": lambda: Attention(DIM, HEADS),
    "Encoder": lambda: Encoder(DIM, 2, num_heads=HEADS, mlp_dim=96),
}


def first_tokens(module: nn.Module, x: Tensor, mask: Tensor | None, first: int | None) -> Tensor:
    """What a component makes of the first tokens, all others being seen by them; without a number of every token."""
    if first is None or isinstance(module, Encoder):
        return module(x, mask=mask, **({} if first is None else {"first": first}))
    return module(x[:, :first], x, mask=None if mask is None else mask[:, :, :first])


@pytest.mark.parametrize("half", (False, True), ids=("float32", "half precision"))
@pytest.mark.parametrize("first", (None, 2), ids=("every token", "the first two"))
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("build", COMPONENTS.values(), ids=COMPONENTS)
def test_fused_attention_has_the_value_and_the_gradients_of_written_out_float64(
    build: Any,
    mask: Tensor | None,
    first: int | None,
    half: bool,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    dtype = half_precision(this_machine(device)) if half else torch.float32
    kernel, called = nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: called.append(1) or kernel(*a, **k)
    )
    module, x = build().to(dtype), random_tokens(0, BATCH, TOKENS, DIM, dtype=dtype)
    exact, exact_x = copy.deepcopy(module).double(), x.double().requires_grad_()
    expected = exact(exact_x, mask=mask, return_weights=True)[0][:, :first]
    module, x = module.to(device), x.to(device).requires_grad_()
    with sdpa_kernel(FUSED):
        output = first_tokens(module, x, None if mask is None else mask.to(device), first)
    assert called or device.type == "cpu", "a CPU may be faster without the kernel, a GPU is not"
    upstream = expected.detach().cos()
    found = torch.autograd.grad(output, [x, *module.parameters()], upstream.to(device, dtype))
    slopes = torch.autograd.grad(expected, [exact_x, *exact.parameters()], upstream)
    bound = 1e-5 if dtype == torch.float32 else 0.05  # measured 1e-6 and 0.011 of the norm on a CPU
    for one, other in zip((output, *found), (expected, *slopes), strict=True):
        assert (one.cpu().double() - other).norm() < bound * other.norm()


class Run(NamedTuple):
    """A finished run: its script, network, flags and folder."""

    entry: ModuleType
    build: Callable[[], nn.Module]
    flags: dict[str, Any]
    folder: Path

    def start(self, **others: Any) -> None:
        """Start or resume a run of the same script."""
        self.entry.main(parse(self.entry.Options, "", as_flags(others)))


@pytest.fixture(scope="module", params=("train_stn", "train_vit"))
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Run]:
    """A finished run of each model, with three epochs of three steps."""
    root = tmp_path_factory.mktemp(request.param)
    entry, recipe, build = {
        "train_stn": (train_stn, "tuned", STNClassifier),
        "train_vit": (train_vit, "lite", partial(VisionTransformer, **SMALL)),
    }[request.param]
    flags = {"data": str(write_tree(root / "photos")), "recipe": recipe, "epochs": 3, "batch_size": 8,
             "precision": "float32", "device": pytestconfig.getoption("device")}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(PRESETS, "lite", SMALL)
        patch.setattr(page, "write_report", lambda folder: folder / "report.html")
        run = Run(entry, build, flags, root / "whole")
        run.start(**flags, out=str(run.folder))
        yield run


def trained(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run, on the CPU."""
    return torch.load(folder / "last.pt", map_location="cpu", weights_only=True)


def test_a_model_is_trained_on_the_device(whole: Run, device: torch.device) -> None:
    rows = read_metrics(whole.folder)
    assert len(rows) == 3
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert json.loads((whole.folder / "environment.json").read_text())["device"] == str(device)
    assert {"summary.json", "findings.pt", "best.pt"} <= {path.name for path in whole.folder.iterdir()}
    torch.manual_seed(1)
    for name, start in whole.build(num_classes=3).state_dict().items():
        assert not torch.equal(trained(whole.folder)["model"][name], start), name


def test_a_learning_rate_is_found_on_the_device(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(range_test, "STEPS", 100)
    given = {name: value for name, value in whole.flags.items() if name != "epochs"}
    whole.start(**given, find_lr=True, out=str(tmp_path / "found"))
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"find_lr.csv", "find_lr.png"}
    assert 1e-3 * numbers["lr"] < numbers["suggested_lr"] < 1e3 * numbers["lr"]


def test_a_stopped_run_resumes_to_the_same_end(whole: Run, device: torch.device, tmp_path: Path) -> None:
    out, terminate = str(tmp_path / "run"), at_step(5, lambda: signal.raise_signal(signal.SIGTERM))
    with terminate, pytest.raises(Stopped, match="after 1 epochs and 2 steps"):
        whole.start(**whole.flags, out=out)
    whole.start(resume=out)
    # a GPU may sum the gradients of a warp in any order
    bound = 0.0 if device.type == "cpu" else 1e-3
    found, expected = (trained(folder)["model"] for folder in (tmp_path / "run", whole.folder))
    torch.testing.assert_close(found, expected, atol=bound, rtol=bound)


def test_a_trained_model_has_the_same_output_as_on_the_cpu(whole: Run, device: torch.device) -> None:
    network = whole.build(num_classes=3).eval()
    network.load_state_dict(trained(whole.folder)["model"])
    images = torch.randn(4, 3, 32, 32, generator=generator(0))
    with torch.inference_mode():
        expected = network(images)
        found = network.to(device)(images.to(device)).cpu()
    assert expected.std(0).all(), "every image has its own logits"
    torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
