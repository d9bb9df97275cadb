"""Whole checkpoints of other people: the network is found beside optimizers and under prefixes, with its heads."""

import json
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.system.errors import InputError
from scripts.weights.families import to_family
from scripts.weights.files import write_arrays
from scripts.weights.names import FAMILIES
from scripts.weights.pretrained import load_weights, read_weights, write_weights
from tests.support.networks import WRITTEN, Bomb, bits, every_family, network

TORCH = [family for family in WRITTEN if not FAMILIES[family].flax]
torch_families = pytest.mark.parametrize("family", TORCH)
flax_families = pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family].flax])


def arrays(family: str = "timm", prefix: str = "", seed: int = 0) -> dict[str, Tensor]:
    return {prefix + name: array for name, array in to_family(network(seed=seed).state_dict(), family, 3).items()}


def loaded(path: Path, family: str = "timm") -> list[str]:
    """Load a file into another network, which must then have the weights of ``arrays``, and return the notes."""
    model = network(seed=1)
    notes = [note.removeprefix(f"{path}: ") for note in load_weights(model, path)]
    assert bits(to_family(model.state_dict(), family, 3)) == bits(arrays(family))
    assert notes[0] == f"{family} weights, 32 arrays"
    return notes[1:]


def refused(path: Path, message: str) -> None:
    model = network(seed=1)
    with pytest.raises(InputError) as error:
        load_weights(model, path)
    assert str(error.value) == f"{path} {message}"
    assert bits(model.state_dict()) == bits(network(seed=1).state_dict()), "the model is unchanged"


# the number of heads

