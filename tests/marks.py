"""Conditions that some tests have."""

import pytest
import torch

# pip's wheels for Linux and Windows are built with CUDA and need no GPU for this; those for macOS and "+cpu" are not
pretends_cuda = pytest.mark.skipif(
    torch.version.cuda is None, reason="FakeTensorMode has a cuda:0 only in builds of torch with CUDA"
)
