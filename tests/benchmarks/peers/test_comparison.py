"""The comparison with other libraries: all do the same work, and the table shows which is faster."""

import json
import re
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measure.alone import alone
from benchmarks.measure.records import target, write
from benchmarks.measure.timing import check
from benchmarks.options import PeerOptions
from benchmarks.peers import comparison
from benchmarks.peers import tasks as peers
from benchmarks.peers.comparison import KINDS
from benchmarks.peers.contenders import Group, Mode, all_modes, contenders, over_best, own_mode
from benchmarks.peers.table import markdown, means, memory
from benchmarks.peers.tasks import KIT
from benchmarks.peers.warps import PEERS
from components import transforms
from scripts.system.errors import InputError
from scripts.system.machine import Machine
from tests.support.machines import CPU, EVERY, FAST_CPU, H100, MACHINES
from tests.support.strategies import generator

TASKS = {task.name: task for task in peers.tasks(small=True)}
MLP = TASKS["MLP, 5 tokens"]
EAGER = Mode(torch.float32, compiled=False)


@pytest.mark.parametrize("name", TASKS)
def test_all_modules_of_a_task_compute_the_same_output_and_gradient(name: str) -> None:
    """Gradients in float64: in float32 a sample that rounds across a pixel's centre gets another slope."""
    torch.manual_seed(0)
    task = TASKS[name]
    found = {}
    for library, module in task.build().items():
        x = torch.rand(task.inference, *task.shape, generator=generator(0))
        output = module.eval()(x).detach()
        x = x.double().requires_grad_()
        module.double()(x).square().sum().backward()
        found[library] = output, x.grad
        assert all(parameter.grad is not None for parameter in module.parameters()), library
    assert len(found) > 1
    for output, gradient in found.values():
        check(output, found[KIT][0])
        check(gradient, found[KIT][1])


@pytest.mark.parametrize("transform", PEERS)
def test_torchs_warp_and_the_kits_have_the_same_gradient_of_the_parameters(transform: str) -> None:
    torch.manual_seed(0)
    modules, found = peers.warps(transform, 4, 9), {}
    x, weights = torch.rand(2, 4, 3, 9, 9, dtype=torch.float64, generator=generator(0))
    for library in (KIT, "torch"):
        module = modules[library].double()
        (module(x) * weights).sum().backward()
        (parameter,) = module.parameters()
        found[library] = parameter.grad
    check(found["torch"], found[KIT])


def test_every_transform_is_compared() -> None:
    everything = {name for name, each in vars(transforms).items() if isinstance(each, type) and hasattr(each, "theta")}
    assert PEERS.keys() == everything - {"Transform", "MatrixTransform"}


def test_images_need_no_gradient_and_features_do() -> None:
    for name, task in TASKS.items():
        for kind in KINDS:
            inputs = {each.x.requires_grad for _, each in contenders(Group(task, kind, [EAGER]), CPU)}
            assert inputs == {kind == "training" and ("tokens" in name or "features" in name)}, name


def test_tasks_are_the_same_in_every_size_and_take_a_given_batch() -> None:
    assert [task.name for task in peers.tasks()] == [*TASKS]
    assert {size for task in peers.tasks(batch=7) for size in (task.inference, task.training)} == {7}


def test_words_select_cells() -> None:
    everything = list(comparison.groups(peers.tasks(), FAST_CPU, ""))
    modes = [mode for task in peers.tasks() for mode in all_modes(task, FAST_CPU)]
    assert sum(len(group.modes) for group in everything) == 2 * len(modes)
    (group,) = comparison.groups(peers.tasks(), FAST_CPU, "b/16 32 Training COMPILED")
    assert (group.task.name, group.kind) == ("ViT-B/16, 32 pixels", "training")
    assert [mode.compiled for mode in group.modes] == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_has_a_record_for_each_mode(kind: str) -> None:
    group = Group(MLP, kind, [EAGER, Mode(torch.bfloat16, compiled=False)])
    records = comparison.as_records(group, FAST_CPU, comparison.measure(group, CPU, 0.0, 2))
    assert [record["mode"] for record in records] == ["float32, eager", "bfloat16, eager"]
    for record in records:
        assert record["best_peer"] in record["seconds"].keys() - {KIT}
        assert all(low <= middle <= high for low, middle, high in record["seconds"].values())
        assert (memory(record) is None) == (kind == "inference")


