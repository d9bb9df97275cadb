"""Hold any module against the contract, and print what it breaks, why, and the smallest input that shows it.

python -m tests.contract timm.layers:Mlp 5 hidden_features=7 --input 3,5
python -m tests.contract torch.nn:MultiheadAttention 6 3 batch_first=True --input 5,6 --call "m(x, x, x)[0]"
python -m tests.contract my_rows.py
"""

import argparse
import ast
import builtins
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from scripts.system.command_line import run
from scripts.system.errors import InputError

if TYPE_CHECKING:  # torch is loaded after the flags are read
    from tests.contract.row import Row
    from tests.contract.verdict import Verdict

WIDTH = 10


class Parser(argparse.ArgumentParser):
    """Reports an error without the usage text."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument ").replace(": (", " ("))


class Packages(dict):
    """Names in an argument: packages, imported when they are named."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise NameError(f"there is no package {name}") from error


def shape(text: str) -> tuple[int, ...]:
    """3,32,32 or 3x32x32."""
    sizes = text.strip("()").replace("x", ",").split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes if size.strip()) or not any(sizes):
        raise argparse.ArgumentTypeError(f"({text}) must be sizes of at least 1, as in 3,32,32")
    return tuple(int(size) for size in sizes if size.strip())


def expression(text: str) -> str:
    """How a module is called."""
    try:
        names = {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)}
    except SyntaxError:
        names = set()
    if not {"m", "x"} <= names <= {"m", "x", "torch", *vars(builtins)}:
        raise argparse.ArgumentTypeError(f'({text}) must be an expression of m, x and torch, as in "m(x, x, x)[0]"')
    return text


def names(text: str) -> tuple[str, ...]:
    """drop,attn_drop."""
    return tuple(filter(None, text.split(",")))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: If an argument is missing, unknown or invalid.
    """
    parser = Parser(
        "python -m tests.contract", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("target", help="package.module:Class, or a function that makes a module, or a file of rows")
    parser.add_argument(
        "arguments", nargs="*", metavar="VALUE or NAME=VALUE",
        help="for the constructor: numbers, strings, and names such as torch.nn.GELU",
    )  # fmt: skip
    shapes = {
        "--input": "the shape of one input, without the batch: 3,32,32",
        "--output": "the shape of one output (default: that of a first call)",
        "--smallest": "the shape of the smallest input, if other sizes are taken",
    }
    for flag, meaning in shapes.items():
        parser.add_argument(flag, type=shape, metavar="SHAPE", help=meaning)
    parser.add_argument("--call", type=expression, default="m(x)", metavar="EXPRESSION", help="default: m(x)")
    parser.add_argument(
        "--rates", type=names, metavar="NAMES", help="options that are a rate of dropping (default: by their names)"
    )
    parser.add_argument("--only", action="append", default=[], metavar="ITEM", help="hold it to this item; repeatable")
    return parser.parse_intermixed_args(arguments)


def value(text: str, what: str) -> Any:
    """An argument of the constructor: what Python makes of it, or the text itself if it is a plain word."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return text
    if isinstance(tree.body, ast.Name):
        return text
    try:
        return eval(compile(tree, what, "eval"), {"__builtins__": {}}, Packages())
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} ({text}) cannot be evaluated: {error}") from error


def found(target: str) -> Any:
    """The class or function that a target names."""
    module, _, name = target.partition(":")
    if not name:
        raise InputError(f"target ({target}) must be package.module:Class or a file of rows that exists")
    try:
        thing = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # it is anybody's code
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise InputError(f"target ({target}): {module} cannot be imported: {why}") from error
    for part in name.split("."):
        if not hasattr(thing, part):
            raise InputError(f"target ({target}): {module} has no {name}")
        thing = getattr(thing, part)
    if not callable(thing):
        raise InputError(f"target ({target}) must be a class or a function, not {type(thing).__name__}")
    return thing


def row_of(options: argparse.Namespace) -> "Row":
    """The row that a command line describes.

    Raises:
        InputError: If the target cannot be found or does not take the arguments.
    """
    from tests.contract.row import Row

    target = found(options.target)
    if options.input is None:
        raise InputError("--input must be given: the shape of one input, without the batch, as in --input 3,32,32")
    positional, named = [], {}
    for text in options.arguments:
        name, equals, rest = text.partition("=")
        if equals and name.isidentifier():
            named[name] = value(rest, name)
        else:
            positional.append(value(text, "argument"))
    try:
        signature = inspect.signature(target)
        signature.bind_partial(*positional, **named)
    except (TypeError, ValueError) as error:
        raise InputError(f"{options.target} does not take these arguments: {error}") from error
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if not kinds & {Parameter.VAR_POSITIONAL, Parameter.POSITIONAL_ONLY}:
        # by name, so that a rate given by position can still be set
        positional, named = [], dict(zip(signature.parameters, positional, strict=False)) | named
    build = partial(target, *positional, **named)
    title = f"{options.target}({', '.join(options.arguments)})"
    return Row(title, build, options.input, options.call, options.rates, options.smallest or (), options.output or ())


def rows_in(path: Path) -> "list[Row]":
    """The rows of a file: everything at its top that is a row, or a sequence of rows."""
    from tests.contract.row import Row

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that pickle finds the classes that it defines
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # it is anybody's code
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    rows: list[Row] = []
    for thing in vars(module).values():
        for each in thing if isinstance(thing, list | tuple) else (thing,):
            if isinstance(each, Row) and each not in rows:
                rows.append(each)
    if not rows:
        raise InputError(f"{path} must hold a row, as in row = Row(NAME, partial(CLASS, ...), (3, 32, 32))")
    return rows


def text(row: "Row", verdict: "Verdict") -> str:
    """What the terminal shows."""
    lines = [f"{row.name}, input (B, {', '.join(map(str, row.input_shape))})", *(f"  note: {n}" for n in verdict.notes)]
    for one in verdict.broken:
        lines += [
            "",
            f"  BROKEN    {one.item}",
            *([f"    promise {row.conventions[one.item]}"] if one.item in row.conventions else []),
            f"    why     {one.why}",
            f"    input   {one.input}",
            f"    error   {one.error}",
            f"    test    {one.test}" + (f", and {one.tests - 1} more" if one.tests > 1 else ""),
        ]
    lines += ["", f"  kept      {', '.join(verdict.kept) or 'nothing'}"]
    for why in dict.fromkeys(verdict.left_out.values()):
        items = ", ".join(item for item, given in verdict.left_out.items() if given == why)
        lines.append(f"  left out  {items}: {why}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the verdict of every row; exit with 1 if any breaks an item.

    Raises:
        InputError: If the command line, a row or a module is not usable.
    """
    options = parse(sys.argv[1:] if arguments is None else arguments)
    path = Path(options.target)
    from tests.contract.items import ITEMS
    from tests.contract.verdict import verdict

    for item in options.only:
        if item not in ITEMS:
            raise InputError(f"--only ({item}) must be one of {', '.join(ITEMS)}")
    rows = rows_in(path) if path.suffix == ".py" and path.exists() else [row_of(options)]
    breaks = 0
    for row in rows:
        result = verdict(row, tuple(options.only))
        breaks += sum(one.item not in row.conventions for one in result.broken)
        print(text(row, result), flush=True)
    if breaks:
        sys.exit(1)


if __name__ == "__main__":
    run(main, "contract")
