"""The rooms of the museum, one for each component, and all exhibits that hang there."""

from importlib import import_module

import components
from tests.contract.items import snake_case
from tests.museum.exhibits import EXHIBITS

__all__ = ["EXHIBITS", "ROOMS"]

ROOMS = {name: import_module(f"tests.museum.{snake_case(name)}") for name in components.__all__}
import_module("tests.museum.transforms")
