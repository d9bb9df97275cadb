"""The suite itself: warnings are errors, failures can be repeated, and profiles are what their names say."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources import ROOT


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="a warning"):
        warnings.warn("a warning", stacklevel=1)


@pytest.mark.parametrize(
    "text",
    [
        "Attempting to run cuBLAS, but there was no current CUDA context! Attempting to set the primary context... "
        "(Triggered internally at ../aten/src/ATen/cuda/CublasHandlePool.cpp:270.)",
        "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled. Consider setting "
        "`torch.set_float32_matmul_precision('high')` for better performance.",
    ],
)
def test_two_known_warnings_of_torch_on_a_gpu_pass_and_similar_ones_do_not(text: str) -> None:
    warnings.warn(text, stacklevel=1)
    for other in (f"Not {text}", text[: len(text) // 4]):
        with pytest.raises(UserWarning, match=re.escape(other)):
            warnings.warn(other, stacklevel=1)
    with pytest.raises(RuntimeWarning, match=re.escape(text)):
        warnings.warn(text, RuntimeWarning, stacklevel=1)


def test_any_other_warning_of_a_gpu_is_an_error() -> None:
    """After this one, Inductor runs a compiled network eagerly."""
    with pytest.raises(UserWarning, match="natively"):
        warnings.warn("Tesla T4 does not support bfloat16 compilation natively, skipping", stacklevel=1)


def test_the_flag_sets_the_number_of_threads(pytestconfig: pytest.Config) -> None:
    assert torch.get_num_threads() == pytestconfig.getoption("threads")


def test_a_failing_property_prints_how_to_repeat_it() -> None:
    @settings(database=None)
    @given(st.integers())
    def small(number: int) -> None:
        assert number < 7

    with pytest.raises(AssertionError) as caught:
        small()
    notes = "\n".join(caught.value.__notes__)
    assert "number=7" in notes, "the smallest example"
    assert "@reproduce_failure(" in notes


def test_profiles_are_quick_repeatable_and_thorough() -> None:
    dev, ci, thorough = (settings.get_profile(name) for name in ("dev", "ci", "thorough"))
    assert dev.max_examples <= 20
    assert ci.derandomize
    assert thorough.max_examples >= 1000
    assert {profile.deadline for profile in (dev, ci, thorough)} == {None}


def test_tests_that_commit_leave_the_repository_alone_from_whose_hook_they_run(tmp_path: Path) -> None:
    """Git tells hooks, and commands of ``git rebase --exec``, where its repository is; that beats ``git -C``."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "mine")
    command = [sys.executable, "-m", "pytest", "-q", "tests/scripts/run/test_environment.py", "-k", "in_a_checkout"]
    hook = {**os.environ, "GIT_DIR": str(tmp_path / ".git"), "GIT_INDEX_FILE": str(tmp_path / ".git" / "index")}
    subprocess.run(command, cwd=ROOT, env=hook, capture_output=True, check=True)
    assert git("log", "--format=%s").split() == ["mine"]


def test_another_cpu_keeps_compiled_kernels_of_its_own(tmp_path: Path) -> None:
    """Those of all instructions of this CPU crash where torch may use fewer."""
    names = ("ATEN_CPU_CAPABILITY", "TORCHINDUCTOR_CACHE_DIR")
    others = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", "import os, tests.conftest; print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))"]

    def kept(**given: str) -> str:
        run = subprocess.run(command, cwd=ROOT, env=others | given, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    avx2 = {"ATEN_CPU_CAPABILITY": "avx2"}
    assert len({kept(), kept(**avx2), kept(ATEN_CPU_CAPABILITY="default")}) == 3
    assert kept(**avx2, TORCHINDUCTOR_CACHE_DIR=str(tmp_path)) == str(tmp_path), "the one that was chosen"


def test_a_missing_device_is_an_error_in_one_line() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--device", "cuda", "tests/test_suite.py"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, env=hidden, capture_output=True, text=True)
    assert run.returncode == 1
    lines = (run.stdout + run.stderr).strip().splitlines()
    assert lines == ["Exit: --device cuda: torch finds no CUDA device on this machine"]
