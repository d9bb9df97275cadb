"""The comparison with other libraries: all do the same work, and the table says who was faster."""

import json
import pickle
import re
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measure.alone import alone
from benchmarks.measure.memory import kept_bytes
from benchmarks.measure.records import target
from benchmarks.measure.timing import Call, check
from benchmarks.peers import rows as peers
from benchmarks.peers.as_they_come import as_they_come, prepare
from benchmarks.peers.as_they_come import judge as as_they_come_judge
from benchmarks.peers.comparison import (
    KINDS,
    PROCESSES,
    Measured,
    PeerOptions,
    compared,
    groups,
    judge,
    main,
    measure,
    measure_alone,
)
from benchmarks.peers.contenders import Group, Mode, Who, all_modes, contenders, over_best, own_mode
from benchmarks.peers.rows import KIT
from benchmarks.peers.table import draw, markdown, means, memory, outcome
from scripts.system.errors import InputError
from scripts.system.machine import Machine
from tests.support.machines import CPU, EVERY, FAST_CPU, H100, MACHINES, PLAIN_CPU, T4
from tests.support.strategies import generator

ROWS = {row.name: row for row in peers.rows(small=True)}
EAGER = Mode(torch.float32, compiled=False)


@pytest.mark.parametrize("name", ROWS)
def test_everyone_in_a_row_computes_the_same_output_and_gradient(name: str) -> None:
    """Gradients in float64: in float32 one sample beyond a pixel's centre, by rounding, has another slope."""
    torch.manual_seed(0)
    row = ROWS[name]
    found = {}
    for library, module in row.build().items():
        x = torch.rand(row.inference, *row.shape, generator=generator(0))
        output = module.eval()(x).detach()
        x = x.double().requires_grad_()
        module.double()(x).square().sum().backward()
        found[library] = output, x.grad
        assert all(parameter.grad is not None for parameter in module.parameters()), library
    assert len(found) > 1
    for output, gradient in found.values():
        check(output, found[KIT][0])
        check(gradient, found[KIT][1])


def test_the_rows_of_both_sizes_are_the_same() -> None:
    assert [row.name for row in peers.rows()] == [*ROWS]


def test_a_batch_that_is_asked_for_is_that_of_every_row() -> None:
    assert {size for row in peers.rows(batch=7) for size in (row.inference, row.training)} == {7}


def test_words_choose_cells() -> None:
    everything = list(groups(peers.rows(), FAST_CPU, ""))
    modes = [mode for row in peers.rows() for mode in all_modes(row, FAST_CPU)]
    assert sum(len(group.modes) for group in everything) == 2 * len(modes)
    (group,) = groups(peers.rows(), FAST_CPU, "b/16 32 Training COMPILED")
    assert (group.row.name, group.kind) == ("ViT-B/16, 32 pixels", "training")
    assert [mode.compiled for mode in group.modes] == [True]


@pytest.mark.parametrize("kind", ["inference", "training"])
def test_a_group_is_measured_and_compared_within_each_mode_and_across_them(kind: str) -> None:
    row, modes = ROWS["MLP, 5 tokens"], [EAGER, Mode(torch.bfloat16, compiled=False)]
    group = Group(row, kind, modes)
    records = judge(group, FAST_CPU, measure(group, CPU, 0.0, 2))
    assert [record["mode"] for record in records] == ["float32, eager", "bfloat16, eager"]
    assert not any("ratio_anywhere" in record for record in records), "that is of whole models"
    for record in records:
        assert record["best_peer"] in record["seconds"].keys() - {KIT}
        assert all(low <= middle <= high for low, middle, high in record["seconds"].values())
        assert (memory(record) is None) == (kind == "inference")


