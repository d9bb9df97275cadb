"""One row a mistake at the command line: what is typed, what is done to the files before, the line that comes back.

``test_bad_inputs.py`` runs every row in a copy of one small folder. What components refuse stands in ``cases.py``. In a
message ``...`` is what another library has to say.
"""

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from scripts.data.cifar10 import ARCHIVE, ARCHIVE_MD5, FOLDER
from scripts.run.folder import RunFolder, digest
from scripts.weights.families import to_family
from scripts.weights.files import write_arrays
from tests.support.networks import Bomb, google, network, with_pre_logits

Spoil = Callable[[], object]


class Row(NamedTuple):
    """A command, the line on standard error behind ``<program>: error: ``, and what is done to the files before."""

    program: str
    arguments: str
    message: str
    spoil: Spoil = lambda: None

    def __str__(self) -> str:
        name = getattr(self.spoil, "__name__", "").replace("<lambda>", "")
        return " ".join((self.program, self.arguments, name)).replace("/", "|").replace("\n", "|")


WHOLE = "must be a whole number from {} to 2147483647"
ONE_UP, ZERO_UP, ABOVE_ZERO = WHOLE.format(1), WHOLE.format(0), "must be a number above 0"
DEVICE = "must be auto or a device that is there, such as cpu"
SOURCE = "must be auto, cifar10, digits or a folder that holds train/ and test/"
TAKEN = "must be a new or an empty folder; something is there already"
MISSING = "must be that of a finished run; {} is not there"
JSON = "must be one whole JSON object; it is damaged or another file"
NO_CODE = "must hold tensors alone; to open it, torch would have to run code"

