"""The choice of the device, the warning about an unused GPU, the clock, and memory that ends."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import torch

from scripts.system import devices
from scripts.system.command_line import parse
from scripts.system.devices import choose_device, clock, compiler_works, memory_suffices
from scripts.system.errors import InputError
from scripts.system.processes import Processes
from scripts.train_stn import Options, main
from tests.support.sources import modules

PROGRAM = """
import resource, torch
from scripts.system.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.zeros(2**23)  # 32 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(5)))
keep_freed_memory()
print(min(faults() for _ in range(5)))  # small blocks settle between the large ones first
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_not_faulted_in_again() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, after = map(int, printed.split())
    assert before > 3 * 100, "otherwise there is nothing to gain"
    assert after < 10


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu", ["read"]), ("cuda:1", ["cuda:1", "read"]), ("mps", ["mps", "read"])]
)
def test_the_clock_is_read_after_the_device_has_finished(
    name: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: calls.append(str(device)))
    monkeypatch.setattr(time, "perf_counter", lambda: calls.append("read") or 7.5)
    assert clock(torch.device(name)) == 7.5
    assert calls == expected


def test_all_timings_come_from_that_clock() -> None:
    """It waits for the device; time.monotonic is allowed for intervals between checkpoints."""
    reading = [path.stem for path in modules("scripts") if "perf_counter" in path.read_text("utf-8")]
    assert reading == ["devices"]


# the choice of the device


