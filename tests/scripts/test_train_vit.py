"""scripts.train_vit from the command line: every recipe to its report, and pretrained weights."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scripts import experiment, train_stn, train_vit
from scripts.data.datasets import Dataset, Split
from scripts.experiment import planned
from scripts.models.vit import PRESETS, VisionTransformer
from scripts.run.folder import read_metrics
from scripts.subjects.vit import OPTIMIZERS
from scripts.system.errors import InputError
from scripts.system.machine import COMPILING_PAYS, Machine
from scripts.train_vit import RECIPES, Options, main
from scripts.training.trainer import Trainer
from scripts.weights.pretrained import read_weights, write_weights
from scripts.weights.search import COUNTER
from tests.support.machines import EVERY, MACHINES
from tests.support.networks import TINY, TINY_PRESETS
from tests.support.runs import flags

pytestmark = pytest.mark.numerics

SPLIT = Split(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.arange(2))
TWO = Dataset("two", "two images", ("a", "b"), SPLIT, SPLIT)
options = partial(flags, Options)


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset, sizes in TINY_PRESETS.items():
        monkeypatch.setitem(PRESETS, preset, sizes)


def pretrained(path: Path, classes: int, preset: str = "b16", **size: object) -> VisionTransformer:
    """Write random weights in Google's layout, and return their network."""
    torch.manual_seed(0)
    network = VisionTransformer.from_preset(preset, classes, **size)
    torch.nn.init.normal_(network.head.weight, std=0.02)
    write_weights(path, network.state_dict(), "google", network.encoder.blocks[0].attn.num_heads)
    return network


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_leaves_everything_and_ends_with_json(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    weights = None
    if RECIPES[recipe].pretrained:
        pretrained(tmp_path / (weights := "start.npz"), 21, RECIPES[recipe].network["preset"])
    main(options(data=str(tree), recipe=recipe, steps=2, weights=weights, batch_size=16, precision="bfloat16",
                 out="run"))  # fmt: skip
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["recipe"], summary["steps"], summary["epochs"], summary["run_folder"]) == (recipe, 2, 1, "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"last.pt", "best.pt", "report.html", "attention.png", "heads.png", "grad_cam.png", "curves.png"}
    assert len(read_metrics(tmp_path / "run")) == 1
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]
    side, _ = RECIPES[recipe].image_size or (32, 32)
    assert resolved["image_size"] == [side, side]
    found = torch.load(tmp_path / "run" / "findings.pt", weights_only=True)
    cells = side // resolved["network"]["patch_size"]
    assert found["attention_images"].shape == (6, 3, side, side)
    assert found["attention_rollout"].shape == (6, cells, cells)
    assert found["attention_last_layer"].shape == (6, 2, cells, cells)
    assert found["attention_layers"].shape == (2, 2, 2, cells, cells)
    assert found["cam_maps"].shape == (6, side, side)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Where the class token looks" in page
    assert ("too few for attention" in page) == (cells**2 < 16)


@pytest.mark.usefixtures("_tiny", "_no_report")
@pytest.mark.parametrize(("recipe", "warned"), [("b16", True), ("lite", False)])
def test_few_patches_give_a_warning_before_training(
    tree: Path, capsys: pytest.CaptureFixture[str], recipe: str, warned: bool
) -> None:
    main(options(data=str(tree), recipe=recipe, steps=1, out="run"))
    before, _ = capsys.readouterr().out.split("Epoch 1/1")
    assert ("WARNING: an image of 32x32 pixels is only 4 patches" in before) == warned


