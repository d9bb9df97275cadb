"""The contract as a tool: it names what a module breaks and why, and refuses a wrong command line in one line."""

import copy
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from components import Attention
from scripts.system.errors import InputError
from tests.contract import planted
from tests.contract.__main__ import main, value
from tests.contract.items import ITEMS, contract_tests
from tests.contract.row import Row, called
from tests.contract.verdict import WHY, Verdict, shapes_below, verdict
from tests.support.sources import ROOT

pytestmark = pytest.mark.numerics

HERE = "tests.contract.planted"
IGNORES_ITS_TYPE = {
    "dtype and device", "factory options", "first derivatives", "second derivatives", "forward mode",
    "per-sample gradients", "strides", "batch independence",
}  # fmt: skip
FAULTS = {  # planted fault -> every item that it breaks
    planted.SeesTheBatch: {"batch independence"},
    planted.DropsInEvaluation: {"train and eval"},
    planted.KeepsItsOutput: {"copies", "half precision"},
    planted.KeepsItsBias: {"determinism", "wrapped layers", "torch.fx"},
    planted.ForgetsTheType: IGNORES_ITS_TYPE,
    planted.ReadsAWeight: {"wrapped layers"},
    planted.HasAnIdleWeight: {"every parameter learns", "forward mode", "per-sample gradients", "cuda without a GPU"},
    planted.NeedsContiguousInput: {"strides", "train and eval"},  # which expands its input
    planted.KnowsItsBatch: {"export", "torch.fx"},
    planted.Overflows: {"half precision"},
}


def row(kind: type[nn.Module], **changes: object) -> Row:
    return Row(kind.__name__, partial(kind, 5), (3, 5), **changes)


def names(found: Verdict) -> set[str]:
    return {one.item for one in found.broken}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_planted_fault_breaks_its_items_and_no_others(kind: type[nn.Module]) -> None:
    assert names(verdict(row(kind))) == FAULTS[kind]


def test_a_module_that_writes_to_its_input_is_told_so() -> None:
    (one,) = verdict(row(planted.WritesToItsInput), ("input untouched",)).broken
    assert one.input == "torch.randn(3, 1, 5)"
    assert one.test == "test_the_input_is_not_written_to"


def test_a_clean_module_keeps_every_item_that_it_is_held_to(capsys: pytest.CaptureFixture[str]) -> None:
    main([f"{HERE}:Clean", "5", "--input", "3,5"])
    shown = capsys.readouterr().out
    assert "BROKEN" not in shown
    kept = re.search("  kept +(.*)", shown)[1].split(", ")
    left_out = [item for line in re.findall("  left out  (.*): ", shown) for item in line.split(", ")]
    assert sorted([*kept, *left_out]) == sorted(ITEMS)
    assert {"batch independence", "compile", "half precision"} <= {*kept}