OLD_DRIVER = (  # the beginning of torch's message
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading"
)
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Fake the device that torch finds, the error of computing on it, and the GPU that the system lists."""

    def make_up(maker: str, *, found: str | None = None, error: str = "", count: int = 0) -> None:
        device = found and torch.device(found)

        def tried(size: int, device: torch.device) -> torch.Tensor:
            if torch.device(device).type != "cpu" and error:
                raise RuntimeError(error)
            return torch.ones(size)

        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch, "zeros", tried)
        monkeypatch.setattr(devices, "gpu_maker", lambda: maker)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return make_up


def warnings_of_auto() -> list[str]:
    return devices.unused_gpu("auto", choose_device("auto"))


@pytest.mark.parametrize(("maker", "found"), [("", None), ("NVIDIA", "cuda")])
def test_auto_is_a_gpu_that_torch_can_use_or_else_the_cpu(gpu, maker: str, found: str | None) -> None:
    gpu(maker, found=found, error="" if found else "Found no NVIDIA driver on your system. Please check", count=1)
    assert choose_device("auto") == torch.device(found or "cpu")
    assert warnings_of_auto() == []


@pytest.mark.parametrize(
    ("found", "error", "why"),
    [
        (None, OLD_DRIVER, "The NVIDIA driver on your system is too old (found version 11040)"),
        (None, "Torch not compiled with CUDA enabled", "Torch not compiled with CUDA enabled"),
        ("cuda", NO_KERNEL, "CUDA error: no kernel image is available for execution on the device"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_named_with_the_reason(
    gpu: Callable[..., None], found: str | None, error: str, why: str
) -> None:
    gpu("NVIDIA", found=found, error=error, count=1)
    assert choose_device("auto") == torch.device("cpu")
    assert warnings_of_auto() == [f"WARNING: torch cannot use the NVIDIA GPU of this machine: {why}"]
    assert devices.unused_gpu("cpu", torch.device("cpu")) == [], "no warning if the CPU was requested"
    wanted = "must be auto or an available device, such as cpu"
    with pytest.raises(InputError, match=re.escape(f"--device (cuda) {wanted}; {why}")):
        choose_device("cuda")


def test_the_warning_names_the_variable_that_hides_a_gpu(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu("NVIDIA", error="No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert warnings_of_auto()[0].endswith(": No CUDA GPUs are available; CUDA_VISIBLE_DEVICES is -1")


def test_the_warning_names_other_devices_and_a_torch_without_rocm(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu("", found="mps", error="MPS backend out of memory")
    assert warnings_of_auto() == ["WARNING: torch cannot use mps of this machine: MPS backend out of memory"]
    gpu("AMD", error="Found no NVIDIA driver on your system. Please check")
    monkeypatch.setattr(torch.version, "hip", None)
    why = f"torch {torch.__version__} is built without ROCm"
    assert warnings_of_auto() == [f"WARNING: torch cannot use the AMD GPU of this machine: {why}"]


@pytest.mark.usefixtures("gpu", "tree", "_no_report")
def test_the_log_begins_with_the_warning_about_an_unused_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_maker", lambda: "NVIDIA")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    monkeypatch.setattr(devices, "refusal", lambda device: OLD_DRIVER.split(". ")[0] if device.type == "cuda" else "")
    main(parse(Options, "", ["--data", "photos", "--steps", "1", "--out", "run"]))
    log = (tmp_path / "run" / "train.log").read_text("utf-8").splitlines()
    place = log.index(f"WARNING: torch cannot use the NVIDIA GPU of this machine: {OLD_DRIVER.split('. ')[0]}")
    assert place < next(i for i, line in enumerate(log) if line.startswith("Epoch 1/1"))


def test_more_processes_than_gpus_are_refused_with_both_numbers(gpu: Callable[..., None]) -> None:
    gpu("NVIDIA", found="cuda", count=1)
    for name in ("auto", "cuda"):
        for place in (0, 1):  # also the process that would get the GPU: it could never connect to the other
            with pytest.raises(InputError) as refused:
                choose_device(name, Processes(2, place, place, 2))
            wanted = "must be cpu, or there must be a GPU for each process: 2 processes need 2 GPUs; there is 1"
            assert str(refused.value) == f"--device ({name}) {wanted}"
    gpu("NVIDIA", found="cuda", count=3)
    with pytest.raises(InputError, match="4 processes need 4 GPUs; there are 3"):
        choose_device("auto", Processes(4, 0, 0, 4))
    assert choose_device("auto", Processes(8, 5, 1, 2)) == torch.device("cuda:1"), "eight on four machines"


def test_a_gpu_that_fails_in_one_process_is_an_error_and_no_reason_for_the_cpu(gpu: Callable[..., None]) -> None:
    gpu("NVIDIA", found="cuda", error=NO_KERNEL, count=2)
    wanted = "--device (auto) must be cpu, or torch must be able to use cuda:1; CUDA error: no kernel"
    with pytest.raises(InputError, match=f"^{re.escape(wanted)}"):
        choose_device("auto", Processes(2, 1, 1, 2))


def test_the_error_says_what_auto_is_if_processes_cannot_share_it(gpu: Callable[..., None]) -> None:
    gpu("", found="mps")
    with pytest.raises(InputError, match=r"^--device \(auto\) must be cpu or cuda for 2 processes; auto is mps here$"):
        choose_device("auto", Processes(2, 0, 0, 2))


PCI, AMD = "sys/bus/pci/devices/0000:01:00.0", "sys/class/kfd/kfd/topology/nodes"


@pytest.mark.parametrize(
    ("files", "maker"),
    [
        ({}, ""),
        ({f"{PCI}/vendor": "0x10de\n", f"{PCI}/class": "0x030200\n"}, "NVIDIA"),
        ({f"{PCI}/vendor": "0x10de\n", f"{PCI}/class": "0x040300\n"}, ""),  # an audio device
        ({f"{PCI}/vendor": "0x8086\n", f"{PCI}/class": "0x030000\n"}, ""),
        ({"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: Tesla T4"}, "NVIDIA"),
        ({"usr/lib/wsl/lib/nvidia-smi": ""}, "NVIDIA"),
        ({f"{AMD}/0/gpu_id": "0\n"}, ""),  # the processor
        ({f"{AMD}/0/gpu_id": "0\n", f"{AMD}/1/gpu_id": "51110\n"}, "AMD"),
    ],
)
def test_the_system_lists_the_maker_of_its_gpu(tmp_path: Path, files: dict[str, str], maker: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert devices.gpu_maker(tmp_path) == maker


@pytest.mark.parametrize(("error", "said"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "CUDA out of memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error"),
     "can't allocate memory: you tried to allocate 8 bytes"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
     "not enough memory: you tried to allocate 8 bytes."),
    (RuntimeError("MPS backend out of memory (MPS allocated: 17.90 GB). Tried to allocate 256 bytes"),
     "MPS backend out of memory (MPS allocated: 17.90 GB)"),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"), "CUDA error: out of memory"),
    (MemoryError("Unable to allocate 1.50 GiB for an array"), "Unable to allocate 1.50 GiB for an array"),
    (MemoryError(), "MemoryError"),
    (torch.OutOfMemoryError("in other words"), "in other words"),
])  # fmt: skip
def test_where_memory_ends_the_error_says_what_is_wanted(error: Exception, said: str) -> None:
    """In the words of CUDA, of Linux, of Windows, of macOS and of NumPy."""
    with pytest.raises(InputError) as raised, memory_suffices("--at-once (9) must be lower"):
        raise error
    assert str(raised.value) == f"--at-once (9) must be lower; {said}"


@pytest.mark.parametrize("context", [partial(memory_suffices, "--at-once (9) must be lower"), compiler_works])
def test_other_errors_stay_what_they_are(context: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(RuntimeError, match=r"^the shapes differ$"), context():
        raise RuntimeError("the shapes differ")


def test_an_apple_gpu_without_the_gradient_of_sampling_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with older versions of torch: a spatial transformer could not train there."""
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device, **options: zeros(*size, **options))
    assert devices.refusal(torch.device("mps")) == ""

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError("The operator 'aten::grid_sampler_2d_backward' is not implemented. If you want it")

    monkeypatch.setattr(devices.F, "grid_sample", missing)
    wanted = "The operator 'aten::grid_sampler_2d_backward' is not implemented"
    assert devices.refusal(torch.device("mps")) == wanted
    assert devices.refusal(torch.device("cuda")) == "", "others have it"