def test_the_kit_compiles_inference_of_models_and_the_training_whose_run_compiles_by_default() -> None:
    """That of ViT-B/16 at 32 pixels is too short."""
    compiled = {
        (name, kind) for name, task in TASKS.items() for kind in KINDS if own_mode(task, kind, FAST_CPU).compiled
    }
    assert compiled == {
        ("ViT-B/16, 32 pixels", "inference"),
        ("ViT-B/16, 224 pixels", "inference"),
        ("ViT-Lite-7/4, 32 pixels", "inference"), ("ViT-Lite-7/4, 32 pixels", "training"),
        ("STN classifier, 32 pixels", "inference"),
    }  # fmt: skip
    assert not own_mode(TASKS["ViT-Lite-7/4, 32 pixels"], "training", H100).compiled


@pytest.mark.parametrize("machine", EVERY, ids=MACHINES)
def test_modes_are_those_that_the_machine_has(machine: Machine) -> None:
    for task in TASKS.values():
        modes = all_modes(task, machine)
        types = {str(mode.dtype).removeprefix("torch.") for mode in modes}
        assert types == {*machine.types[: 1 if task.float32 else 2]}
        assert any(mode.compiled for mode in modes) == (machine.compiles and (task.whole or machine.accelerated))
        assert all(own_mode(task, kind, machine) in modes for kind in KINDS)


def test_images_and_kernels_have_the_layout_of_the_kits_run() -> None:
    found = [each for _, each in contenders(Group(TASKS["STN classifier, 32 pixels"], "training", [EAGER]), CPU)]
    assert len(found) > 1
    for each in found:
        kernels = [parameter for parameter in each.module.parameters() if parameter.ndim == 4]
        assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (each.x, *kernels))


def test_rounds_of_several_processes_are_combined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "alone", lambda: ThreadPoolExecutor(1))
    measured = comparison.measure_alone(Group(MLP, "inference", [EAGER]), CPU, 0.0, 2)
    assert measured.seconds.keys() == {(library, EAGER) for library in MLP.build()}
    assert {len(rounds) for rounds in measured.seconds.values()} == {comparison.PROCESSES}, "one round in each"


def test_the_best_of_all_modes_is_recorded_for_whole_models_measured_in_all_modes() -> None:
    task = MLP._replace(whole=True, compiled=frozenset())
    modes = all_modes(task, FAST_CPU)
    measured = comparison.Measured({variant: [1.0] * 9 for variant in product((KIT, "timm"), modes)}, {})

    def recorded(task: peers.Task, modes: list[Mode]) -> list[str]:
        records = comparison.as_records(Group(task, "training", modes), FAST_CPU, measured)
        return [record["mode"] for record in records if "ratio_anywhere" in record]

    assert recorded(task, modes) == [str(own_mode(task, "training", FAST_CPU))], "in the kit's default mode"
    assert recorded(task, modes[:1]) == recorded(task._replace(whole=False), modes) == []


def test_compiled_weights_are_constants_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(
        "benchmarks.peers.contenders.for_inference", lambda module, dtype: compiled.append(module) or module
    )
    group = Group(MLP, "inference", [Mode(torch.float32, compiled=True)])
    found = [each for _, each in contenders(group, CPU)]
    assert compiled == [each.module for each in found]
    for each in found:
        assert torch.equal(each.call(), each.module(each.x)), "the compiled network is what is timed"


