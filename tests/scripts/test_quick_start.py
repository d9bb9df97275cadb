"""Entries answer before they import anything heavy, and a run imports only what it uses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT, dotted, modules
from tests.support.trees import write_tree

ENTRIES = sorted(
    dotted(path)
    for path in [*modules("scripts"), *modules("benchmarks")]
    if "__main__" in (text := path.read_text("utf-8")) and "parse(" in text
)
ANSWER = """
import json, runpy, sys
before, module = set(sys.modules), sys.argv[1]
sys.argv = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
packages = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([code, sorted(packages - sys.stdlib_module_names)]))
"""
HEAVY = ("torchvision", "matplotlib", "tensorboard", "jinja2", "sklearn", "scipy", "torch._dynamo", "torch._inductor")
UNTIL_THE_REPORT = f"""
import runpy, sys, types

def list_heavy(folder):
    print(*(name for name in {HEAVY} if name in sys.modules))
    sys.exit(0)

sys.modules["scripts.run.page"] = types.SimpleNamespace(write_report=list_heavy)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def last_line(program: str, *arguments: str, folder: Path = ROOT) -> str:
    """Run a program and return its last line of output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_entries_are_found() -> None:
    assert {f"scripts.{name}" for name in ("train_stn", "train_vit", "convert", "report")} <= {*ENTRIES}
    assert {f"benchmarks.{name}" for name in ("bench_peers", "scaling", "breakdown", "compare")} <= {*ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--no-such-flag", 2)])
def test_only_the_standard_library_is_imported_before_flags_are_parsed(entry: str, flag: str, code: int) -> None:
    ended, packages = json.loads(last_line(ANSWER, entry, flag))
    assert ended == code
    assert {*packages} <= {"scripts", "benchmarks"}


@pytest.mark.parametrize("entry", ["train_stn", "train_vit"])
def test_a_run_without_report_imports_nothing_heavy(entry: str, tmp_path: Path) -> None:
    """Such as torch's compiler, whose import takes as long as that of torch."""
    write_tree(tmp_path / "photos")
    given = ("--data", "photos", "--device", "cpu", "--epochs", "1", "--limit-train", "4", "--limit-test", "4")
    flags = (*given, "--batch-size", "4", "--out", "run")
    assert last_line(UNTIL_THE_REPORT, f"scripts.{entry}", *flags, folder=tmp_path) == ""