@pytest.mark.usefixtures("_tiny", "_no_report")
def test_fine_tuning_starts_from_the_weights_with_a_zero_head(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = pretrained(tmp_path / "start.npz", 21)
    seen: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.Trainer, "fit", lambda trainer, _: seen.update(trainer.model.state_dict()) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(options(data=str(tree), recipe="b16-finetune", steps=1, weights="start.npz", out="run"))
    assert not seen["head.weight"].any()
    assert seen["head.weight"].shape == (3, 24)
    for name, value in network.state_dict().items():
        assert name.startswith("head.") or torch.equal(seen[name], value), name
    assert "start.npz: the head is zero: the file has 21 classes, the model 3" in capsys.readouterr().out


@pytest.mark.usefixtures("_tiny", "_no_report")
def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_its_weights_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From another folder too: the name of the file is relative to the one that it started in."""
    wanted = pretrained(tmp_path / "start.npz", 2, "lite").encoder.state_dict()
    begun = []

    def killed(trainer: Trainer, checkpoint: object) -> None:
        assert checkpoint is None
        begun.append({name: weight.clone() for name, weight in trainer.model.encoder.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", killed)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        main(options(data=str(tree), recipe="lite", steps=1, weights="start.npz", out=str(run)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(KeyboardInterrupt):
        main(Options(resume=str(run)))
    for state in begun:
        torch.testing.assert_close(state, dict(wanted), rtol=0, atol=0)
    assert capsys.readouterr().out.count("google weights") == 2, "the log says so again"


@pytest.mark.usefixtures("_tiny", "_no_report", "tree")
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_on_scenes_whose_sides_its_patches_divide(recipe: str, tmp_path: Path) -> None:
    """They have 60x60 pixels; nothing but their own places moves objects, and no crop enlarges them."""
    pretrained(tmp_path / "start.npz", 21, "s14" if recipe.startswith("s14") else "b16")
    given = {"recipe": recipe, "weights": "start.npz" if RECIPES[recipe].pretrained else None}
    run = partial(main, options(data="cluttered:photos", steps=1, batch_size=2, limit_test=2, out="run", **given))
    if side := {"b16": 16, "compact": 8}.get(recipe):
        with pytest.raises(InputError, match=f"must hold images whose sides are multiples of {side} pixels"):
            run()
    else:
        run()
        assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), "CUDA out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to "
                      "allocate 8 bytes. Error code 12"), "can't allocate memory: you tried to allocate 8 bytes"),
    ],
    ids=["GPU", "CPU"],
)  # fmt: skip
def test_too_little_memory_is_one_line_that_names_the_flag_that_helps(
    error: Exception, said: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(trainer: Trainer, checkpoint: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "fit", fit)
    monkeypatch.setitem(PRESETS, "lite", TINY_PRESETS["lite"])
    with pytest.raises(InputError) as refused:
        main(options(data=str(tree), recipe="lite", steps=1, at_once=100, out="run"))
    assert str(refused.value) == f"--at-once (100) must be lower; {said}"


def test_data_that_do_not_fit_into_memory_are_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(data: str) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12")

    monkeypatch.setattr("scripts.experiment.load", load)
    with pytest.raises(InputError) as refused:
        main(options(data=str(tree), recipe="lite", steps=1, out="run"))
    wanted = f"--data ({tree}) must fit into memory, or --limit-train and --limit-test be lower"
    assert str(refused.value) == f"{wanted}; can't allocate memory: you tried to allocate 8 bytes"
    assert not Path("run").exists()


def test_the_allocator_of_a_cpu_says_what_is_expected_of_it() -> None:
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate memory: you tried to allocate"):
        torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.usefixtures("_tiny", "_no_report")
@pytest.mark.parametrize("recipe", ["b16", "lite", "compact", "s14"])
def test_a_checkpoint_serves_as_pretrained_weights_with_its_head(recipe: str, tree: Path, tmp_path: Path) -> None:
    main(options(data=str(tree), recipe=recipe, steps=2, out="first"))
    state = torch.load(tmp_path / "first" / "last.pt", weights_only=True)["model"]
    kept = read_weights(tmp_path / "first" / "last.pt")
    state = {name: value for name, value in state.items() if not name.endswith(COUNTER)}
    assert all(torch.equal(kept.state[name], value) for name, value in state.items())
    assert kept.num_heads == 2
    main(options(data=str(tree), recipe=recipe, steps=1, lr=1e-12, weights="first/last.pt", out="second"))
    again = torch.load(tmp_path / "second" / "last.pt", weights_only=True)["model"]
    learned = {name for name in state if not name.endswith(("running_mean", "running_var"))}
    torch.testing.assert_close({n: again[n] for n in learned}, {n: state[n] for n in learned}, atol=1e-6, rtol=0)
    assert state["head.weight"].any()


def test_fine_tuning_is_exactly_the_published_recipe() -> None:
    recipe, short = RECIPES["b16-finetune"], RECIPES["b16-finetune-500"]
    network = VisionTransformer.from_preset(device="meta", **recipe.network)
    (optimizer,) = OPTIMIZERS[recipe.optimizer](network, recipe)
    (group,) = optimizer.param_groups
    assert (type(optimizer).__name__, group["lr"], group["momentum"], group["weight_decay"]) == ("SGD", 0.03, 0.9, 0)
    assert not group["nesterov"]
    assert (recipe.batch_size, recipe.steps, recipe.clip, recipe.image_size) == (512, 10_000, 1.0, (224, 224))
    assert recipe.normalise.mean == recipe.normalise.std == (0.5, 0.5, 0.5)
    assert recipe.schedule(250 / 10_000) == pytest.approx(0.5)
    assert recipe.schedule(500 / 10_000) == 1
    assert recipe.schedule((500 + 9_500 / 2) / 10_000) == pytest.approx(0.5)
    assert recipe.schedule(1.0) == pytest.approx(0)
    assert (short.steps, short.schedule(50 / 500), short.schedule(100 / 500)) == (500, pytest.approx(0.5), 1)
    assert (network.embeddings.dropout.p, network.encoder.blocks[0].attn.attn_dropout) == (0.1, 0.0)


@pytest.mark.usefixtures("_no_report")
def test_the_small_network_of_dinov2_is_fine_tuned_from_its_own_file(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of the twelve blocks, with random weights as transformers saves them."""
    monkeypatch.setitem(PRESETS, "s14", PRESETS["s14"] | {"depth": 2})
    config = transformers.Dinov2Config(image_size=518, hidden_size=384, num_hidden_layers=2, num_attention_heads=6)
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "start")
    main(options(data=str(tree), recipe="s14-finetune", steps=2, batch_size=2, limit_test=2,
                 weights="start/model.safetensors", out="run"))  # fmt: skip
    said = capsys.readouterr().out
    assert "start/model.safetensors: positions resampled from 37x37 to 6x6 patches, bicubic" in said
    assert "the head is zero: the file has none" in said
    assert all(np.isfinite(list(row.values())).all() for row in read_metrics(tmp_path / "run"))


