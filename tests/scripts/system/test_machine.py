"""Decisions that depend on the machine, for made-up machines."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.system import machine
from scripts.system.errors import InputError
from scripts.system.machine import COMPILING_PAYS, Machine, this_machine
from tests.support.machines import APPLE, BARE_CPU, CPU, CUDA, EVERY, FAST_CPU, H100, MACHINES, MI300, PLAIN_CPU, T4


def chosen(decide: object) -> dict[str, object]:
    return {name: decide(each) for name, each in MACHINES.items()}


def test_auto_is_bfloat16_on_machines_with_instructions_for_it() -> None:
    assert chosen(lambda each: each.precision("auto")) == {
        "fast cpu": "bfloat16", "plain cpu": "float32", "bare cpu": "float32", "apple": "float32", "t4": "float32",
        "h100": "bfloat16", "mi300": "bfloat16",
    }  # fmt: skip
    assert all(str(each.dtype) == f"torch.{each.precision('auto')}" for each in EVERY)


def test_types_are_those_with_instructions() -> None:
    few, all_three = ("float32",), ("float32", "bfloat16", "float16")
    assert chosen(lambda each: each.types) == {
        "fast cpu": ("float32", "bfloat16"), "plain cpu": few, "bare cpu": few, "apple": few,
        "t4": ("float32", "float16"), "h100": all_three, "mi300": all_three,
    }  # fmt: skip


def test_every_device_but_a_cpu_is_accelerated() -> None:
    accelerated = {name for name, each in MACHINES.items() if each.accelerated}
    assert accelerated == {"apple", "t4", "h100", "mi300"}


def test_a_requested_precision_is_used_or_refused() -> None:
    assert {each.precision("bfloat16") for each in EVERY} == {"bfloat16"}
    assert T4.precision("float16") == "float16"
    for each in (FAST_CPU, APPLE):
        with pytest.raises(
            InputError, match=r"^--precision \(float16\) must be auto, float32 or bfloat16 on (cpu|mps)$"
        ):
            each.precision("float16")


def test_auto_compiles_where_measurements_showed_a_gain() -> None:
    assert chosen(lambda each: each.compiled("auto", True, COMPILING_PAYS)) == {
        "fast cpu": True, "plain cpu": True, "bare cpu": False, "apple": False, "t4": False, "h100": False,
        "mi300": False,
    }  # fmt: skip
    assert not FAST_CPU.compiled("auto", True, COMPILING_PAYS - 1)
    assert not FAST_CPU.compiled("auto", False, COMPILING_PAYS)
    assert not any(each.compiled("no", True, COMPILING_PAYS) for each in EVERY)


def test_compiling_without_a_compiler_is_refused() -> None:
    assert all(each.compiled("yes", False, 1) for each in (FAST_CPU, PLAIN_CPU, T4, H100, MI300))
    wanted = r"^--compile \(yes\) needs a C\+\+ compiler such as g\+\+ with Python\.h; there is none"
    with pytest.raises(InputError, match=wanted):
        BARE_CPU.compiled("yes", True, COMPILING_PAYS)
    kepler = Machine(CUDA, "Tesla K80", frozenset({"sm_37"}), 13, 2**33)
    with pytest.raises(InputError, match=r"^--compile \(yes\) needs Triton and a GPU that it supports"):
        kepler.compiled("yes", True, COMPILING_PAYS)


def test_machines_of_one_name_have_different_identities() -> None:
    names = {each.identity for each in EVERY}
    assert len(names) == len(EVERY)
    assert FAST_CPU.identity != PLAIN_CPU.identity
    assert f"2 cores, 32 MiB cache, {torch.get_num_threads()} threads" in PLAIN_CPU.identity
    assert "threads" not in H100.identity


def test_without_a_list_of_instructions_a_cpu_is_taken_as_slow_at_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # new in torch 2.11
    assert machine.cpu_instructions() == frozenset()
    assert not machine.this_machine(torch.device("cpu")).fast_at_bfloat16


@pytest.mark.parametrize("variable", ["aten", "onednn"])
def test_instructions_that_torch_may_not_use_are_left_out(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False, "sve_max_length": 256}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert machine.cpu_instructions() == {"avx2", "avx512_f", "avx512_bf16"}
    if variable == "aten":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    assert machine.cpu_instructions() == {"avx2"}


@pytest.mark.parametrize(("level", "left"), [
    ("AVX2_VNNI_2", {"avx2"}), ("AVX512_CORE", {"avx2", "avx512_f"}), ("avx512_core_vnni", {"avx2", "avx512_f"}),
    ("AVX512_CORE_BF16", {"avx2", "avx512_f", "avx512_bf16"}),
    ("AVX512_CORE_FP16", {"avx2", "avx512_f", "avx512_bf16"}), ("AVX10_1_512", {"avx2", "avx512_f", "avx512_bf16"}),
    ("AVX512_CORE_AMX", {"avx2", "avx512_f", "avx512_bf16", "amx_bf16"}),
    ("DEFAULT", {"avx2", "avx512_f", "avx512_bf16", "amx_bf16"}),
])  # fmt: skip
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_level_of_onednn_leaves_the_instructions_up_to_it(
    variable: str, level: str, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without those for bfloat16 its products are emulated."""
    every = dict.fromkeys(("avx2", "avx512_f", "avx512_bf16", "amx_bf16"), True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: every, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv(variable, level)
    assert machine.cpu_instructions() == left


@pytest.mark.parametrize(("name", "fast"), [
    ("gfx803", False), ("gfx900", False), ("gfx906:sramecc+:xnack-", False), ("gfx1030", False), ("gfx908", True),
    ("gfx90a:sramecc+:xnack-", True), ("gfx942", True), ("gfx950", True), ("gfx1100", True), ("gfx1201", True),
])  # fmt: skip
def test_old_amd_gpus_have_no_products_in_bfloat16(name: str, fast: bool) -> None:
    gpu = Machine(CUDA, "AMD GPU", frozenset({name}), 60, 2**34)
    assert gpu.precision("auto") == ("bfloat16" if fast else "float32")
    assert gpu.compiles


def test_a_compiler_without_the_headers_of_python_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Debian without python3-dev: what torch.compile writes includes Python.h."""
    (tmp_path / "c").write_text("")
    (tmp_path / "c").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "c"))
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda name: str(tmp_path))
    assert not machine.cpp_compiler()
    (tmp_path / "Python.h").write_text("")
    assert machine.cpp_compiler()


@pytest.mark.parametrize(("system", "name"), [("linux", "g++"), ("darwin", "clang++"), ("win32", "cl")])
def test_the_compiler_is_the_one_that_torch_calls(system: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.setattr(machine.shutil, "which", lambda command: asked.append(command))
    assert not machine.cpp_compiler()
    assert asked == [name]


def test_a_machine_has_the_memory_of_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: 2**30)
    assert this_machine(CPU).memory == 2**30


@pytest.mark.parametrize("hip", [None, "6.4"])
def test_a_gpu_is_described_by_its_architecture(hip: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    about = SimpleNamespace(
        name="card", gcnArchName="gfx942", major=9, minor=0, multi_processor_count=132, total_memory=80
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.version, "hip", hip)
    found = this_machine(CUDA)
    assert found.instructions == {"gfx942" if hip else "sm_90"}
    assert (found.cores, found.memory, found.fast_at_bfloat16) == (132, 80, True)


def test_a_mac_is_named_by_its_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(machine.Path, "exists", lambda path: False)
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(
        machine.subprocess, "run", lambda command, **_: commands.append(command) or SimpleNamespace(stdout="Apple M2\n")
    )
    machine.processor.cache_clear()
    try:
        assert this_machine(CPU).name == "Apple M2"
        assert this_machine(APPLE.device).name == "Apple M2 GPU", "another machine than its processor"
    finally:
        machine.processor.cache_clear()
    assert commands == [["sysctl", "-n", "machdep.cpu.brand_string"]]


def test_this_machine_is_described() -> None:
    here = this_machine(CPU)
    assert here.name == machine.processor() != ""
    assert here.cores > 0
    assert here.memory > 2**28
    assert here.instructions <= {*machine.NOTED}


def test_memory_and_compiler_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(machine.os, "sysconf")  # Windows has none
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert machine.host_memory() == 0
    assert not machine.cpp_compiler()


V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"  # where Linux keeps the limits of containers


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 8000),
        ({f"{V2}/memory.max": "max"}, 8000),
        ({f"{V2}/memory.max": "5000"}, 5000),
        ({f"{V2}/memory.max": "9000"}, 8000),
        ({"proc/self/cgroup": "0::/a/b", f"{V2}/a/memory.max": "4000", f"{V2}/a/b/memory.max": "max"}, 4000),
        ({f"{V1}/memory.limit_in_bytes": "9223372036854771712"}, 8000),
        ({"proc/self/cgroup": "9:memory:/docker/x\n1:cpu:/", f"{V1}/docker/x/memory.limit_in_bytes": "3000"}, 3000),
        ({"proc/self/cgroup": "9:memory:/not/seen/here", f"{V1}/memory.limit_in_bytes": "2000"}, 2000),
    ],
)
def test_a_container_has_less_memory_than_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limit: int
) -> None:
    monkeypatch.setattr(machine, "host_memory", lambda: 8000)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert machine.memory_limit(tmp_path) == limit
