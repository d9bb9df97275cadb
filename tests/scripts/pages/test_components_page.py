"""components/README.md agrees with the code: constructors, parts, and numbers."""

import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch

import components
from components import Block, Encoder, PatchEmbeddings
from tests.contract.cases import CASES

PAGE = (Path(components.__file__).parent / "README.md").read_text("utf-8")
SECTIONS = defaultdict(str, re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
each_component = pytest.mark.parametrize("name", components.__all__)


def rows(title: str) -> list[list[str]]:
    """The cells of the tables of a section, without their headers."""
    text = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*", text, re.MULTILINE)]


def constructor(name: str) -> str:
    """The signature as on the page: without types, and without ``device`` and ``dtype``."""
    signature = inspect.signature(getattr(components, name))
    own = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name not in ("device", "dtype")]
    return f"{name}{inspect.Signature(own)}".replace("'", '"')


@each_component
def test_every_component_has_a_section_with_its_constructor(name: str) -> None:
    written = re.search(r"^\n((?: {4}.*\n)+)", SECTIONS[name])
    assert written is not None, "components/README.md has a section for each, which begins with the constructor"
    assert " ".join(written[1].split()) == constructor(name)


@each_component
def test_every_section_has_input_output_purpose_and_pitfalls(name: str) -> None:
    for word in ("In", "Out", "Why"):
        assert f"**{word}.**" in SECTIONS[name], f"the section of {name}"
    assert "**Easy to get wrong.**" in SECTIONS[name]


def test_all_but_one_take_device_and_dtype() -> None:
    without = [
        name for name in components.__all__
        if not {"device", "dtype"} <= inspect.signature(getattr(components, name)).parameters.keys()
    ]  # fmt: skip
    assert without == ["SpatialTransformer"]
    assert "All but `SpatialTransformer` also take `device` and `dtype`" in PAGE


def test_the_table_of_names_has_classes_and_parts_that_exist() -> None:
    table = {row[0].strip("`"): row for row in rows("Names in jeonsworld/ViT-pytorch")}
    assert list(table) == ["Embeddings", "Attention", "Mlp", "Block", "Encoder"]
    for _, ours, parts, _ in table.values():
        module = next(case for case in CASES if case.name == ours.strip("`")).module()
        arrows = re.findall(r"`[\w, ]+` → `(\w+)`", parts)
        assert arrows
        assert all(hasattr(module, part) for part in arrows), (ours, arrows)


def test_the_mlp_has_two_thirds_of_a_blocks_parameters() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    block = Block(768, 12, mlp_dim=3072, device="meta")
    assert count(block.mlp) / count(block) == pytest.approx(2 / 3, abs=0.001)
    assert "two thirds" in SECTIONS["MLP"]


def test_the_numbers_on_the_page_are_right() -> None:
    assert Block(8, 2, mlp_dim=8).norm1.eps == 1e-6
    assert "eps is 1e-6" in SECTIONS["Block"]
    assert PatchEmbeddings(32, 16, dim=8).pos_embed.std().item() == pytest.approx(0.02, rel=0.5)
    assert "0.02" in SECTIONS["PatchEmbeddings"]
    encoder = Encoder(768, 12, num_heads=12, mlp_dim=3072, device="meta")
    weights = encoder(torch.empty(1, 197, 768, device="meta"), return_weights=True)[1]
    assert f"{weights.nbytes / 1e6:.0f} MB" in SECTIONS["Encoder"]
    rates = [block.stochastic_depth for block in Encoder(8, 3, num_heads=2, mlp_dim=8, stochastic_depth=0.3).blocks]
    assert rates == pytest.approx([0.1, 0.2, 0.3])
    assert "`stochastic_depth` * l / L" in SECTIONS["Encoder"]