KNOWN: dict[str, Callable[[Path, int], Any]] = {
    "the kit's checkpoint": lambda path, heads: torch.save(
        {"network": {"preset": "b16", "num_heads": heads}, "model": arrays("kit")}, path),
    "Lightning's hyperparameters": lambda path, heads: torch.save(
        {"state_dict": arrays(prefix="model."), "hyper_parameters": {"vit": {"num_heads": heads}}}, path),
    "timm's flags": lambda path, heads: torch.save(
        {"state_dict": arrays(), "args": Namespace(model_kwargs={"num_heads": heads})}, path),
    "Hugging Face's configuration in it": lambda path, heads: torch.save(
        {"config": {"num_attention_heads": heads}, "model_state_dict": arrays("huggingface")}, path),
    "Hugging Face's configuration beside it": lambda path, heads: (
        path.with_name("config.json").write_text(json.dumps({"num_attention_heads": heads, "hidden_size": 12})),
        torch.save(arrays("huggingface"), path)),
    "the kit's configuration beside it": lambda path, heads: (
        path.with_name("config.json").write_text(json.dumps({"resolved": {"network": {"num_heads": heads}}})),
        torch.save(arrays("kit"), path)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KNOWN)
def test_heads_that_a_file_knows_are_compared(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "vit.pt"
    KNOWN[kind](path, 3)
    assert not any("num_heads" in note for note in load_weights(network(), path))
    KNOWN[kind](path, 6)
    refused(path, "must hold the weights of the model (num_heads 3); it has num_heads 6")
    KNOWN[kind](path, 5)
    refused(path, "must have a number of heads that divides its width (12); it has 5")


@every_family
def test_heads_are_written_where_the_file_has_a_place_for_them(tmp_path: Path, family: str) -> None:
    path = tmp_path / ("vit.npz" if FAMILIES[family].flax else "vit.safetensors")
    for heads in (3, 6):
        write_weights(path, network(num_heads=heads).state_dict(), family, heads)
        assert read_weights(path).num_heads == heads
    refused(path, "must hold the weights of the model (num_heads 3); it has num_heads 6")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@torch_families
def test_heads_that_nothing_tells_are_assumed_with_a_note(tmp_path: Path, family: str, suffix: str) -> None:
    write_arrays(tmp_path / f"vit{suffix}", arrays(family))
    assert loaded(tmp_path / f"vit{suffix}", family) == ["num_heads 3 of the model is assumed: the file does not tell"]


@pytest.mark.parametrize("config", [
    "{", "[3]", "{}", '{"num_attention_heads": "many"}', '{"num_attention_heads": 0}', '{"num_heads": true}',
    '{"num_heads": [6]}',
    '{"text_config": {"num_attention_heads": 8}, "vision_config": {"num_attention_heads": 12}}',
])  # fmt: skip
def test_a_configuration_that_tells_no_number_of_heads_is_no_error(tmp_path: Path, config: str) -> None:
    write_arrays(tmp_path / "vit.pt", arrays())
    (tmp_path / "config.json").write_text(config)
    assert loaded(tmp_path / "vit.pt") == ["num_heads 3 of the model is assumed: the file does not tell"]


# optimizers and averages


@pytest.mark.parametrize(("before", "state", "rest"), [
    ("opt/target/", ["opt/state/step", "opt/state/param_states/{}/grad_ema"], "opt/state"),
    ("params/", ["opt/0/count", "opt/0/mu/{}", "opt/0/nu/{}", "chrono/accum_train_time"], "opt, chrono"),
    ("params/", ["opt_state/0/trace/{}", "step"], "opt_state, step"),
    ("optimizer/target/params/", ["optimizer/state/{}/momentum", "extra/step"], "optimizer/state, extra"),
    ("", ["opt/1/mu/params/{}", "opt/1/mu/{}"], "opt"),
])  # fmt: skip
@flax_families
def test_the_network_is_read_beside_the_state_of_its_optimizer(
    tmp_path: Path, family: str, before: str, state: list[str], rest: str
) -> None:
    """Moments have the names and shapes of the network, counters are whole numbers; neither need be finite floats."""
    own = {name.removeprefix(FAMILIES[family].prefix): array.numpy() for name, array in arrays(family).items()}
    beside = {name.format(array): values * np.nan if "{}" in name else np.array(3)
              for name in state for array, values in own.items()}  # fmt: skip
    np.savez(tmp_path / "vit.npz", **{before + name: values for name, values in own.items()}, **beside)
    model = network(seed=1)
    notes = load_weights(model, tmp_path / "vit.npz")
    assert f"{tmp_path / 'vit.npz'}: the rest of the file is ignored: {rest}" in notes
    assert bits(to_family(model.state_dict(), family, 3)) == bits(arrays(family))


def test_the_state_of_an_optimizer_alone_is_no_network(tmp_path: Path) -> None:
    write_arrays(tmp_path / "vit.npz", arrays("google", "opt/0/mu/"))
    refused(tmp_path / "vit.npz", "must hold a Vision Transformer of a known family; it holds opt/0/mu/cls, "
            "opt/0/mu/Transformer/posembed_input/pos_embedding, opt/0/mu/embedding/kernel and 37 more")  # fmt: skip


# what trainers put around a network

LIGHTNING = {
    "epoch": 3, "global_step": 42, "pytorch-lightning_version": "2.6.0", "lr_schedulers": [{"last_epoch": 3}],
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "kth_value": None}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}], "hyper_parameters": {"lr": 0.1},
}  # fmt: skip
TIMM = {
    "epoch": 3, "arch": "vit_tiny_patch16_224", "version": 2, "metric": 71.5, "args": Namespace(lr=0.1, betas=[0.9]),
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(3)}}, "param_groups": [{"lr": 0.1}]},
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "key", "around"), [
    (".ckpt", "state_dict", LIGHTNING), (".pth.tar", "state_dict", TIMM), (".pt", "model", {"epoch": 3}),
    (".bin", "model_state_dict", {"loss": torch.tensor(0.5)}), (".pth", "network", {"scaler": {}}),
])  # fmt: skip
@torch_families
def test_the_network_is_found_in_whole_checkpoints(
    tmp_path: Path, family: str, suffix: str, key: str, around: dict[str, Any]
) -> None:
    torch.save({**around, key: OrderedDict(arrays(family, "model."))}, tmp_path / f"vit{suffix}")
    assert loaded(tmp_path / f"vit{suffix}", family)[0] == f"the prefix {key}/model. of every name is removed"