def test_the_kit_compiles_by_itself_what_its_runs_and_for_inference_do() -> None:
    compiled = {(name, kind) for name, row in ROWS.items() for kind in KINDS if own_mode(row, kind, FAST_CPU).compiled}
    assert compiled == {
        ("ViT-B/16, 32 pixels", "inference"), ("ViT-B/16, 32 pixels", "training"),
        ("ViT-B/16, 224 pixels", "inference"),
        ("ViT-Lite-7/4, 32 pixels", "inference"), ("ViT-Lite-7/4, 32 pixels", "training"),
        ("STN classifier, 32 pixels", "inference"),
    }  # fmt: skip
    assert not own_mode(ROWS["ViT-Lite-7/4, 32 pixels"], "training", H100).compiled


@pytest.mark.parametrize("machine", EVERY, ids=MACHINES)
def test_modes_are_those_that_the_machine_has(machine: Machine) -> None:
    for row in ROWS.values():
        modes = all_modes(row, machine)
        types = {str(mode.dtype).removeprefix("torch.") for mode in modes}
        assert types == {*machine.types[: 1 if row.float32 else 2]}
        assert any(mode.compiled for mode in modes) == (machine.compiles and (row.whole or machine.accelerated))
        assert all(own_mode(row, kind, machine) in modes for kind in KINDS)


def test_a_t4_is_compared_in_float16_and_nobody_in_a_type_that_is_emulated() -> None:
    attention = ROWS["Attention, 5 tokens"]
    assert {str(mode) for mode in all_modes(attention, T4)} == {
        "float32, eager", "float16, eager", "float32, compiled", "float16, compiled",
    }  # fmt: skip
    assert [str(mode) for mode in all_modes(attention, PLAIN_CPU)] == ["float32, eager"]


def test_images_and_kernels_of_everyone_lie_in_memory_as_in_the_kits_run() -> None:
    row = ROWS["STN classifier, 32 pixels"]
    found = [contender for _, contender in contenders(Group(row, "training", [EAGER]), CPU)]
    assert len(found) > 1
    for each in found:
        assert each.x.is_contiguous(memory_format=torch.channels_last)
        kernels = [parameter for parameter in each.module.parameters() if parameter.ndim == 4]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_rounds_of_several_processes_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.comparison.alone", lambda *, keeping: ThreadPoolExecutor(1))
    group = Group(ROWS["MLP, 5 tokens"], "inference", [EAGER])
    measured = measure_alone(group, CPU, 0.0, 2)
    assert measured.seconds.keys() == measure(group, CPU, 0.0, 2).seconds.keys()
    assert {len(rounds) for rounds in measured.seconds.values()} == {PROCESSES}, "one round in each of them"
    (record,) = judge(group, FAST_CPU, measured)
    assert (record["row"], record["mode"], record["rounds"]) == ("MLP, 5 tokens", "float32, eager", PROCESSES)


def test_the_best_mode_of_anybody_is_told_of_whole_models_in_all_modes() -> None:
    row = ROWS["MLP, 5 tokens"]._replace(whole=True, compiled=frozenset())
    modes = all_modes(row, FAST_CPU)
    measured = Measured({who: [1.0] * 9 for who in product((KIT, "timm"), modes)}, {})

    def told(modes: list[Mode]) -> list[str]:
        records = judge(Group(row, "training", modes), FAST_CPU, measured)
        return [record["mode"] for record in records if "ratio_anywhere" in record]

    assert told(modes) == [str(own_mode(row, "training", FAST_CPU))], "in the mode that the kit picks by itself"
    assert told(modes[:1]) == []


class Process(ThreadPoolExecutor):
    """A thread that is given what a process would be given, and has a memory of its own."""

    def __init__(self) -> None:
        super().__init__(1)
        self.calls: dict[Who, Call] = {}

    def submit(self, *given: Any) -> Future[Any]:
        """One at a time: nothing else runs meanwhile."""
        function, *arguments = pickle.loads(pickle.dumps(given))

        def remembering() -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("benchmarks.peers.as_they_come.calls", self.calls)
                return function(*arguments)

        return super().submit(remembering)


