"""What only files of the kit can hold: convolutions in front of the patches, pooled tokens, and grids of any shape."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.patch_embeddings import resize_pos_embed
from scripts.convert import Options, main
from scripts.models.conv_stem import ConvStem
from scripts.models.vit import VisionTransformer
from scripts.system.command_line import parse
from scripts.system.errors import InputError
from scripts.weights.files import SUFFIXES
from scripts.weights.kit import STAGE
from scripts.weights.pretrained import load_weights, read_weights, write_weights
from scripts.weights.search import COUNTER
from tests.support.networks import WRITTEN, bits, network
from tests.support.strategies import generator

FRONTS = {"stem": {"stem": (4, 6)}, "pool": {"pool": "sequence"}, "both": {"stem": (5,), "pool": "sequence"}}
every_front = pytest.mark.parametrize("options", FRONTS.values(), ids=FRONTS)


def trained(seed: int = 0, **options: object) -> VisionTransformer:
    """A network whose running statistics are those of a few images."""
    model = network(seed=seed, **options)
    model.train()(torch.randn(8, 3, 32, 32, generator=generator(seed)))
    return model.eval()


def test_a_stage_has_the_arrays_that_are_listed() -> None:
    names = [name for name in ConvStem((4,)).stages[0].state_dict() if not name.endswith(COUNTER)]
    assert tuple(names) == STAGE


@every_front
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_comes_back_as_the_same_function(tmp_path: Path, options: dict, suffix: str) -> None:
    model, other = trained(**options), trained(1, **options)
    write_weights(tmp_path / f"vit{suffix}", model.state_dict(), "kit", 3)
    weights = read_weights(tmp_path / f"vit{suffix}")
    assert bits(weights.state) == bits({n: a for n, a in model.state_dict().items() if not n.endswith(COUNTER)})
    load_weights(other, tmp_path / f"vit{suffix}")
    x = torch.randn(2, 3, 32, 32, generator=generator(2))
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


@every_front
@pytest.mark.parametrize("family", [family for family in WRITTEN if family != "kit"])
def test_other_families_have_no_place_for_it(tmp_path: Path, options: dict, family: str) -> None:
    with pytest.raises(InputError, match=rf"^family \({family}\) must be kit to write a network with (stem|pool) "):
        write_weights(tmp_path / "vit.npz", trained(**options).state_dict(), family, 3)
    assert not (tmp_path / "vit.npz").exists()


@pytest.mark.parametrize(("held", "wanted"), [({}, {"stem": (4, 6)}), ({"stem": (4, 6)}, {"stem": (4, 8)}),
                                              ({"stem": (4, 6)}, {}), ({"pool": "sequence"}, {})])  # fmt: skip
def test_another_front_is_another_network(tmp_path: Path, held: dict, wanted: dict) -> None:
    write_weights(tmp_path / "vit.pt", trained(**held).state_dict(), "kit", 3)
    with pytest.raises(InputError, match=r"vit\.pt must hold the weights of the model \(.*(stem|pool)"):
        load_weights(trained(1, **wanted), tmp_path / "vit.pt")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("stem.stages.0.2.bias", None, "must hold stem.stages.0.2.bias, as kit files do; it is missing"),
        ("stem.stages.0.0.weight", None, "must hold only a Vision Transformer; unknown names: stem"),
        ("stem.stages.2.0.weight", torch.ones(4, 6, 3, 3), "must hold stem.stages.2.2.weight, as kit files do"),
        ("stem.stages.0.5.running_var", torch.ones(9), "stem.stages.0.5.running_var (9,) must be (4,)"),
        ("stem.stages.0.0.weight", torch.ones(4, 3, 3), "stem.stages.0.0.weight (4, 3, 3) must be (4, 24, 3, 3)"),
        ("stem.first.weight", torch.ones(24, 3), "stem.first.weight (24, 3) must have 4 axes"),
        ("stem.first.bias", None, "must hold stem.first.bias, as kit files do; it is missing"),
        ("pool.weight", torch.ones(1, 12), "must hold pool.bias, as kit files do; it is missing"),
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path: Path, name: str, array: torch.Tensor | None, message: str) -> None:
    state = trained(stem=(4, 6)).state_dict() | ({} if array is None else {name: array})
    torch.save({key: value for key, value in state.items() if key != name or array is not None}, tmp_path / "vit.pt")
    with pytest.raises(InputError) as error:
        read_weights(tmp_path / "vit.pt")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "size", [32, [32], [-16, -64], [16.0, 64.0], [True, 256], "9" * 5000 + "x1", [10**9, 1], [[16], [64]], {"h": 16}]
)
def test_an_image_size_that_tells_no_grid_is_no_error(tmp_path: Path, size: object) -> None:
    """Of a hostile file too: Python refuses to make a number of thousands of digits."""
    torch.save({"image_size": size, "model": network().state_dict()}, tmp_path / "vit.pt")
    assert read_weights(tmp_path / "vit.pt").grid is None


@given(old=st.tuples(st.integers(1, 6), st.integers(1, 6)), new=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_positions_of_any_grid_are_resampled_from_the_grid_that_they_are_of(
    tmp_path_factory: pytest.TempPathFactory, old: tuple[int, int], new: tuple[int, int]
) -> None:
    """A run says which images its network is for, and a converted file says so too."""
    folder = tmp_path_factory.mktemp("grid")
    size = tuple(8 * side for side in old)
    model, other = network(image_size=size), network(seed=1, image_size=tuple(8 * side for side in new))
    torch.save({"image_size": [*size], "model": model.state_dict()}, folder / "last.pt")
    main(parse(Options, "convert", [str(folder / "last.pt"), str(folder / "vit.safetensors"), "--num-heads", "3"]))
    wanted = resize_pos_embed(model.embeddings.pos_embed, old, new, interpolation="bicubic-antialias")
    for name in ("last.pt", "vit.safetensors"):
        load_weights(other, folder / name)
        torch.testing.assert_close(other.embeddings.pos_embed, wanted, rtol=0, atol=0)