def test_what_is_printed_has_item_reason_input_error_and_test(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([f"{HERE}:SeesTheBatch", "dim=5", "--input", "3x5", "--only", "batch independence"])
    assert exit_.value.code == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"{HERE}:SeesTheBatch(dim=5), input (B, 3, 5)"
    assert "BROKEN    batch independence" in lines
    assert f"why     {WHY['batch independence']}" in lines
    assert "input   torch.randn(3, 1, 5, dtype=torch.float64)" in lines
    assert "test    test_samples_of_a_batch_are_independent" in lines


def test_every_item_that_is_checked_says_what_goes_wrong_for_a_user() -> None:
    assert {test.item for test in contract_tests().values()} <= WHY.keys() <= ITEMS.keys()
    assert all(sentence.endswith(".") and sentence.count(". ") == 0 for sentence in WHY.values())


def test_knowledge_that_is_given_is_used() -> None:
    def right(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x.double() @ module.layer.weight.double().T + module.layer.bias.double())

    given = {"reference": right, "smallest": (1, 5)}
    only = ("reference value", "smallest input")
    assert verdict(row(planted.Clean, **given), only).kept == ("smallest input", "reference value")
    assert names(verdict(row(planted.Overflows, **given), only)) == {*only}
    assert names(verdict(row(planted.Clean, output_shape=(3, 4)), ("shape",))) == {"shape"}
    attention, only = partial(Attention, 6, 3), ("second derivatives",)
    assert names(verdict(Row("fused", attention, (5, 6)), only)) == {*only}
    assert verdict(Row("plain", attention, (5, 6), smooth={"return_weights": True}), only).kept == only
    assert verdict(row(planted.Clean, exempt={"shape": "it is known"}), ("shape",)).left_out == {"shape": "it is known"}


def test_a_rate_is_found_by_its_name_and_starts_at_zero() -> None:
    build = partial(planted.Clean, 5)
    assert Row("x", build, (3, 5)).case().rates == ("dropout",)
    assert Row("x", build, (3, 5), rates=()).case().rates == ()
    assert Row("x", build, (3, 5)).case().module().dropout.p == 0.0


def test_a_module_with_statistics_of_its_batches_is_held_in_evaluation() -> None:
    found = verdict(Row("x", partial(nn.BatchNorm1d, 5), (5,)), ("batch independence", "train and eval"))
    assert found.kept == ("batch independence",)
    assert any("statistics" in note for note in found.notes)
    assert "train and eval" in found.left_out


def test_a_call_is_the_forward_of_a_class_that_is_otherwise_as_it_was() -> None:
    module = nn.GRU(5, 4, batch_first=True)
    x, before = torch.randn(2, 3, 5), repr(module)
    expected = module(x)[0] + 1
    module.__class__ = called(nn.GRU, "m(x)[0] + 1")
    for each in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert isinstance(each, nn.GRU)
        assert repr(each) == before
        assert torch.equal(each(x), expected)


def test_the_smaller_shapes_are_smaller() -> None:
    found = [*shapes_below((3, 5))]
    assert found[0] == (1, 1)
    assert {(1, 5), (3, 1), (2, 5), (3, 4)} <= {*found}
    assert all(shape != (3, 5) and shape[0] <= 3 and shape[1] <= 5 for shape in found)
    assert [*shapes_below((1, 1))] == []


def test_a_file_of_rows_is_held_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_rows.py"
    file.write_text(
        "from functools import partial\n"
        "from tests.contract.planted import Clean, SeesTheBatch\n"
        "from tests.contract.row import Row\n"
        "clean = Row('clean', partial(Clean, 5), (3, 5))\n"
        "meant = {'batch independence': 'meant'}\n"
        "others = [clean, Row('other', partial(SeesTheBatch, 5), (3, 5), conventions=meant)]\n"
    )
    main([str(file), "--only", "batch independence"])  # a convention is no fault
    shown = capsys.readouterr().out
    assert [line.partition(",")[0] for line in shown.splitlines() if "input (B" in line] == ["clean", "other"]
    assert "promise meant" in shown


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("5", 5), ("[7, 5]", [7, 5]), ("None", None), ("torch.nn.GELU", nn.GELU), ("tuple(range(2))", (0, 1)),
        ("border", "border"), ("sum", "sum"), ("'a b'", "a b"), ("3x3 conv", "3x3 conv"),
        ("torch.float64", torch.float64),
    ],
)  # fmt: skip
def test_an_argument_is_what_python_makes_of_it_or_a_word(typed: str, meant: object) -> None:
    assert value(typed, "option") == meant


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("torch.nn:Linear 5 7", "--input must be given"),
        ("torch.nn:Linear 5 7 --input 0,5", r"--input \(0,5\) must be sizes of at least 1"),
        ("torch.nn:Linear 5 7 --input a", r"--input \(a\) must be sizes"),
        ("torch.nn:Linea 5 7 --input 5", r"target \(torch.nn:Linea\): torch.nn has no Linea"),
        ("torch.nm:Linear 5 7 --input 5", "torch.nm cannot be imported"),
        ("torch.nn.Linear --input 5", r"target \(torch.nn.Linear\) must be package.module:Class"),
        ("torch:float32 --input 5", "must be a class or a function, not dtype"),
        (":Mlp 5 --input 3", r"target \(:Mlp\): .* cannot be imported: ValueError: Empty module name"),
        ("..x:Mlp --input 3", r"\.\.x cannot be imported: TypeError"),
        ("builtins:type 5 --input 3", "builtins:type does not take these arguments: no signature found"),
        ("torch.nn:Identity --input 100000000000000", r"must take an input \(3, 100000000000000\), but: RuntimeError"),
        ("missing.py", r"target \(missing.py\) must be package.module:Class or a file of rows that exists"),
        ("torch.nn:Linear 5 7 8 9 10 11 12 --input 5", "does not take these arguments: too many positional"),
        ("torch.nn:Linear 5 --input 5", "must be built without an error, but: TypeError: .*out_features"),
        ("torch.nn:Linear 5 7 bias=torch.nope --input 5", r"bias \(torch.nope\) cannot be evaluated"),
        ("torch.nn:Linear 5 7 --input 6", r"m\(x\) must take an input \(3, 6\), but: RuntimeError"),
        ("torch.nn:GRU 5 3 --input 4,5", r"m\(x\) returns a tuple and must return a tensor, as in m\(x\)\[0\]"),
        ("torch.nn:Linear 5 7 --input 5 --call m(y)", r"--call \(m\(y\)\) must be an expression of m, x and torch"),
        ("torch.nn:Linear 5 7 --input 5 --call m(x", "must be an expression of m, x and torch"),
        ("torch.nn:Linear 5 7 --input 5 --call m(x).sum()", r"output \(\) of a batch of 3 must have the batch"),
        ("torch.nn:Linear 5 7 --input 5 --only shapes", r"--only \(shapes\) must be one of shape, smallest input"),
        ("torch.nn:Linear 5 7 --input 5 --inputs 5", "unrecognized arguments: --inputs"),
        ("", "the following arguments are required: target"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused_with_name_value_and_requirement(arguments: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(arguments.split())


@pytest.mark.parametrize("source", ["1 / 0", "def", "raise SystemExit(0)"])
def test_a_module_that_cannot_be_imported_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    with pytest.raises(InputError, match=r"^target \(my_own:Mlp\): my_own cannot be imported: "):
        main(["my_own:Mlp", "5", "--input", "3"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "cannot be run: ZeroDivisionError"),
        ("raise SystemExit(0)", "cannot be run: SystemExit: 0"),
        ("x = 1", "must hold a row, as in"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "rows.py").write_text(source)
    with pytest.raises(InputError, match=message):
        main([str(tmp_path / "rows.py")])


def test_a_row_with_an_unknown_item_is_refused() -> None:
    with pytest.raises(InputError, match=r"item \(shapes\) must be one of shape"):
        row(planted.Clean, exempt={"shapes": "no"}).case()


def test_an_error_is_one_line_and_the_code_is_two() -> None:
    command = [sys.executable, "-m", "tests.contract", "torch.nn:Linear", "--input", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["contract: error: --input (none) must be sizes of at least 1, as in 3,32,32"]