ROWS = [
    Row("train_stn", "--recipe tuend", "--recipe (tuend) must be one of tutorial, tuned"),
    Row("train_stn", "--epochs 0", f"--epochs (0) {ONE_UP}"),
    Row("train_stn", "--epochs many", f"--epochs (many) {ONE_UP}"),
    Row("train_stn", "--epochs 2.5", f"--epochs (2.5) {ONE_UP}"),
    Row("train_stn", "--epochs 99999999999", f"--epochs (99999999999) {ONE_UP}"),
    Row("train_stn", "--epochs", "--epochs: expected one argument"),
    Row("train_stn", "--epoch 3", "unrecognized arguments: --epoch 3"),
    Row("train_stn", "--epochs 3 --steps 9", "--steps (9) and --epochs (3) cannot both be given"),
    Row("train_stn", "--seed -1", f"--seed (-1) {ZERO_UP}"),
    Row("train_stn", "--seed 99999999999999999999", f"--seed (99999999999999999999) {ZERO_UP}"),
    Row("train_stn", "--batch-size 0", f"--batch-size (0) {ONE_UP}"),
    Row("train_stn", "--batch-size 1e3", f"--batch-size (1e3) {ONE_UP}"),
    Row("train_stn", "--at-once 0", f"--at-once (0) {ONE_UP}"),
    Row("train_stn", "--limit-train 0", f"--limit-train (0) {ONE_UP}"),
    Row("train_stn", "--limit-test -5", f"--limit-test (-5) {ONE_UP}"),
    Row("train_stn", "--lr 0", f"--lr (0) {ABOVE_ZERO}"),
    Row("train_stn", "--lr nan", f"--lr (nan) {ABOVE_ZERO}"),
    Row("train_stn", "--lr inf", f"--lr (inf) {ABOVE_ZERO}"),
    Row("train_stn", "--save-minutes 0", f"--save-minutes (0) {ABOVE_ZERO}"),
    Row("train_stn", "--validation 1.5", "--validation (1.5) must be a share between 0 and 1"),
    Row("train_stn", "--validation some", f"--validation (some) {ABOVE_ZERO}"),
    Row("train_stn", "--validation 0.001", "--validation (0.001) must leave images on both sides; there are 12"),
    Row("train_stn", "--precision half", "--precision (half) must be one of ..."),
    Row("train_stn", "--precision float16 --device cpu",
        "--precision (float16) must be auto, float32 or bfloat16 on cpu"),
    Row("train_stn", "--device cuda:99", f"--device (cuda:99) {DEVICE}; ..."),
    Row("train_stn", "--device gpu", f"--device (gpu) {DEVICE}"),
    Row("train_stn", "--device meta", f"--device (meta) {DEVICE}; Tensor.item() cannot be called on meta tensors"),
    Row("train_stn", "--device ''", f"--device () {DEVICE}"),
    Row("train_stn", "photos", "unrecognized arguments: photos"),
    Row("train_stn", "--out 'a\nb'", r"argument a\nb must be printable"),
    Row("train_stn", "--out taken", f"--out (taken) {TAKEN}"),
    Row("train_stn", "--out vit.npz", f"--out (vit.npz) {TAKEN}"),
    Row("train_stn", "--out vit.npz/run", "--out (vit.npz/run) must be a folder that can be made; Not a directory"),
    Row("train_stn", "--data nowhere", f"--data (nowhere) {SOURCE}"),
    Row("train_stn", "--data vit.npz", f"--data (vit.npz) {SOURCE}"),
    Row("train_stn", "--data photos/train", "--data (photos/train) must hold a folder train/ with one folder a class; "
        "there is none"),
    Row("train_stn", "--data cifar10", "download of cifar-10-python.tar.gz failed: 127.0.0.1:... not reached "
        "(ConnectionError); 127.0.0.1:... not reached (ConnectionError)"),
    Row("train_stn", "--resume nowhere", "--resume (nowhere) must be a run folder with its config.json; there is none"),
    Row("train_stn", "--resume taken", "--resume (taken) must be a run folder with its config.json; there is none"),
    Row("train_stn", "--resume finished", "--resume (finished) must be a run that was ended early; this one is "
        "finished: python -m scripts.report finished draws its report"),
    Row("train_stn", "--resume ended --epochs 5", "--resume (ended) takes no other flag; the run goes on with its own"),
    Row("train_stn", "--resume ended-vit", "--resume (ended-vit) must hold flags of this script in config.json; "
        "--recipe (lite) must be one of tutorial, tuned"),
    Row("train_vit", "--resume ended", "--resume (ended) must hold flags of this script in config.json; "
        "--recipe (tuned) must be one of lite, b16, b16-finetune, b16-finetune-500"),
    Row("train_vit", "--recipe b17", "--recipe (b17) must be one of lite, b16, b16-finetune, b16-finetune-500"),
    Row("train_vit", "--steps 0", f"--steps (0) {ONE_UP}"),
    Row("train_vit", "--no-transformer", "unrecognized arguments: --no-transformer"),
    Row("train_vit", "--recipe b16-finetune", "--weights (None) must be a file of pretrained weights for recipe "
        "b16-finetune"),
    Row("train_vit", "--weights nowhere.npz", "nowhere.npz must be a file of weights; it is not there"),
    Row("train_vit", "--weights taken", "taken must end in one of .npz, .safetensors, .pt, .pth, .bin"),
    Row("train_vit", "--weights ended/last.pt", "ended/last.pt must hold a Vision Transformer of a known family; it "
        "holds transformer.localization.conv1.weight, ..."),
    Row("train_vit", "--weights vit.npz", "vit.npz must hold the weights of the model (patch_size 4, dim 24, mlp_dim "
        "32, num_heads 2); it has patch_size 8, dim 12, mlp_dim 20, num_heads 3"),
    Row("convert", "vit.npz", "the following arguments are required: TARGET"),
    Row("convert", "vit.npz new.pt --family keras", "--family (keras) must be one of kit, google, ..."),
    Row("convert", "vit.npz new.pt --num-heads 0", f"--num-heads (0) {ONE_UP}"),
    Row("convert", "vit.npz new.npz --family google --num-heads 4", "--num-heads (4) must be 3, as vit.npz says, or "
        "not given"),
    Row("convert", "vit.npz new.h5", "new.h5 must end in one of .npz, .safetensors, .pt, .pth, .bin"),
    Row("convert", "vit.npz vit.npz", "target (vit.npz) must be a new file; something is there already"),
    Row("convert", "vit.npz taken/last.pt/new.pt", "cannot write taken/last.pt/new.pt: ..."),
    Row("convert", "nowhere.npz new.pt", "nowhere.npz must be a file of weights; it is not there"),
    Row("report", "", "the following arguments are required: FOLDER"),
    Row("report", "nowhere", f"run folder (nowhere) {MISSING.format('config.json')}"),
    Row("report", "ended", f"run folder (ended) {MISSING.format('summary.json')}"),
]  # fmt: skip


