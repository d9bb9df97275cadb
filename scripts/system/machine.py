"""The machine that a run computes on, and every decision that depends on it.

Decisions are methods of a description, which tests can make up.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from scripts.system.errors import InputError

BFLOAT16_ON_CPU = {"avx512_bf16", "amx_bf16"}  # instructions for products; without them emulation is 70 times slower
BFLOAT16_ON_CUDA = 80  # compute capability of Ampere
TRITON_ON_CUDA = 70  # compute capability of Volta
WITHOUT_BFLOAT16 = ("gfx8", "gfx900", "gfx902", "gfx906", "gfx909", "gfx90c", "gfx10")  # AMD, before CDNA and RDNA 3
NOTED = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "neon", "bf16", "sve")  # CPU features that choose kernels
COMPILING_PAYS = 2000  # steps; compiling takes as long as it saves in 1,200 to 1,500


@dataclass(frozen=True)
class Machine:
    """A device and its hardware.

    Args:
        device: The device, as torch names it.
        name: The maker's name of the processor or GPU.
        instructions: Of a CPU those of ``NOTED`` that torch may use; of a GPU its architecture, such as sm_90.
        cores: Cores of a CPU, multiprocessors of a GPU.
        memory: In bytes.
        cache: Last-level cache of a CPU in bytes; 0 if unknown.
        compiler: Whether ``torch.compile`` finds its compiler: C++ on a CPU, Triton on a GPU.
    """

    device: torch.device
    name: str
    instructions: frozenset[str]
    cores: int
    memory: int
    cache: int = 0
    compiler: bool = True

    @property
    def fast_at_bfloat16(self) -> bool:
        """Whether there are instructions for products in bfloat16; without them emulation is slow."""
        if self.device.type == "cpu":
            return not BFLOAT16_ON_CPU.isdisjoint(self.instructions)
        old = self._older_than(BFLOAT16_ON_CUDA) or any(name.startswith(WITHOUT_BFLOAT16) for name in self.instructions)
        return self.device.type == "cuda" and not old

    @property
    def types(self) -> tuple[str, ...]:
        """Types with hardware instructions: float32, then bfloat16 and float16."""
        bfloat16 = ("bfloat16",) if self.fast_at_bfloat16 else ()
        return ("float32", *bfloat16, *(("float16",) if self.device.type == "cuda" else ()))

    @property
    def accelerated(self) -> bool:
        """Whether the CPU only launches the work, so that small operations take as long as their launch."""
        return self.device.type != "cpu"

    @property
    def compiles(self) -> bool:
        """Whether ``torch.compile`` works."""
        return self.compiler and self.device.type in ("cpu", "cuda") and not self._older_than(TRITON_ON_CUDA)

    @property
    def compiler_wanted(self) -> str:
        """What ``torch.compile`` needs, in words."""
        on_cpu = "a C++ compiler such as g++ with Python.h"
        return on_cpu if self.device.type == "cpu" else "Triton and a GPU that it supports"

    @property
    def identity(self) -> str:
        """A description that two measurements must share to be comparable."""
        sets = " ".join(sorted(self.instructions)) or "no instruction set known"
        mebibytes = f", {self.cache / 2**20:.0f} MiB cache" if self.cache else ""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.name}, {sets}, {self.cores} cores{mebibytes}{threads}"

    def precision(self, name: str) -> str:
        """Return the type for autocast; ``auto`` is bfloat16 if the machine is fast at it, else float32.

        Raises:
            InputError: For float16 without CUDA.
        """
        if name == "auto":
            return "bfloat16" if self.fast_at_bfloat16 else "float32"
        if name == "float16" and self.device.type != "cuda":
            raise InputError(f"--precision ({name}) must be auto, float32 or bfloat16 on {self.device.type}")
        return name

    @property
    def dtype(self) -> torch.dtype:
        """The type of precision ``auto``."""
        return getattr(torch, self.precision("auto"))

    def compiled(self, asked: str, pays_on_cpu: bool, steps: int) -> bool:
        """Return whether to compile a run; ``auto`` compiles where measurements showed a gain.

        Args:
            asked: ``auto``, ``yes`` or ``no``.
            pays_on_cpu: Whether compiled steps are faster on a CPU.
            steps: Length of the run.

        Raises:
            InputError: For ``yes`` without a compiler.
        """
        if asked == "yes" and not self.compiles:
            raise InputError(f"--compile (yes) needs {self.compiler_wanted}; there is none for {self.device}")
        if asked == "auto":
            return pays_on_cpu and self.compiles and self.device.type == "cpu" and steps >= COMPILING_PAYS
        return asked == "yes"

    def _older_than(self, capability: int) -> bool:
        """Whether this is an NVIDIA GPU of a lower compute capability."""
        found = [int(name.removeprefix("sm_")) for name in self.instructions if name.startswith("sm_")]
        return any(own < capability for own in found)


def this_machine(device: torch.device) -> Machine:
    """Describe the machine of that device."""
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        architecture = about.gcnArchName if torch.version.hip else f"sm_{about.major}{about.minor}"
        return Machine(
            device, about.name, frozenset({architecture}), about.multi_processor_count, about.total_memory,
            compiler=importlib.util.find_spec("triton") is not None,
        )  # fmt: skip
    name = {"cpu": processor(), "mps": f"{processor()} GPU"}.get(device.type, device.type)
    instructions = cpu_instructions() if device.type == "cpu" else frozenset[str]()
    return Machine(device, name, instructions, os.cpu_count() or 1, memory_limit(), last_cache(), cpp_compiler())


def cpu_instructions() -> frozenset[str]:
    """Return the instruction sets that torch may use, which environment variables can restrict.

    None before torch 2.11, which cannot list them; runs then compute in float32.
    """
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    found = {name for name, value in known.items() if value is True and name in NOTED}
    level = torch.backends.cpu.get_cpu_capability()
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    left_out: tuple[str, ...] = ()
    if level in ("DEFAULT", "AVX2") or onednn in ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"):
        left_out = ("avx512", "amx")
    elif onednn in ("AVX512_CORE", "AVX512_CORE_VNNI"):
        left_out = ("avx512_bf16", "amx")
    elif onednn in ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512"):
        left_out = ("amx",)
    found = {name for name in found if not name.startswith(left_out)}
    if level == "DEFAULT" and platform.machine().lower() in ("x86_64", "amd64"):
        found.discard("avx2")
    return frozenset(found)


def cpp_compiler() -> bool:
    """Return whether the C++ compiler that ``torch.compile`` calls is installed, and the headers of Python with it."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return shutil.which(os.environ.get("CXX", usual)) is not None and headers