def test_a_process_for_one_measurement_has_tf32_off_and_keeps_freed_memory() -> None:
    with alone() as process:
        assert process.submit(eval, "__import__('torch').backends.cudnn.allow_tf32").result() is False
        counts = []
        for _ in range(4):  # three tensors of 32 MiB, each freed before the next one
            process.submit(exec, "import torch\nfor _ in range(3): torch.ones(2**23)").result()
            counts.append(process.submit(resource.getrusage, resource.RUSAGE_SELF).result().ru_minflt)
    assert sys.platform != "linux" or min(after - before for before, after in pairwise(counts)) < 1000


def test_the_kit_is_compared_with_the_fastest_peer_of_the_same_mode() -> None:
    fast, slow = Mode(torch.bfloat16, compiled=True), EAGER
    times = {(KIT, slow): [4.0] * 9, ("timm", slow): [6.0] * 9, ("torch", slow): [5.0] * 9, ("timm", fast): [1.0] * 9}
    record = comparison.compared(times, slow)
    assert (record["best_peer"], record["ratio"]) == ("torch", (1.25, 1.25, 1.25))
    assert [*record["seconds"]] == [KIT, "timm", "torch"]
    assert over_best(times, slow, [*times][1:]) == (("timm", fast), (0.25, 0.25, 0.25))


def test_the_fastest_of_equals_does_not_win_by_luck() -> None:
    draws = generator(0)
    variants = [(library, EAGER) for library in (KIT, "torch", "torchvision", "timm", "transformers")]
    ahead = 0
    for _ in range(400):
        times = {variant: (1 + 0.1 * torch.rand(15, generator=draws)).tolist() for variant in variants}
        ahead += over_best(times, EAGER, variants[1:])[1].median > 1
    assert 0.43 < ahead / 400 < 0.57


class Caching(nn.Module):
    """Computes its first output only, and returns it from then on."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.kept = module, {}

    def forward(self, x: Tensor) -> Tensor:
        key = self.training, torch.is_grad_enabled()
        if key not in self.kept:
            self.kept[key] = self.module(x)
        return self.kept[key]


def with_one_spoiled(library: str, spoil: Callable[[nn.Module], nn.Module]) -> Group:
    """The MLP task with one library's module replaced."""

    def build() -> peers.Modules:
        modules = MLP.build()
        return modules | {library: spoil(modules[library])}

    return Group(MLP._replace(build=build), "inference", [EAGER])