def row(program: str, arguments: str, message: str) -> Callable[[Spoil], Spoil]:
    """A row for which the function below spoils the files."""

    def add(spoil: Spoil) -> Spoil:
        ROWS.append(Row(program, arguments, message, spoil))
        return spoil

    return add


# images

DOG = Path("photos/train/dog/1.png")
UNREADABLE = f"{DOG} must be an image; it cannot be decoded (...)"


def lying_png(width: int, height: int) -> bytes:
    """A small grey image that says it is of another size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks.items())


@row("train_stn", "--data photos", UNREADABLE)
def a_truncated_png() -> None:
    DOG.write_bytes(DOG.read_bytes()[:200])


@row("train_stn", "--data photos", UNREADABLE)
def a_truncated_jpeg() -> None:
    Image.open(DOG).save(DOG, "JPEG")
    DOG.write_bytes(DOG.read_bytes()[:-300])


@row("train_vit", "--data photos", UNREADABLE)
def text_as_an_image() -> None:
    DOG.write_text("not an image")


@row("train_stn", "--data photos", UNREADABLE)
def an_image_that_pillow_would_hand_to_a_program() -> None:
    DOG.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(boom) (w) file\n")


@row("train_stn", "--data photos", UNREADABLE)
def an_image_without_pixels() -> None:
    DOG.write_bytes(lying_png(0, 0))


@row("train_stn", "--data photos", UNREADABLE)
def a_header_of_billions_of_pixels() -> None:
    DOG.write_bytes(lying_png(100_000, 100_000))


@row("train_stn", "--data photos", f"{DOG} (9000x9000 pixels) must be 32x32 like train/cat/0.png; all images of a run "
     "have one size")  # fmt: skip
def a_header_of_many_pixels() -> None:
    DOG.write_bytes(lying_png(9000, 9000))


@row("train_stn", "--data photos", f"{DOG} (mode I;16) must be grey, RGB, CMYK or of a palette, with at most 8 bits a "
     "channel")  # fmt: skip
def sixteen_bits() -> None:
    Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16)).save(DOG)


@row("train_stn", "--data photos", f"{DOG} (16x24 pixels) must be 32x32 like train/cat/0.png; all images of a run have "
     "one size")  # fmt: skip
def an_image_of_another_size() -> None:
    Image.open(DOG).resize((16, 24)).save(DOG)


@row("train_stn", "--data photos", f"{DOG} must be a file")
def a_pipe_as_an_image() -> None:
    DOG.unlink()
    os.mkfifo(DOG)


@row("train_stn", "--data photos", f"{DOG} must be a file")
def a_folder_as_an_image() -> None:
    DOG.unlink()
    DOG.mkdir()


@row("train_stn", "--data photos", f"{DOG} must be a file")
def an_image_that_never_ends() -> None:
    DOG.unlink()
    DOG.symlink_to("/dev/zero")


@row("train_stn", "--data photos", "--data (photos) must hold images of at least 16x16 pixels")
def tiny_images() -> None:
    for path in Path("photos").rglob("*.png"):
        Image.open(path).resize((8, 32)).save(path)


@row("train_vit", "--recipe b16", "--data (photos) must hold images of a multiple of 16 pixels for recipe b16")
def images_that_are_no_whole_number_of_patches() -> None:
    for path in Path("photos").rglob("*.png"):
        Image.open(path).resize((36, 36)).save(path)


@row("train_stn", "--data photos", "--data (photos) must hold a folder train/ with one folder a class; there is none")
def a_missing_split() -> None:
    Path("photos/train").rename("photos/training")


@row("train_stn", "--data photos", "photos/test/newt must have a counterpart in train/; the classes of both are equal")
def a_class_in_one_split() -> None:
    Path("photos/train/newt").rename("photos/train/toad")


@row("train_stn", "--data photos", "photos/test/dog must hold .png or .jpg images; there is none")
def an_empty_class() -> None:
    Path("photos/test/dog/0.png").rename("photos/test/dog/0.txt")


@row("train_stn", "--data photos", "--data (photos) must hold at least two classes; there are 0")
def no_class() -> None:
    for split in ("train", "test"):
        Path("photos", split).rename(f"photos/{split}ing")
        Path("photos", split).mkdir()


@row("train_stn", "--data photos", "--data (photos) must hold at least two classes; there are 1")
def a_single_class() -> None:
    for name in ("train/dog", "train/newt", "test/dog", "test/newt"):
        Path("photos", name).rename(f"photos/{name.replace('/', '-')}")


@row("train_stn", "--data photos", r"photos/train/\x1b[2J must be a name that can be printed")
def a_class_that_clears_the_screen() -> None:
    for split in ("train", "test"):
        Path("photos", split, "dog").rename(f"photos/{split}/\x1b[2J")


# CIFAR-10

BATCHES = f"data/{FOLDER}"


@row("train_stn", "--data cifar10", f"CIFAR10_DIR (taken) must hold {ARCHIVE} or {FOLDER}/")
def a_named_folder_without_cifar10() -> None:
    os.environ["CIFAR10_DIR"] = "taken"


@row("train_stn", "--data cifar10", f"data/{ARCHIVE} must have the MD5 {ARCHIVE_MD5}; it is damaged or "
     "another file")  # fmt: skip
def a_damaged_archive() -> None:
    Path("data").mkdir()
    Path("data", ARCHIVE).write_bytes(b"\x1f\x8b and no more")


@row("train_vit", "--data cifar10", f"{BATCHES} must hold the batches of CIFAR-10 undamaged; data_batch_1 is missing "
     "or damaged")  # fmt: skip
def a_batch_that_would_run_code() -> None:
    Path(BATCHES).mkdir(parents=True)
    Path(BATCHES, "data_batch_1").write_bytes(pickle.dumps(Bomb(Path("boom"))))


# going on


def sealed(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a checkpoint of the run that was ended, and make its hash the right one."""
    path = Path("ended", name)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    Path("ended/checkpoints.json").write_text(json.dumps({"sha256": [digest(path)]}))