@pytest.mark.parametrize("machine", [FAST_CPU, PLAIN_CPU], ids=("bfloat16", "float32"))
def test_a_model_as_it_comes_is_compared_in_the_type_that_the_kit_picks(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("benchmarks.peers.as_they_come.alone", lambda *, keeping: kept.append(keeping) or Process())
    monkeypatch.setattr("benchmarks.peers.as_they_come.this_machine", lambda device: machine)
    row = ROWS["LocalizationNet, 32 pixels"]
    own = own_mode(row, "inference", machine)
    assert own.dtype == getattr(torch, machine.precision("auto"))
    record = as_they_come(Group(row, "inference", all_modes(row, FAST_CPU)), (KIT, "torch"), CPU, 0.0, 2)
    assert kept == [True, False], "a process each; only the kit keeps freed memory"
    assert record["best_as_it_comes"] == f"torch, {own}"
    ratio, low, high = record["ratio_as_they_come"]
    assert 0 < low <= ratio <= high


def test_a_process_has_one_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.as_they_come.calls", {})
    assert [*prepare(Group(ROWS["MLP, 5 tokens"], "inference", [EAGER]), CPU, "timm")] == [("timm", EAGER)]


@pytest.mark.parametrize("alike", (True, False))
def test_compiled_weights_are_constants_for_all_alike_or_as_they_come_for_the_kit_alone(
    alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, nn.Module]] = []
    monkeypatch.setattr(torch, "compile", lambda module: asked.append(("as it comes", module)) or module)
    monkeypatch.setattr(
        "benchmarks.peers.contenders.for_inference", lambda module, dtype: asked.append(("constants", module)) or module
    )
    group = Group(ROWS["MLP, 5 tokens"], "inference", [Mode(torch.float32, compiled=True)])
    found = {library: each for (library, _), each in contenders(group, CPU, alike=alike)}
    assert len(found) > 2
    wanted = {library: "constants" if alike or library == KIT else "as it comes" for library in found}
    assert asked == [(wanted[library], each.module) for library, each in found.items()]
    for each in found.values():
        assert torch.equal(each.call(), each.module(each.x)), "it is what is timed"


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[ProcessPoolExecutor, ProcessPoolExecutor]]:
    """Two that measure one thing each; the first keeps freed memory."""
    with alone(keeping=True) as kept, alone(keeping=False) as untouched:
        yield kept, untouched


def test_tf32_is_off_in_a_process_that_measures_one_thing(processes: tuple[ProcessPoolExecutor, ...]) -> None:
    for process in processes:
        assert process.submit(eval, "__import__('torch').backends.cudnn.allow_tf32").result() is False


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_in_a_process_that_is_to_keep_it(processes: tuple[ProcessPoolExecutor, ...]) -> None:
    def faults(process: ProcessPoolExecutor) -> int:
        """The fewest page faults for three tensors of 32 MiB, each freed before the next one."""
        counts = []
        for _ in range(4):
            process.submit(exec, "import torch\nfor _ in range(3): torch.ones(2**23)").result()
            counts.append(process.submit(resource.getrusage, resource.RUSAGE_SELF).result().ru_minflt)
        return min(after - before for before, after in pairwise(counts))

    kept, untouched = map(faults, processes)
    assert kept < 1000 < untouched


def test_the_kit_is_compared_with_the_fastest_peer_of_the_same_mode() -> None:
    fast, slow = Mode(torch.bfloat16, compiled=True), EAGER
    times = {(KIT, slow): [4.0] * 9, ("timm", slow): [6.0] * 9, ("torch", slow): [5.0] * 9, ("timm", fast): [1.0] * 9}
    record = compared(times, slow)
    assert (record["best_peer"], record["ratio"]) == ("torch", (1.25, 1.25, 1.25))
    assert [*record["seconds"]] == [KIT, "timm", "torch"]
    assert over_best(times, slow, [who for who in times if who[0] != KIT]) == (("timm", fast), (0.25, 0.25, 0.25))