@pytest.mark.usefixtures("_tiny", "_no_report")
def test_crops_are_trained_on_in_their_own_size_and_images_evaluated_in_that_of_the_recipe(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = VisionTransformer.forward

    def noted(self: VisionTransformer, images: Tensor, **options: bool) -> Tensor:
        seen.add((self.training, *images.shape[2:]))
        return forward(self, images, **options)

    monkeypatch.setattr(VisionTransformer, "forward", noted)
    main(options(data=str(tree), recipe="s14", steps=1, batch_size=2, limit_test=2, out="run"))
    recipe = RECIPES["s14"]
    assert seen == {(True, recipe.augment.size, recipe.augment.size), (False, *recipe.image_size)}


def test_the_same_network_from_random_weights_trains_as_long_on_the_same_images() -> None:
    tuned, scratch = RECIPES["s14-finetune"], RECIPES["s14"]
    assert tuned.pretrained
    assert scratch == replace(tuned, pretrained=False, optimizer="adamw")


@pytest.mark.parametrize("name", ["compact", "s14", "s14-finetune"])
def test_recipes_train_with_at_most_2_2_pflop(name: str) -> None:
    """On CIFAR-10: six FLOPs for each multiply-add of a forward pass, two in it and four in the backward pass."""
    recipe = RECIPES[name]
    side = recipe.augment.size or 32
    network = VisionTransformer.from_preset(image_size=side, device="meta", **recipe.network)
    counted = []
    for training in (True, False):  # with the patches that training leaves at first, and with all
        with FlopCounterMode(display=False) as counter:
            network.train(training)(torch.zeros(1, 3, side, side, device="meta"))
        counted.append(counter.get_total_flops())
    flops = 3 * (counted[0] * (1 - recipe.whole_images) + counted[1] * recipe.whole_images)
    assert recipe.steps is None
    assert 5e14 < flops * 50_000 * recipe.epochs <= 2.2e15


@pytest.mark.parametrize(
    ("preset", "options"), [("lite", {}), ("lite", {"pool": "sequence"}), ("compact", {}), ("r50-b16", {})]
)
def test_layers_learn_the_more_slowly_the_farther_they_are_from_the_head(preset: str, options: dict[str, str]) -> None:
    """As in timm, whose first layer is everything in front of the blocks, and whose last one all behind them."""
    network = VisionTransformer.from_preset(preset, device="meta", **options)
    (optimizer,) = OPTIMIZERS["layered-adamw"](network, replace(RECIPES["lite"], lr=2.0))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    depth = len(network.encoder.blocks)
    for name, parameter in network.named_parameters():
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        behind = name.startswith(("head.", "pool.", "encoder.norm."))
        layer = int(block[1]) + 1 if block else depth + 1 if behind else 0
        assert rates[id(parameter)] == pytest.approx(2.0 * 0.7 ** (depth + 1 - layer)), name


@pytest.mark.parametrize("preset", ["compact", "lite"])
def test_convolutions_in_front_learn_at_four_times_the_rate_of_what_is_behind_them(preset: str) -> None:
    """With Muon, which has the matrices of the encoder and the kernels of the stages; AdamW has a sixth of its rate."""
    network = VisionTransformer.from_preset(preset, device="meta")
    first, second = OPTIMIZERS["muon"](network, replace(RECIPES["lite"], lr=3.0))
    rates = {
        id(parameter): (type(optimizer).__name__, group["lr"])
        for optimizer in (first, second)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        times = 4 if name.startswith("stem.") else 1
        matrix = name.startswith(("stem.stages.", "encoder.")) and parameter.ndim > 1
        assert rates[id(parameter)] == (("Muon", 3.0 * times) if matrix else ("AdamW", 0.5 * times)), name
    assert first.param_groups[0]["lr"] == 3.0  # which metrics.csv shows
    assert all(group["params"] for optimizer in (first, second) for group in optimizer.param_groups)


def test_every_parameter_has_one_optimizer_and_vectors_do_not_decay() -> None:
    network = VisionTransformer.from_preset("lite", device="meta")
    for recipe in RECIPES.values():
        optimizers = OPTIMIZERS[recipe.optimizer](network, recipe)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        given = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(given) == sorted(id(parameter) for parameter in network.parameters())
        decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
        layers = {id(parameter) for name, parameter in network.named_parameters()
                  if name.endswith("weight") and "norm" not in name}  # fmt: skip
        assert decayed in (set(), layers)


@pytest.mark.usefixtures("_tiny", "_no_report")
@pytest.mark.parametrize("recipe", ["lite", "b16"])
def test_it_learns_bright_and_dark_images(tree: Path, tmp_path: Path, recipe: str) -> None:
    main(options(data=str(tree), recipe=recipe, epochs=20, batch_size=8, lr=0.01, out="run"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_accuracy"] == 100, "chance is 33"


@pytest.mark.usefixtures("_no_report")
def test_fine_tuning_blocks_of_vit_b16_at_224_pixels(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the twelve blocks, with random weights in Google's names and shapes."""
    monkeypatch.setitem(PRESETS, "b16", PRESETS["b16"] | {"depth": 2})
    sizes = {"embedding/kernel": (16, 16, 3, 768), "Transformer/posembed_input/pos_embedding": (1, 197, 768)}
    network = pretrained(tmp_path / "ViT-B_16.npz", 1000)
    with np.load(tmp_path / "ViT-B_16.npz") as file:
        assert {name: file[name].shape for name in sizes} == sizes
    main(options(data=str(tree), recipe="b16-finetune", steps=2, batch_size=1, limit_test=2,
                 weights="ViT-B_16.npz", out="run"))  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (summary["steps"], summary["parameters"]) == (2, parameters - (1000 - 3) * 769)
    assert all(np.isfinite(list(row.values())).all() for row in read_metrics(tmp_path / "run"))


@pytest.mark.usefixtures("_undrawn")
def test_a_hybrid_is_fine_tuned_and_its_report_shows_a_square_for_each_patch(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its patches are cells of the feature map: 14x14 of 16 pixels, as of ViT-B/16."""
    monkeypatch.setitem(PRESETS, "b16", TINY | {"resnet": (1, 1, 1)})
    start = pretrained(tmp_path / "start.npz", 21).state_dict()
    main(options(data=str(tree), recipe="b16-finetune", steps=2, batch_size=2, limit_test=2, weights="start.npz",
                 out="run"))  # fmt: skip
    found = torch.load(tmp_path / "run" / "findings.pt", weights_only=True)
    assert found["attention_rollout"].shape == (2, 14, 14)
    assert found["attention_last_layer"].shape == (2, 2, 14, 14)
    assert found["cam_maps"].shape == (2, 224, 224)
    assert "Where the class token looks" in (tmp_path / "run" / "report.html").read_text("utf-8")
    network = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]["network"]
    assert (network["resnet"], network["patch_size"]) == ([1, 1, 1], 16)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    changed = {name for name, array in state.items() if name in start and not torch.equal(array, start[name])}
    assert {"resnet.stem.conv.weight", "resnet.stages.2.0.norm3.weight", "embeddings.proj.weight"} <= changed


@pytest.mark.usefixtures("_tiny", "_no_report")
@pytest.mark.parametrize("entry", [train_stn, train_vit], ids=lambda entry: entry.__name__)
def test_the_same_seed_gives_the_same_run(entry: ModuleType, tree: Path, tmp_path: Path) -> None:
    def weights(out: str, seed: int) -> dict[str, torch.Tensor]:
        entry.main(flags(entry.Options, data=str(tree), steps=2, seed=seed, out=out))
        return torch.load(tmp_path / out / "last.pt", weights_only=True)["model"]

    first, same, other = weights("a", 5), weights("b", 5), weights("c", 6)
    assert all(torch.equal(same[name], value) for name, value in first.items())
    assert not any(torch.equal(other[name], value) for name, value in first.items() if value.ndim > 1)


@pytest.mark.parametrize("machine", EVERY, ids=MACHINES)
def test_precision_and_compiling_of_the_plan_are_the_machines_choice_or_as_requested(machine: Machine) -> None:
    for recipe, pays in (("lite", True), ("b16", True), ("b16-finetune", False)):
        for steps in (COMPILING_PAYS, COMPILING_PAYS - 1):
            given = options(recipe=recipe, compile="auto", precision=None, steps=steps)
            plan = planned(RECIPES[recipe], given, TWO, TWO.train, machine)
            assert (plan.precision, plan.compiled) == (machine.precision("auto"), machine.compiled("auto", pays, steps))
    given = options(recipe="lite", compile="no", precision="bfloat16", steps=COMPILING_PAYS)
    plan = planned(RECIPES["lite"], given, TWO, TWO.train, machine)
    assert (plan.precision, plan.compiled) == ("bfloat16", False)