def edited(path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))


OTHER_RUN = "--resume (ended) must hold a checkpoint of this run; it is that of another"
ANOTHER_SCRIPT = "--resume (ended) must hold flags of this script in config.json;"


@row("train_stn", "--resume ended", "run folder (ended) must belong to no other process; one is writing there")
def a_folder_in_use() -> None:
    IN_USE.append(RunFolder(Path("ended")))


IN_USE: list[RunFolder] = []


@row("train_stn", "--resume ended", f"ended/config.json {JSON}")
def flags_cut_off() -> None:
    path = Path("ended/config.json")
    path.write_text(path.read_text()[:100])


@row("train_stn", "--resume ended", f"ended/config.json {JSON}")
def flags_nested_without_end() -> None:
    Path("ended/config.json").write_text("[" * 100_000)


@row("train_stn", "--resume ended", f"ended/config.json {JSON}")
def flags_that_are_no_text() -> None:
    Path("ended/config.json").write_bytes(b"\xff\xfe\x00")


@row("train_stn", "--resume ended", f"{ANOTHER_SCRIPT} --epochs (many) {ONE_UP}")
def a_flag_of_the_wrong_kind() -> None:
    edited("ended/config.json", lambda content: content["asked"].update(epochs="many"))


@row("train_stn", "--resume ended", f"{ANOTHER_SCRIPT} unrecognized arguments: --depth=7")
def a_flag_that_does_not_exist() -> None:
    edited("ended/config.json", lambda content: content["asked"].update(depth=7))


@row("train_stn", "--resume ended", "ended/config.json must hold what was asked and what that was resolved to; it is "
     "damaged")  # fmt: skip
def no_flags() -> None:
    edited("ended/config.json", lambda content: content.pop("asked"))


@row("train_stn", "--resume ended", "--resume (ended) must go on with the same lr; it was 0.5 and is 0.02")
def another_recipe() -> None:
    edited("ended/config.json", lambda content: content["resolved"].update(lr=0.5))


@row("train_stn", "--resume ended", "--resume (ended) must go on with the same normalise; it was {...} and is {...}")
def other_images() -> None:
    os.link(DOG, "dog.png")
    DOG.unlink()


@row("train_stn", "--resume ended", "--resume (ended) must hold a sound checkpoint; all are damaged")
def every_checkpoint_damaged() -> None:
    Path("ended/last.pt").write_bytes(b"nothing")


@row("train_stn", "--resume ended", f"ended/checkpoints.json {JSON}")
def damaged_hashes() -> None:
    Path("ended/checkpoints.json").write_text('{"sha256": ["12')


