"""Conditions under which some tests run."""

import importlib.util
import platform

import pytest
import torch

# pip's wheels for Linux and Windows are built with CUDA, which is enough without a GPU; others are not
pretends_cuda = pytest.mark.skipif(
    torch.version.cuda is None, reason="FakeTensorMode has a cuda:0 only in builds of torch with CUDA"
)

# on x86 only: elsewhere "DEFAULT" may have vector instructions
inductor_compiles_bfloat16 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT" and platform.machine() in ("x86_64", "AMD64"),
    reason="a fault of torch: the C++ that Inductor writes for bfloat16 does not compile without vector instructions",
)

writes_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)

reads_events = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)

# torch warns that it will leave this to torchao
quantises = pytest.mark.skipif(
    torch.backends.quantized.engine == "none" or not hasattr(torch.ao.quantization, "quantize_dynamic"),
    reason="this build of torch has no dynamic quantisation",
)

# pip's wheels for Linux: others have no Triton
BUILD = (torch.version.cuda is not None, importlib.util.find_spec("triton") is not None, torch.__version__[:5])
builds_kernels = pytest.mark.skipif(
    BUILD != (True, True, "2.14."), reason="needs private parts of torch 2.14, built with CUDA, and Triton"
)
