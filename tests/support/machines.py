"""Made-up machines, so that no test depends on the one that runs it."""

import torch

from scripts.system.machine import Machine

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda:0"), torch.device("mps")
GIB = 2**30

FAST_CPU = Machine(CPU, "AMD EPYC", frozenset({"avx2", "avx512_f", "avx512_bf16"}), 2, 24 * GIB, 32 * 2**20)
PLAIN_CPU = Machine(CPU, "AMD EPYC", frozenset({"avx2"}), 2, 24 * GIB, 32 * 2**20)  # bfloat16 is emulated
BARE_CPU = Machine(CPU, "Intel Atom", frozenset(), 1, 4 * GIB, compiler=False)  # one core, no g++
APPLE = Machine(MPS, "Apple M2 GPU", frozenset(), 8, 16 * GIB)
T4 = Machine(CUDA, "Tesla T4", frozenset({"sm_75"}), 40, 15 * GIB)
H100 = Machine(CUDA, "NVIDIA H100 80GB HBM3", frozenset({"sm_90"}), 132, 79 * GIB)
MI300 = Machine(CUDA, "AMD Instinct MI300X", frozenset({"gfx942:sramecc+:xnack-"}), 304, 191 * GIB)

MACHINES = {
    "fast cpu": FAST_CPU, "plain cpu": PLAIN_CPU, "bare cpu": BARE_CPU, "apple": APPLE, "t4": T4, "h100": H100,
    "mi300": MI300,
}  # fmt: skip
EVERY = tuple(MACHINES.values())
EVERY_CPU = (FAST_CPU, PLAIN_CPU, BARE_CPU)


def half_precision(machine: Machine) -> torch.dtype:
    """A 16-bit type that torch has all kernels for: GPUs before Ampere lack some for bfloat16, CPUs for float16."""
    return getattr(torch, (*machine.types, "bfloat16")[1])