def test_the_best_of_equals_is_no_better_than_the_kit() -> None:
    """Whoever was the fastest of several by luck would beat the kit in more than half of the comparisons."""
    draws = generator(0)
    names = [(library, EAGER) for library in (KIT, "torch", "torchvision", "timm", "transformers")]
    ahead = 0
    for _ in range(400):
        times = {who: (1 + 0.1 * torch.rand(15, generator=draws)).tolist() for who in names}
        ahead += over_best(times, EAGER, names[1:])[1].median > 1
    assert 0.43 < ahead / 400 < 0.57


def test_a_peer_with_another_output_is_refused() -> None:
    row = ROWS["MLP, 5 tokens"]

    def build() -> peers.Modules:
        modules = row.build()
        modules["wrong"] = nn.Sequential(modules["timm"], nn.ReLU())
        return modules

    with pytest.raises(AssertionError, match="not close"):
        measure(Group(row._replace(build=build), "inference", [EAGER]), CPU, 0.0, 2)


class Caching(nn.Module):
    """A module that computes the first of its outputs alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.kept = module, {}

    def forward(self, x: Tensor) -> Tensor:
        key = self.training, torch.is_grad_enabled()
        if key not in self.kept:
            self.kept[key] = self.module(x)
        return self.kept[key]


@pytest.mark.parametrize("library", [KIT, "timm"])
def test_who_returns_what_was_computed_before_is_refused(library: str) -> None:
    row = ROWS["MLP, 5 tokens"]

    def build() -> peers.Modules:
        modules = row.build()
        return modules | {library: Caching(modules[library])}

    with pytest.raises(AssertionError, match=r"not close|must follow its input"):
        measure(Group(row._replace(build=build), "inference", [EAGER]), CPU, 0.0, 2)


def test_who_does_so_as_it_comes_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS["MLP, 5 tokens"]
    monkeypatch.setattr("benchmarks.peers.as_they_come.calls", {})

    def build() -> peers.Modules:
        modules = row.build()
        return modules | {"timm": Caching(modules["timm"])}

    with pytest.raises(AssertionError, match=r"not close|must follow its input"):
        prepare(Group(row._replace(build=build), "inference", [EAGER]), CPU, "timm")


def test_outputs_are_judged_after_timing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that breaks while it is timed, alike and as it comes."""
    row, broken = ROWS["MLP, 5 tokens"], []

    class Breaking(Caching):
        def forward(self, x: Tensor) -> Tensor:
            return self.module(x) + 7 * len(broken)

    def build() -> peers.Modules:
        modules = row.build()
        return modules | {"timm": Breaking(modules["timm"])}

    group = Group(row._replace(build=build), "inference", [EAGER])
    monkeypatch.setattr("benchmarks.peers.comparison.interleaved", lambda *_: broken.append(0))
    with pytest.raises(AssertionError, match="not close"):
        measure(group, CPU, 0.0, 2)
    broken.clear()
    monkeypatch.setattr("benchmarks.peers.as_they_come.calls", {})
    prepare(group, CPU, "timm")
    broken.append(0)
    with pytest.raises(AssertionError, match="not close"):
        as_they_come_judge()


def test_kept_bytes_are_those_of_the_input_and_of_what_lies_between() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    x = torch.randn(4, 8)
    assert kept_bytes(lambda: network(x), network) == 4 * 4 * (8 + 16 + 16)


def record(row: str, ratio: list[float], **others: object) -> dict[str, object]:
    seconds = {KIT: [0.9, 1.0, 1.1], "timm": [ratio[0]] * 3, "torch": [9.0] * 3}
    return {
        "row": row, "kind": "training", "mode": "float32, eager", "batch": 8, "rounds": 9, "seconds": seconds,
        "bytes": {KIT: 100, "timm": 150, "torch": 120}, "best_peer": "timm", "ratio": ratio, **others,
    }  # fmt: skip


CONTENT = {
    "machine": {"identity": "a machine", "torch": "2", "started": "2026-01-02T03:04:05", "commit": "abc"},
    "small": False,
    "cells": [
        record(
            "ViT-B/16, 32 pixels",
            [2.0, 1.9, 2.1],
            best_anywhere="torch, compiled",
            ratio_anywhere=[0.5, 0.4, 0.6],
            best_as_it_comes="timm, eager",
            ratio_as_they_come=[3.0, 2.0, 4.0],
        ),
        record("ViT-B/16, 224 pixels", [0.5, 0.4, 0.6]),
        record("MLP, 5 tokens", [1.0, 0.9, 1.1], bytes={KIT: None, "timm": None, "torch": None}),
    ],
}