@row("train_stn", "--resume ended", "--resume (ended) must hold a sound checkpoint; all are damaged")
def hashes_of_the_wrong_kind() -> None:
    Path("ended/checkpoints.json").write_text('{"sha256": 7}')


@row("train_stn", "--resume ended", f"ended/last.pt {NO_CODE}")
def a_checkpoint_that_would_run_code() -> None:
    sealed("last.pt", lambda state: state.update(note=Bomb(Path("boom"))))


@row("train_stn", "--resume ended", "ended/last.pt must be a whole torch file; it cannot be read")
def a_checkpoint_cut_off_before_it_was_hashed() -> None:
    path = Path("ended/last.pt")
    path.write_bytes(path.read_bytes()[:-500])
    Path("ended/checkpoints.json").write_text(json.dumps({"sha256": [digest(path)]}))


@row("train_stn", "--resume ended", OTHER_RUN)
def a_checkpoint_of_another_network() -> None:
    sealed("last.pt", lambda state: state.update(model=network().state_dict()))


@row("train_stn", "--resume ended", OTHER_RUN)
def a_checkpoint_of_another_optimizer() -> None:
    sealed("last.pt", lambda state: state["optimizers"].pop())


@row("train_stn", "--resume ended", OTHER_RUN)
def a_checkpoint_with_less_in_it() -> None:
    sealed("last.pt", lambda state: state.pop("generator"))


@row("train_stn", "--resume ended", OTHER_RUN)
def a_checkpoint_of_another_kind() -> None:
    sealed("last.pt", lambda state: state.update(rng=[1, 2], rows=7))


@row("train_stn", "--resume ended", "--resume (ended) must be a run of this version of the kit (...); its checkpoint "
     "is of version 0")  # fmt: skip
def a_checkpoint_of_another_version() -> None:
    sealed("last.pt", lambda state: state.update(version=0))


@row("train_stn", "--resume ended", "ended/last.pt must be a checkpoint; it is another torch file")
def a_checkpoint_that_is_a_tensor() -> None:
    path = Path("ended/last.pt")
    torch.save(torch.ones(3), path)
    Path("ended/checkpoints.json").write_text(json.dumps({"sha256": [digest(path)]}))


# weights


def spoiled(name: str, **arrays: Any) -> None:
    """Write Google's small file with some arrays in the place of others."""
    np.savez(name, **{key: value.numpy() for key, value in google().items()} | arrays)


@row("train_vit", "--weights other.npz --recipe b16", "other.npz must hold the weights of the model (dim 24); it has "
     "dim 12")  # fmt: skip
def weights_of_another_width() -> None:
    other = network(3, patch_size=16, dim=12, num_heads=2, mlp_dim=32)
    write_arrays(Path("other.npz"), to_family(other.state_dict(), "google", 2))


@row("convert", "page.npz new.pt", "page.npz must be a whole .npz archive; it is not a zip file, or was cut off")
def a_page_instead_of_the_file() -> None:
    Path("page.npz").write_text("<html>")


@row("convert", "pipe.npz new.pt", "pipe.npz must be a file of weights; it is not there")
def a_pipe_as_weights() -> None:
    os.mkfifo("pipe.npz")


@row("convert", "bomb.pt new.pt", f"bomb.pt {NO_CODE}")
@row("train_vit", "--weights bomb.pt", f"bomb.pt {NO_CODE}")
def weights_that_would_run_code() -> None:
    torch.save({"model": Bomb(Path("boom"))}, "bomb.pt")


@row("convert", "bad.npz new.pt", "bad.npz: cls must be numbers; it is a pickle, which could run code")
def an_array_that_would_run_code() -> None:
    np.savez("bad.npz", cls=np.array([Bomb(Path("boom"))], dtype=object))


@row("convert", "bad.npz new.pt", "bad.npz: cls (1, 1, 12) must be finite; nan or infinity is among its numbers")
@row("train_vit", "--weights bad.npz", "bad.npz: cls (1, 1, 12) must be finite; nan or infinity is among its numbers")
def weights_that_are_no_numbers() -> None:
    spoiled("bad.npz", cls=np.full((1, 1, 12), np.nan, dtype=np.float32))


@row("convert", "bad.npz new.pt", "bad.npz: cls (1, 1, 12) must be floating-point numbers of 16 to 64 bits, not "
     "torch.int64")  # fmt: skip