@cache
def processor() -> str:
    """Return the name of the processor."""
    table = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*)$", table.read_text("utf-8"), re.MULTILINE) if table.exists() else None
    return found[1] if found else _named_by_macos() or platform.processor() or platform.machine()


def _named_by_macos() -> str:
    """Return a name like Apple M2, where Python only reports "arm"; nothing on other systems."""
    if sys.platform != "darwin":
        return ""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def last_cache() -> int:
    """Return the size of the processor's largest cache in bytes, 0 if unknown."""
    units = {"K": 2**10, "M": 2**20}
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def memory_limit(system: Path = Path("/")) -> int:
    """Bytes of memory that this process may have: the host's, or a container's limit; 0 where the system does not say.

    Args:
        system: The root of the file system.
    """
    mine = _read(system / "proc/self/cgroup").splitlines()  # a line a hierarchy: number:controllers:path
    groups = [line.split(":", 2)[-1].strip("/") for line in mine if line.count(":") >= 2]
    roots = {"sys/fs/cgroup": "memory.max", "sys/fs/cgroup/memory": "memory.limit_in_bytes"}  # versions 2 and 1
    limits = [
        int(text)
        for root, name in roots.items()
        for group in {"", *(str(parent) for each in groups for parent in (Path(each), *Path(each).parents))}
        if (text := _read(system / root / group / name).strip()).isdigit()
    ]
    return min([limit for limit in (host_memory(), *limits) if limit], default=0)


def _read(path: Path) -> str:
    """What a file of the kernel says; nothing where there is none."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def host_memory() -> int:
    """Return the size of the host's memory in bytes, 0 if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