@pytest.mark.parametrize("prefix", [
    "model.", "module.", "backbone.", "_orig_mod.", "module._orig_mod.", "model.backbone.", "net.module.vit.",
    "transformer.", "embeddings.",
])  # fmt: skip
@torch_families
def test_prefixes_are_removed_with_a_note(tmp_path: Path, family: str, prefix: str) -> None:
    """https://github.com/huggingface/pytorch-image-models/pull/2003."""
    write_arrays(tmp_path / "vit.safetensors", arrays(family, prefix))
    assert loaded(tmp_path / "vit.safetensors", family)[0] == f"the prefix {prefix} of every name is removed"


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"])
def test_wrappers_of_blocks_are_removed(tmp_path: Path, wrapper: str) -> None:
    wrapped = {name.replace(".0.", f".0.{wrapper}."): array for name, array in arrays().items()}
    write_arrays(tmp_path / "vit.pt", wrapped)
    loaded(tmp_path / "vit.pt")


@pytest.mark.parametrize(("content", "rest"), [
    (TIMM | {"state_dict": arrays(), "state_dict_ema": arrays(seed=2)}, "state_dict_ema, optimizer"),
    ({"model_ema": arrays(seed=2), "model": arrays(prefix="module.")}, "model_ema"),
    ({"state_dict": arrays(prefix="ema_model.", seed=2) | arrays(prefix="model.")}, "state_dict/ema_model"),
    ({"state_dict": arrays(prefix="model.") | {"criterion.weight": torch.ones(7, dtype=torch.int8)}},
     "state_dict/criterion"),
    ({"teacher": arrays(prefix="backbone.") | {"head.mlp.0.weight": torch.ones(3)}}, "teacher/head"),
    (arrays(prefix="module.") | {"n_averaged": torch.tensor(9)}, "n_averaged"),
    ({"state_dict": arrays(), "again": [arrays()], "scores": {"a": torch.ones(1), "b": torch.ones(1)}}, "scores"),
])  # fmt: skip
def test_what_else_a_file_holds_is_ignored_with_a_note(tmp_path: Path, content: dict[str, Any], rest: str) -> None:
    torch.save(content, tmp_path / "vit.pth")
    assert loaded(tmp_path / "vit.pth")[1] == f"the rest of the file is ignored: {rest}"


def test_an_average_alone_is_read_and_one_network_under_two_keys_too(tmp_path: Path) -> None:
    one = arrays()
    for content in ({"state_dict_ema": one}, {"model": one, "state_dict": one}):
        torch.save(content, tmp_path / "vit.pth")
        loaded(tmp_path / "vit.pth")


@pytest.mark.parametrize(("content", "message"), [
    ({"student": arrays(prefix="module."), "teacher": arrays()},
     "must hold one Vision Transformer; it holds several: teacher/, student/module."),
    (arrays(prefix="student.") | arrays(prefix="teacher."),
     "must hold one Vision Transformer; it holds several: student., teacher."),
    ({"epoch": 3, "args": Namespace(lr=0.1)}, "must hold arrays by name; it holds none"),
    ({"state_dict": arrays(), "args": Namespace(model=Bomb(Path("boom")))},
     "must hold only tensors and plain values; loading it would run code"),
    ({"state_dict": arrays(), "hyper_parameters": {"data": Path("photos")}},
     "must hold only tensors and plain values; loading it would run code"),
])  # fmt: skip
def test_two_networks_none_and_code_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    refused(tmp_path / "last.ckpt", message)


def test_a_dictionary_within_itself_is_read_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": arrays()}
    content["self"] = content
    torch.save(content, tmp_path / "vit.pt")
    loaded(tmp_path / "vit.pt")
