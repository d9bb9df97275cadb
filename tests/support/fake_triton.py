"""Inductor's kernels for a fake GPU: built by Triton, or run by Triton's interpreter.

    python -m tests.support.fake_triton build
    TRITON_INTERPRET=1 python -m tests.support.fake_triton interpret

Each prints lines of JSON, and needs a process of its own, because torch is patched for good.

All parts of ``torch.compile`` that need no driver are torch's own: a graph traced under ``FakeTensorMode`` goes through
AOTAutograd, Inductor, Triton and ptxas. Left out are Dynamo, autocast, backward passes, what Inductor runs on the GPU
itself (the patterns of the joint graph, constants), and loading the kernels.
"""

import contextlib
import functools
import gc
import json
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._dynamo.exc import SkipFrame
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx
from torch._inductor.exc import InductorError
from torch._inductor.fx_passes import joint_graph
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from triton import language
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime import driver

import components
from benchmarks.grid.workloads import Fixed
from components import SpatialTransformer
from scripts.models.stn import STNClassifier
from scripts.models.vit import VisionTransformer
from scripts.system.machine import Machine
from tests.support.machines import CUDA, H100, T4

IMAGES = (2, 3, 32, 32)
NETWORKS: dict[str, Callable[[], nn.Module]] = {  # together they have every component
    "STNClassifier": STNClassifier,
    "VisionTransformer": lambda: VisionTransformer(
        image_size=32, patch_size=8, dim=128, depth=1, num_heads=2, mlp_dim=256
    ),
}
SETTINGS = {
    "compile_threads": 1,
    "fx_graph_cache": False,
    "joint_graph_constant_folding": False,  # would run on the GPU
    "use_static_triton_launcher": False,  # would drop the code of the kernels
}


class Driver(CudaDriver):
    """Triton's driver without its queries to the GPU."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        """The GPU that Triton compiles for."""
        return GPUTarget("cuda", self.capability, 32)


def fused(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Attention by a fused GPU kernel: without a GPU, torch would trace plain products."""
    assert not any(options.values()), options
    if query.dtype == torch.float32:
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, False)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def traced(network: Callable[[], nn.Module], dtype: torch.dtype) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """The graph of one forward pass, and its inputs: the weights, then the images."""
    with FakeTensorMode(), torch.no_grad():
        torch.set_default_dtype(dtype)
        with CUDA:
            module, images = network().eval(), torch.empty(IMAGES)
        torch.set_default_dtype(torch.float32)
        names, weights = zip(*module.named_parameters(), strict=True)

        def forward(*inputs: Tensor) -> tuple[Tensor]:
            return (torch.func.functional_call(module, dict(zip(names, inputs[:-1], strict=True)), inputs[-1]),)

        with mock.patch.object(nn.functional, "scaled_dot_product_attention", fused):
            return make_fx(forward)(*weights, images), (*weights, images)


def pretend_a_driver() -> None:
    """Replace all calls that would ask the driver."""
    cuda = torch.cuda
    cuda._lazy_init = cuda.set_rng_state = lambda *_: None
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = cuda._exchange_device = cuda._maybe_exchange_device = lambda *_: 0
    cuda.get_rng_state = lambda: torch.zeros(16, dtype=torch.uint8)
    joint_graph.lazy_init = lambda device: None


def pretend(machine: Machine) -> None:
    """Let torch and Triton find that GPU from now on, and clear what they cached about another."""
    (architecture,) = machine.instructions
    capability = int(architecture.removeprefix("sm_"))
    about = SimpleNamespace(
        name=machine.name, major=capability // 10, minor=capability % 10, multi_processor_count=machine.cores,
        total_memory=machine.memory, warp_size=32, regs_per_multiprocessor=65536, max_threads_per_block=1024,
        max_threads_per_multi_processor=1024 if machine is T4 else 2048,
    )  # fmt: skip
    torch.cuda._get_device_properties = lambda device: about
    driver.set_active(Driver(capability))
    for each in gc.get_objects():  # lazy_init must not be called twice
        cached = type(each) is functools._lru_cache_wrapper and each.__module__.startswith("torch.")
        if cached and each.__name__ != "lazy_init":
            each.cache_clear()


def build() -> None:
    """Print, for each GPU, type and network, the target of every kernel, or why torch refuses to build any."""
    types = (torch.float32, torch.bfloat16)
    graphs = [(dtype, name, *traced(network, dtype)) for dtype in types for name, network in NETWORKS.items()]
    kinds = {name: {type(module).__name__ for module in network().modules()} for name, network in NETWORKS.items()}
    built: list[CachingAutotuner] = []
    CachingAutotuner._make_launchers = lambda kernel: built.append(kernel)
    CachingAutotuner._dynamic_scale_rblock = lambda kernel: None
    pretend_a_driver()
    for machine in (T4, H100):
        pretend(machine)
        for dtype, name, graph, inputs in graphs:
            built.clear()
            refused = None
            try:
                with torch.no_grad():
                    compile_fx(graph, inputs)
            except InductorError as error:
                if not isinstance(error.inner_exception, SkipFrame):
                    raise
                refused = str(error.inner_exception)
            kernels = [target(result.kernel.asm) for kernel in built for result in kernel.compile_results]
            line = {"machine": machine.name, "dtype": str(dtype), "network": name, "refused": refused}
            print(json.dumps(line | {"kernels": kernels, "components": sorted(kinds[name] & {*components.__all__})}))


def target(code: dict[str, Any]) -> str:
    """The architecture that a kernel was built for; empty if ptxas built no program."""
    found = re.search(r"^\.target (\w+)", code["ptx"], re.MULTILINE)
    return found[1] if found and code["cubin"].startswith(b"\x7fELF") else ""


def interpret() -> None:
    """Run the compiled warp on a CPU, and print the number of its kernels and its error against eager."""
    torch.manual_seed(0)
    images, warp = torch.randn(IMAGES), SpatialTransformer(Fixed(IMAGES[0]))
    graph, inputs = traced(lambda: SpatialTransformer(Fixed(IMAGES[0])), torch.float32)
    pretend_a_driver()
    pretend(H100)
    torch.cuda.set_device = lambda device: None
    torch.cuda._DeviceGuard = contextlib.nullcontext
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    torch._C._dynamo.guards._empty_strided_cuda = torch._C._dynamo.guards._empty_strided_cpu
    triton_helpers.libdevice = language.math  # libdevice is code for GPUs
    launched = []
    run = CachingAutotuner.run
    CachingAutotuner.run = lambda kernel, *args, **kwargs: launched.append(kernel) or run(kernel, *args, **kwargs)
    with torch.no_grad():
        (output,) = compile_fx(graph, inputs)(*warp.parameters(), images)
        error = (output - warp(images)).abs().max().item()
    print(json.dumps({"kernels": len(launched), "error": error}))


if __name__ == "__main__":
    with config.patch(SETTINGS):
        {"build": build, "interpret": interpret}[sys.argv[1]]()