@pytest.mark.parametrize("spoil", [Caching, lambda module: nn.Sequential(module, nn.ReLU())], ids=("cached", "wrong"))
@pytest.mark.parametrize("library", [KIT, "timm"])
def test_a_wrong_or_cached_output_is_refused(library: str, spoil: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(AssertionError, match=r"not close|must depend on the input"):
        comparison.measure(with_one_spoiled(library, spoil), CPU, 0.0, 2)


def test_outputs_are_checked_after_timing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = []

    class Breaking(Caching):
        def forward(self, x: Tensor) -> Tensor:
            return self.module(x) + 7 * len(broken)

    group = with_one_spoiled("timm", Breaking)
    monkeypatch.setattr(comparison, "interleaved", lambda *_: broken.append(0))
    with pytest.raises(AssertionError, match="not close"):
        comparison.measure(group, CPU, 0.0, 2)


def record(name: str, ratio: list[float], **others: object) -> dict[str, object]:
    seconds = {KIT: [0.9, 1.0, 1.1], "timm": [ratio[0]] * 3, "torch": [9.0] * 3}
    return {
        "row": name, "kind": "training", "mode": "float32, eager", "batch": 8, "rounds": 9, "seconds": seconds,
        "bytes": {KIT: 100, "timm": 150, "torch": 120}, "best_peer": "timm", "ratio": ratio, **others,
    }  # fmt: skip


IN_DEFAULT_MODE = {"best_anywhere": "torch, compiled", "ratio_anywhere": [0.5, 0.4, 0.6]}
CONTENT = {
    "machine": {"identity": "a machine", "torch": "2", "started": "2026-01-02T03:04:05", "commit": "abc"},
    "small": False,
    "cells": [
        record("ViT-B/16, 32 pixels", [2.0, 1.9, 2.1], **IN_DEFAULT_MODE),
        record("ViT-B/16, 224 pixels", [0.5, 0.4, 0.6]),
        record("MLP, 5 tokens", [1.0, 0.9, 1.1], bytes={KIT: None, "timm": None, "torch": None}),
    ],
}


def test_means_are_geometric_and_over_what_they_name() -> None:
    assert means(CONTENT["cells"]) == pytest.approx(
        {
            "ViT-B/16, same mode": 1.0,
            "ViT-B/16, the kit's default mode over the best mode of any peer": 0.5,
            "all, same mode": 1.0,
            "all, memory": 1.2,
        }
    )


def test_the_page_shows_every_cell() -> None:
    page = markdown(CONTENT)
    assert "3 cells: 1 won, 1 even, 1 lost." in page
    cell = "| ViT-B/16, 224 pixels, training | float32, eager | 8 | timm | 16 | 0.500 [0.400, 0.600] lost | 1.200 |"
    assert cell in page
    assert "| torch, compiled | 0.500 [0.400, 0.600] lost |" in page
    assert "default mode" not in markdown({**CONTENT, "cells": CONTENT["cells"][1:]}), "no table without a row"
    assert "commit abc." in page
    assert "commit unknown." in markdown({**CONTENT, "machine": CONTENT["machine"] | {"commit": None}})


def test_everything_is_written_and_a_trial_says_so(tmp_path: Path) -> None:
    out = tmp_path / "results" / "peers.json"
    comparison.main(PeerOptions(only="mlp 5 inference float32", smoke=True, device="cpu", out=str(out)))
    content = json.loads(out.read_text("utf-8"))
    assert [(cell["row"], cell["mode"]) for cell in content["cells"]] == [("MLP, 5 tokens", "float32, eager")]
    assert out.with_suffix(".md").read_text("utf-8") == markdown(content)
    assert "the figures mean nothing" in markdown(content)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_an_error_in_one_group_is_recorded_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, written = comparison.measure, []

    def once_wrong(group: Group, *arguments: object) -> comparison.Measured:
        written.append(json.loads(out.read_text("utf-8"))["cells"])
        if group.kind == "inference":
            raise AssertionError("not close\nat all")
        return right(group, *arguments)

    out = tmp_path / "peers.json"
    monkeypatch.setattr(comparison, "measure", once_wrong)
    with pytest.raises(SystemExit, match="1"):
        comparison.main(PeerOptions(only="mlp 5 float32", smoke=True, device="cpu", out=str(out)))
    assert written == [[], []], "the file is there before anything is measured"
    content = json.loads(out.read_text("utf-8"))
    message = "AssertionError: not close\\nat all"
    assert content["errors"] == [{"name": "MLP, 5 tokens, inference", "error": message}]
    assert [cell["kind"] for cell in content["cells"]] == ["training"]
    assert message in capsys.readouterr().err


def test_a_result_is_named_after_its_machine_and_a_part_has_no_file() -> None:
    path = target(None, False, CPU, "peers")
    assert path.parent.name == "results"
    assert re.fullmatch(r"[a-z0-9-]+--\d{4}-\d\d-\d\d--peers\.json", path.name)
    assert target(None, True, CPU, "peers") is None


def test_only_a_result_of_before_is_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "notes.json"
    assert target(str(out), True, CPU, "peers") == out
    out.with_suffix(".md").write_text("mine")
    with pytest.raises(InputError, match=r"^--out \(.*\) must be a new file or a result of before; .*notes.md is "):
        target(str(out), True, CPU, "peers")
    write(out, {"name": "somebody's package"})
    with pytest.raises(InputError, match=r"; .*notes.json is another file$"):
        target(str(out), True, CPU, "peers")
    write(out, {"machine": {}, "cells": []})
    assert target(str(out), True, CPU, "peers") == out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PeerOptions(only="no such"), r"--only \(no such\) must be words from the name of one cell; .*MLP, 5 tokens"),
        (PeerOptions(out="peers.txt"), r"--out \(peers.txt\) must end in .json"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_measured(options: PeerOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        comparison.main(options)
