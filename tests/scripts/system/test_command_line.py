"""Flags: a run folder holds them as values, and from these the same flags come back."""

import argparse
import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from scripts.recipes import stn, stn_arms, study, vit, vit_arms
from scripts.system.command_line import as_flags, flag_values, parse

KINDS = [stn.Options, vit.Options, stn_arms.ArmOptions, vit_arms.ArmOptions, study.Options]


def least(field: "dataclasses.Field[Any]") -> list[Any]:
    """Values at the edge of what a flag takes: those that Python calls false, and the first ones beyond."""
    meta = field.metadata
    if meta["type"] is bool:
        return [False, True]
    if meta["choices"]:
        return list(meta["choices"])
    taken = (taken_by(meta["type"], text) for text in ("0", "1", "0.5", "1e-12", "name"))
    return [value for value in taken if value is not None]


def taken_by(kind: Callable[[str], Any], text: str) -> Any:
    with suppress(argparse.ArgumentTypeError, ValueError):
        return kind(text)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_flags_survive_the_way_through_a_run_folder(kind: type) -> None:
    default = parse(kind, "", [])
    for field in dataclasses.fields(kind):
        for setting in field.metadata.get("settings", ()):
            for value in least(setting):
                given = dataclasses.replace(default, changes={setting.name: value})
                assert parse(kind, "", as_flags(flag_values(given))) == given, (setting.name, value)
        if not {"settings", "names given"} & {*field.metadata}:
            for value in least(field):
                given = dataclasses.replace(default, **{field.name: value})
                assert parse(kind, "", as_flags(flag_values(given))) == given, (field.name, value)