def whole_numbers() -> None:
    spoiled("bad.npz", cls=np.ones((1, 1, 12), dtype=np.int64))


@row("convert", "bad.npz new.pt", "bad.npz must hold a Vision Transformer and nothing else; unknown are ../../boom")
def a_name_that_is_a_path() -> None:
    spoiled("bad.npz", **{"../../boom": np.ones(3, dtype=np.float32)})


@row("convert", "bad.pt new.pt", r"bad.pt must hold a Vision Transformer and nothing else; unknown are a\nb")
def a_name_of_two_lines() -> None:
    torch.save({**network().state_dict(), "a\nb": torch.ones(3)}, "bad.pt")


@row("convert", "bad.pt new.npz", "bad.pt: head.bias (7,) must be floating-point numbers of 16 to 64 bits, not "
     "torch.float8_e4m3fn")  # fmt: skip
def numbers_of_eight_bits() -> None:
    state = network().state_dict()
    torch.save({**state, "head.bias": state["head.bias"].to(torch.float8_e4m3fn)}, "bad.pt")


@row("convert", "bad.pt new.pt", "bad.pt: head.bias (1000000000000,) must have all its numbers in the file")
def a_trillion_times_the_same_number() -> None:
    torch.save({**network().state_dict(), "head.bias": torch.ones(1).expand(10**12)}, "bad.pt")


@row("convert", "bad.npz new.pt", "bad.npz must unpack to at most 67,108,864 bytes; it would fill 70,000,000")
@row("convert", "bad.pt new.pt", "bad.pt must unpack to at most 67,108,864 bytes; it would fill 70,000,000")
def files_that_unpack_to_a_thousand_times_their_size() -> None:
    with zipfile.ZipFile("bad.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("bad/data/0", bytes(70_000_000))
    os.link("bad.npz", "bad.pt")


@row("convert", "bad.npz new.pt", "bad.npz must hold cls once; it is there twice")
def an_array_that_is_there_twice() -> None:
    with zipfile.ZipFile("vit.npz") as source, zipfile.ZipFile("bad.npz", "w") as archive:
        for name in ("cls.npy", "cls"):
            archive.writestr(name, source.read("cls.npy"))


@row("convert", "bad.safetensors new.pt", "bad.safetensors must be a whole .safetensors file; it cannot be read")
def a_header_longer_than_the_file() -> None:
    write_arrays(Path("good.safetensors"), google())
    Path("bad.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + Path("good.safetensors").read_bytes()[8:])


@row("convert", "in21k.npz new.pt", "in21k.npz must have the head right behind the encoder; pre_logits/kernel, "
     "pre_logits/bias lie between: --no-head")  # fmt: skip
def a_layer_that_the_network_lacks() -> None:
    with_pre_logits(Path("in21k.npz"), 21)


@row("convert", "vit.pth new.npz --family google", "--num-heads must be given: vit.pth does not say it, and no preset "
     "is 12 wide")  # fmt: skip
@row("convert", "vit.pth new.npz --family google --num-heads 5", "--num-heads (5) must divide 12, the width of vit.pth")
def weights_that_do_not_say_their_heads() -> None:
    write_arrays(Path("vit.pth"), to_family(network().state_dict(), "timm", 3))


# reports


@row("report", "finished", f"finished/summary.json {JSON}")
def a_summary_that_is_no_object() -> None:
    Path("finished/summary.json").write_text("[1, 2]")


@row("report", "finished", "run folder (finished) must be that of a finished run; what its files hold cannot be drawn "
     "(KeyError: 'seed')")  # fmt: skip
def a_summary_with_less_in_it() -> None:
    edited("finished/summary.json", lambda content: content.pop("seed"))


@row("report", "finished", "run folder (finished) must be that of a finished run; what its files hold cannot be drawn "
     "(IndexError: ...)")  # fmt: skip
def metrics_without_rows() -> None:
    Path("finished/metrics.csv").write_text("epoch,loss\n")


@row("report", "finished", "finished/metrics.csv must hold rows of numbers below their names; it is damaged")
def metrics_cut_off() -> None:
    path = Path("finished/metrics.csv")
    path.write_text(path.read_text()[:-30])


@row("report", "finished", f"finished/findings.pt {NO_CODE}")
def findings_that_would_run_code() -> None:
    torch.save({"classes": Bomb(Path("boom"))}, "finished/findings.pt")