def test_an_interval_around_one_is_neither_won_nor_lost() -> None:
    assert [outcome(cell["ratio"]) for cell in CONTENT["cells"]] == ["won", "lost", "even"]


def test_means_are_geometric_and_over_what_they_name() -> None:
    assert means(CONTENT["cells"]) == pytest.approx(
        {
            "ViT-B/16, same mode": 1.0,
            "ViT-B/16, the kit's own mode over the best mode of any peer, both as the kit runs": 0.5,
            "ViT-B/16, the kit's own mode over the best mode of any peer, each as it comes": 3.0,
            "all, same mode": 1.0,
            "all, memory": 1.2,
        }
    )


def test_the_page_shows_every_cell_and_the_picture_is_drawn(tmp_path: Path) -> None:
    page = markdown(CONTENT)
    assert "3 cells: 1 won, 1 even, 1 lost." in page
    assert (
        "| ViT-B/16, 224 pixels, training | float32, eager | 8 | timm | 16 | 0.500 [0.400, 0.600] lost | 1.200 |"
        in page
    )
    assert "| torch, compiled | 0.500 [0.400, 0.600] lost | timm, eager | 3.000 [2.000, 4.000] won |" in page
    assert "picks by itself" in page
    assert "picks by itself" not in markdown({**CONTENT, "cells": CONTENT["cells"][1:]}), "no table without a row"
    assert "commit abc." in page
    assert "commit unknown." in markdown({**CONTENT, "machine": CONTENT["machine"] | {"commit": None}})
    draw(CONTENT, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_everything_is_written_and_a_trial_says_so(tmp_path: Path) -> None:
    out = tmp_path / "results" / "peers.json"
    main(PeerOptions(only="mlp 5 inference float32", smoke=True, device="cpu", out=str(out)))
    content = json.loads(out.read_text("utf-8"))
    assert [(cell["row"], cell["mode"]) for cell in content["cells"]] == [("MLP, 5 tokens", "float32, eager")]
    assert out.with_suffix(".md").read_text("utf-8") == markdown(content)
    assert "no figure here means anything" in markdown(content)
    assert out.with_suffix(".png").is_file()


def test_an_error_in_one_group_is_recorded_and_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, written = measure, []

    def once_wrong(group: Group, *arguments: object) -> Measured:
        written.append(json.loads(out.read_text("utf-8"))["cells"])
        if group.kind == "inference":
            raise AssertionError("not close\nat all")
        return right(group, *arguments)

    out = tmp_path / "peers.json"
    monkeypatch.setattr("benchmarks.peers.comparison.measure", once_wrong)
    with pytest.raises(SystemExit, match="1"):
        main(PeerOptions(only="mlp 5 float32", smoke=True, device="cpu", out=str(out)))
    assert written == [[], []], "the file is there before anything is measured"
    content = json.loads(out.read_text("utf-8"))
    said = "AssertionError: not close\\nat all"
    assert content["errors"] == [{"name": "MLP, 5 tokens, inference", "error": said}]
    assert [cell["kind"] for cell in content["cells"]] == ["training"]
    assert said in capsys.readouterr().err


def test_a_result_is_named_after_its_machine_and_a_part_is_no_result() -> None:
    path = target(None, False, CPU, "peers")
    assert path.parent.name == "results"
    assert re.fullmatch(r"[a-z0-9-]+--\d{4}-\d\d-\d\d--peers\.json", path.name)
    assert target(None, True, CPU, "peers") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PeerOptions(only="no such"), r"--only \(no such\) must be words of one cell's name, .*MLP, 5 tokens"),
        (PeerOptions(out="peers.txt"), r"--out \(peers.txt\) must end in .json"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(options: PeerOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(options)
