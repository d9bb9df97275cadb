"""A row for every mistake at the command line: the command, the message, and what is done to the files before.

``test_bad_inputs.py`` runs every row in a copy of one small folder. What components refuse is in ``cases.py``. In a
message ``...`` stands for the words of another library.
"""

import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
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
from tests.support.trees import CLASSES


class Row(NamedTuple):
    """A command, the line on standard error after ``<program>: error: ``, and what is done to the files before."""

    program: str
    arguments: str
    message: str
    name: str = ""
    spoil: Callable[[], object] = lambda: None

    def __str__(self) -> str:
        return " ".join((self.program, self.arguments, self.name)).replace("/", "|").replace("\n", "|")


WHOLE = "must be a whole number from {} to 2147483647"
ONE_UP, ZERO_UP, ABOVE_ZERO = WHOLE.format(1), WHOLE.format(0), "must be a number above 0"
DEVICE = "must be auto or an available device, such as cpu"
SOURCE = "must be auto, cifar10, digits, cluttered or a folder with train/ and test/"
TAKEN = "must be a new or empty folder; it exists already"
JSON = "must be a JSON object; it is damaged or another file"
NO_CODE = "must hold only tensors and plain values; loading it would run code"
NO_LENGTH = "must be left out with --find-lr, which makes 300 steps and evaluates nothing"
FINISHED = "run folder ({}) must hold a finished run;"

PROGRAMS = ("train_stn", "train_vit", "convert", "export", "report", "annotate")
stn, vit, convert, export, report, annotate = (partial(Row, program) for program in PROGRAMS)

FLAGS = [
    stn("--recipe tuend", "--recipe (tuend) must be one of tutorial, tuned, small, strong, zoom"),
    stn("--epochs 0", f"--epochs (0) {ONE_UP}"),
    stn("--epochs many", f"--epochs (many) {ONE_UP}"),
    stn("--epochs 2.5", f"--epochs (2.5) {ONE_UP}"),
    stn("--epochs 99999999999", f"--epochs (99999999999) {ONE_UP}"),
    stn("--epochs", "--epochs: expected one argument"),
    stn("--epoch 3", "unrecognized arguments: --epoch 3"),
    stn("--epochs 3 --steps 9", "--steps (9) and --epochs (3) cannot both be given"),
    stn("--seed -1", f"--seed (-1) {ZERO_UP}"),
    stn("--batch-size 1e3", f"--batch-size (1e3) {ONE_UP}"),
    stn("--at-once 0", f"--at-once (0) {ONE_UP}"),
    stn("--limit-train 0", f"--limit-train (0) {ONE_UP}"),
    stn("--limit-test -5", f"--limit-test (-5) {ONE_UP}"),
    stn("--lr 0", f"--lr (0) {ABOVE_ZERO}"),
    stn("--lr nan", f"--lr (nan) {ABOVE_ZERO}"),
    stn("--lr inf", f"--lr (inf) {ABOVE_ZERO}"),
    stn("--save-minutes 0", f"--save-minutes (0) {ABOVE_ZERO}"),
    stn("--validation 1.5", "--validation (1.5) must be a number between 0 and 1"),
    stn("--validation some", f"--validation (some) {ABOVE_ZERO}"),
    stn("--validation 0.1 --limit-train 1", "--validation (0.1) must leave images in both parts; no class has two"),
    stn("--pose rts --tta turns", "--tta (turns) must be none or mirror with --pose rts, which has no fixed turns"),
    stn("--data digits --tta mirror", "--tta (mirror) must be none for digits, whose mirror images are other classes"),
    stn("--data cluttered:photos --pose c8",
        "--pose (c8) must be none for cluttered:tree:photos, whose objects have their own places"),
    stn("--find-lr --epochs 3", f"--epochs (3) {NO_LENGTH}"),
    stn("--find-lr --steps 9", f"--steps (9) {NO_LENGTH}"),
    vit("--find-lr --tta mirror", f"--tta (mirror) {NO_LENGTH}"),
    vit("--find-lr --limit-test 5", f"--limit-test (5) {NO_LENGTH}"),
    stn("--find-lr --save-minutes 3", f"--save-minutes (3.0) {NO_LENGTH}"),
    stn("--find-lr --tensorboard", "--tensorboard must be left out with --find-lr, which draws a plot of its own"),
    stn("--find-lr --out taken", f"--out (taken) {TAKEN}"),
    stn("--find-lr --find-lr=yes", "--find-lr: ignored explicit argument 'yes'"),
    stn("--resume ended --find-lr", "--resume (ended) takes no other flag; a run resumes with its own flags"),
    stn("--precision half", "--precision (half) must be one of ..."),
    stn("--precision float16 --device cpu", "--precision (float16) must be auto, float32 or bfloat16 on cpu"),
    stn("--device cuda:99", f"--device (cuda:99) {DEVICE}; ..."),
    stn("--device gpu", f"--device (gpu) {DEVICE}"),
    stn("--device meta", f"--device (meta) {DEVICE}; Tensor.item() cannot be called on meta tensors"),
    stn("--device hpu", f"--device (hpu) {DEVICE}; ..."),
    stn("--device ''", f"--device () {DEVICE}"),
    stn("--data ''", "--data () must be a path; it is empty"),
    stn("--resume '' --out ''", "--resume () must be a path; it is empty"),
    vit("--weights ''", "--weights () must be a path; it is empty"),
    stn("photos", "unrecognized arguments: photos"),
    stn("--out 'a\nb'", r"argument a\nb must be one line without control characters"),
    stn("--out taken", f"--out (taken) {TAKEN}"),
    stn("--out vit.npz", f"--out (vit.npz) {TAKEN}"),
    stn("--out vit.npz/run", "--out (vit.npz/run) must be a folder that can be created; Not a directory"),
    stn("--data nowhere", f"--data (nowhere) {SOURCE}"),
    vit("--data cluttered:nowhere", f"--data (nowhere) {SOURCE}"),
    stn("--data vit.npz", f"--data (vit.npz) {SOURCE}"),
    stn("--data photos/train",
        "--data (photos/train) must hold a folder train/ with one folder a class; it is missing"),
    stn("--data cifar10", "download of cifar-10-python.tar.gz failed: 127.0.0.1:... not reached (ConnectionError); "
        "127.0.0.1:... not reached (ConnectionError)"),
    stn("--resume auto", "--out (None) must be a folder with --resume auto, to start the run in or to go on in"),
    stn("--resume auto --out ended --data photos --device cpu --steps 5",
        "--steps (5) must be 1, as in the run that ended holds"),
    stn("--resume auto --out taken", "--out (taken) must be a new or empty folder; it exists already"),
    stn("--resume nowhere", "--resume (nowhere) must be a run folder; it has no config.json"),
    stn("--resume taken", "--resume (taken) must be a run folder; it has no config.json"),
    stn("--resume finished", "--resume (finished) must be an unfinished run; this one is finished: "
        "... -m scripts.report finished draws its report"),
    stn("--resume ended --epochs 5", "--resume (ended) takes no other flag; a run resumes with its own flags"),
    stn("--resume ended --recipe small", "--resume (ended) takes no other flag; a run resumes with its own flags"),
    stn("--resume ended-vit", "--resume (ended-vit) must hold flags of this script in config.json; "
        "--recipe (compact) must be one of tutorial, tuned, small, strong, zoom"),
    vit("--resume ended", "--resume (ended) must hold flags of this script in config.json; "
        "--recipe (small) must be one of compact, lite, b16, s14, s14-finetune, b16-finetune, b16-finetune-500"),
    vit("--recipe b17",
        "--recipe (b17) must be one of compact, lite, b16, s14, s14-finetune, b16-finetune, b16-finetune-500"),
    vit("--steps 0", f"--steps (0) {ONE_UP}"),
    vit("--no-transformer", "unrecognized arguments: --no-transformer"),
    vit("--recipe b16-finetune", "--weights (None) must be a file of pretrained weights for recipe b16-finetune"),
    vit("--weights nowhere.npz", "nowhere.npz must be a file of weights; it does not exist"),
    vit("--weights taken", "taken must end in one of .npz, .safetensors, .pt, .pth, .bin, .ckpt, .tar"),
    vit("--weights ended/last.pt", "ended/last.pt must hold a Vision Transformer of a known family; it holds "
        "..., model/features.stem.weight, ..."),
    vit("--recipe lite --weights vit.npz",
        "vit.npz must hold the weights of the model (patch_size 4, dim 24, mlp_dim 32, "
        "num_heads 2); it has patch_size 8, dim 12, mlp_dim 20, num_heads 3"),
    convert("vit.npz", "the following arguments are required: TARGET"),
    convert("vit.npz new.pt --family keras", "--family (keras) must be one of kit, google, ..."),
    convert("vit.npz new.pt --family dinov2",
            "family (dinov2) must be another one to write: it has LayerScale, which reading folds into the layers "
            "before it, and which cannot be recovered from them"),
    convert("vit.npz new.pt --num-heads 0", f"--num-heads (0) {ONE_UP}"),
    convert("vit.npz new.npz --family google --num-heads 4",
            "--num-heads (4) must be 3, as in vit.npz, or be left out"),
    convert("vit.npz new.h5", "new.h5 must end in one of .npz, .safetensors, .pt, .pth, .bin, .ckpt, .tar"),
    convert("vit.npz vit.npz", "target (vit.npz) must be a new file; it exists already"),
    convert("vit.npz taken/last.pt/new.pt", "cannot write taken/last.pt/new.pt: Not a directory"),
    convert("nowhere.npz new.pt", "nowhere.npz must be a file of weights; it does not exist"),
    export("''", "RUN () must be a path; it is empty"),
    export("", "the following arguments are required: RUN"),
    export("finished --format tflite", "--format (tflite) must be one of onnx, pt2"),
    export("finished --checkpoint 7", "--checkpoint (7) must be one of auto, best, last"),
    export("nowhere", "RUN (nowhere) must be a run folder; it has no config.json"),
    export("taken", "RUN (taken) must be a run folder; it has no config.json"),
    export("vit.npz", "RUN (vit.npz) must be a run folder; it has no config.json"),
    export("finished --out model.pt2", "--out (model.pt2) must end in .onnx with --format onnx"),
    export("finished --format pt2 --out vit.npz/model.pt2", "cannot write vit.npz/model.pt2: Not a directory"),
    report("", "the following arguments are required: FOLDER"),
    report("nowhere", f"{FINISHED.format('nowhere')} config.json is missing"),
    report("ended", f"{FINISHED.format('ended')} summary.json is missing"),
]  # fmt: skip


def swapped(one: Path, other: Path) -> None:
    """Let each file have the name of the other."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def cut(path: str | Path, end: int) -> None:
    """Truncate a file."""
    Path(path).write_bytes(Path(path).read_bytes()[:end])


# images

PHOTOS, DOG = Path("photos"), Path("photos/train/dog/1.png")
UNREADABLE = f"{DOG} must be an image; it cannot be decoded (...)"
NOT_A_FILE = f"{DOG} must be a regular file"
OTHER_SIZE = f"{DOG} ({{}} pixels) must be 32x32 like train/cat/0.png; all images must have the same size"


def lying_png(width: int, height: int) -> bytes:
    """A small grey image whose header declares another size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks.items())


def truncated_jpeg() -> None:
    Image.open(DOG).save(DOG, "JPEG")
    cut(DOG, -300)


def resize_all(size: tuple[int, int]) -> None:
    for path in PHOTOS.rglob("*.png"):
        Image.open(path).resize(size).save(path)


def rename(*names: str, to: str) -> None:
    """Rename folders of photos; ``{}`` in the new name stands for the old one."""
    for name in names:
        (PHOTOS / name).rename(PHOTOS / to.format(name.replace("/", "-")))


def no_class() -> None:
    rename("train", "test", to="{}ing")
    for split in ("train", "test"):
        (PHOTOS / split).mkdir()


def replaced(make: Callable[[], object]) -> Callable[[], None]:
    """Remove the image of a dog, and make something else in its place."""

    def spoil() -> None:
        DOG.unlink()
        make()

    return spoil


photos = partial(stn, "--data photos")
IMAGES = [
    photos(UNREADABLE, "truncated PNG", lambda: cut(DOG, 200)),
    photos(UNREADABLE, "truncated JPEG", truncated_jpeg),
    photos(UNREADABLE, "text", lambda: DOG.write_text("not an image")),
    photos(UNREADABLE, "a format that Pillow hands to a program",
           lambda: DOG.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(w) file\n")),
    photos(UNREADABLE, "no pixels", lambda: DOG.write_bytes(lying_png(0, 0))),
    photos(UNREADABLE, "a header of billions of pixels", lambda: DOG.write_bytes(lying_png(100_000, 100_000))),
    photos(OTHER_SIZE.format("9000x9000"), "a header of many pixels", lambda: DOG.write_bytes(lying_png(9000, 9000))),
    photos(OTHER_SIZE.format("16x24"), "another size", lambda: Image.open(DOG).resize((16, 24)).save(DOG)),
    photos(f"{DOG} (mode I;16) must be grey, RGB, CMYK or palette, with at most 8 bits a channel", "16 bits",
           lambda: Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16)).save(DOG)),
    photos(NOT_A_FILE, "a pipe", replaced(lambda: os.mkfifo(DOG))),
    photos(NOT_A_FILE, "a folder", replaced(DOG.mkdir)),
    photos(NOT_A_FILE, "an endless device", replaced(lambda: DOG.symlink_to("/dev/zero"))),
    photos("photos/test/dog/more must be an image; a class has no folders in its own", "a folder in a class",
           lambda: Path("photos/test/dog/more").mkdir()),
    photos("--data (photos) must hold images of at least 17x17 pixels", "tiny", lambda: resize_all((16, 32))),
    vit("--recipe compact", "--data (photos) must hold images of more than 2 pixels a side for recipe compact, which "
        "shifts them by up to 2", "as large as their shift", lambda: resize_all((2, 8))),
    vit("--recipe compact", "--data (photos) must hold images of more than 8x8 pixels for recipe compact",
        "one cell behind the convolutions", lambda: resize_all((8, 8))),
    stn("--data photos --recipe tuned", "--data (photos) must hold images of at least 16x16 pixels", "small",
        lambda: resize_all((15, 32))),
    vit("--recipe b16", "--data (photos) must hold images whose sides are multiples of 16 pixels for recipe b16",
        "36 pixels", lambda: resize_all((36, 36))),
    photos("--data (photos) must hold a folder train/ with one folder a class; it is missing", "a missing split",
           lambda: rename("train", to="training")),
    photos("photos/test/newt must also exist in train/; both splits need the same classes", "a class in one split",
           lambda: rename("train/newt", to="train/toad")),
    photos("photos/test/dog must hold images, such as .png or .jpg; there is none", "an empty class",
           lambda: rename("test/dog/0.png", to="test/dog/0.txt")),
    photos("--data (photos) must hold at least two classes; there are 0", "no class", no_class),
    photos("--data (photos) must hold at least two classes; there are 1", "one class",
           lambda: rename("train/dog", "train/newt", "test/dog", "test/newt", to="{}")),
    photos(r"photos/train/\x1b[2J must have a name without control characters", "a name that clears the screen",
           lambda: [rename(f"{split}/dog", to=f"{split}/\x1b[2J") for split in ("train", "test")]),
]  # fmt: skip


# CIFAR-10


def made(path: str, content: bytes) -> None:
    Path(path).parent.mkdir(parents=True)
    Path(path).write_bytes(content)


BATCHES = f"data/{FOLDER}"
cifar10 = partial(stn, "--data cifar10")
CIFAR10 = [
    cifar10(f"CIFAR10_DIR (taken) must hold {ARCHIVE} or {FOLDER}/", "a named folder without it",
            lambda: os.environ.update(CIFAR10_DIR="taken")),
    cifar10(f"data/{ARCHIVE} must have the MD5 {ARCHIVE_MD5}; it is damaged or another file", "a damaged archive",
            lambda: made(f"data/{ARCHIVE}", b"\x1f\x8b and no more")),
    cifar10(f"{BATCHES} must hold the official batches of CIFAR-10; data_batch_1 is missing or damaged",
            "a batch that would run code",
            lambda: made(f"{BATCHES}/data_batch_1", pickle.dumps(Bomb(Path("boom"))))),
]  # fmt: skip


# resuming

LAST = Path("ended/last.pt")
IN_USE: list[RunFolder] = []


def seal() -> None:
    """Write the right hash of a changed checkpoint."""
    Path("ended/checkpoints.json").write_text(json.dumps({"sha256": [digest(LAST)]}))


def sealed(change: Callable[[dict[str, Any]], object]) -> None:
    """Change the checkpoint of the unfinished run, and its hash with it."""
    state = torch.load(LAST, weights_only=True)
    change(state)
    torch.save(state, LAST)
    seal()


def edited(path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))


def one_image_less() -> None:
    os.link(DOG, "dog.png")
    DOG.unlink()


CONFIG, HASHES = "ended/config.json", Path("ended/checkpoints.json")
OTHER_RUN = "--resume (ended) must hold a checkpoint of this run; it belongs to another"
OTHER_SCRIPT = "--resume (ended) must hold flags of this script in config.json;"
DAMAGED = "--resume (ended) must hold an undamaged checkpoint; all are damaged"
resume = partial(stn, "--resume ended")
RESUMING = [
    resume("run folder (ended) must not be in use; another process is writing to it", "in use",
           lambda: IN_USE.append(RunFolder(Path("ended")))),
    resume(f"{CONFIG} {JSON}", "truncated flags", lambda: cut(CONFIG, 100)),
    resume(f"{CONFIG} {JSON}", "flags nested without end", lambda: Path(CONFIG).write_text("[" * 100_000)),
    resume(f"{CONFIG} {JSON}", "flags that are no text", lambda: Path(CONFIG).write_bytes(b"\xff\xfe\x00")),
    resume(f"{OTHER_SCRIPT} --epochs (many) {ONE_UP}", "a flag of the wrong type",
           lambda: edited(CONFIG, lambda content: content["asked"].update(epochs="many"))),
    resume(f"{OTHER_SCRIPT} unrecognized arguments: --depth=7", "an unknown flag",
           lambda: edited(CONFIG, lambda content: content["asked"].update(depth=7))),
    resume(f"{CONFIG} must hold the objects asked and resolved; it is damaged", "no flags",
           lambda: edited(CONFIG, lambda content: content.pop("asked"))),
    resume("--resume (ended) must keep the same lr; it was 0.5 and is now 0.08", "another recipe",
           lambda: edited(CONFIG, lambda content: content["resolved"].update(lr=0.5))),
    resume("--resume (ended) must keep the same images; it was ... and is now ...", "two images in each other's class",
           lambda: swapped(*(next(Path(f"photos/train/{name}").iterdir()) for name in CLASSES[:2]))),
    resume("--resume (ended) must keep the same images; it was ... and is now ...", "other test images",
           lambda: swapped(*(next(Path(f"photos/test/{name}").iterdir()) for name in CLASSES[:2]))),
    resume("--resume (ended) must keep the same normalise; it was {...} and is now {...}", "other images",
           one_image_less),
    resume(DAMAGED, "every checkpoint damaged", lambda: LAST.write_bytes(b"nothing")),
    resume(DAMAGED, "hashes of the wrong type", lambda: HASHES.write_text('{"sha256": 7}')),
    resume(f"{HASHES} {JSON}", "damaged hashes", lambda: HASHES.write_text('{"sha256": ["12')),
    resume(f"{LAST} {NO_CODE}", "a checkpoint that would run code",
           lambda: sealed(lambda state: state.update(note=Bomb(Path("boom"))))),
    resume(f"{LAST} must be a complete torch file; it cannot be read", "truncated before it was hashed",
           lambda: [cut(LAST, -500), seal()]),
    resume(f"{LAST} must be a checkpoint; it is another torch file", "a tensor",
           lambda: [torch.save(torch.ones(3), LAST), seal()]),
    resume(OTHER_RUN, "another network", lambda: sealed(lambda state: state.update(model=network().state_dict()))),
    resume(OTHER_RUN, "another optimizer", lambda: sealed(lambda state: state["optimizers"].pop())),
    resume(OTHER_RUN, "a checkpoint of another run", lambda: sealed(lambda state: state.update(seed=9))),
    resume(OTHER_RUN, "a length of the log that is none", lambda: sealed(lambda state: state.update(log_size="x"))),
    resume(OTHER_RUN, "no length of the log", lambda: sealed(lambda state: state.pop("log_size"))),
    resume(OTHER_RUN, "a missing generator", lambda: sealed(lambda state: state.pop("generator"))),
    resume(OTHER_RUN, "values of other types", lambda: sealed(lambda state: state.update(rng=[1, 2], rows=7))),
    resume("--resume (ended) must hold a checkpoint of version ..., as this kit writes; its version is 1",
           "the first version", lambda: sealed(lambda state: state.pop("version"))),
]  # fmt: skip


# weights


def spoiled(**arrays: Any) -> None:
    """Write a small file of Google's to bad.npz, with some arrays replaced or added."""
    np.savez("bad.npz", **{key: value.numpy() for key, value in google().items()} | arrays)


def saved(**arrays: Any) -> None:
    """Write the state of a network to bad.pt, with some arrays replaced or added."""
    torch.save({**network().state_dict(), **arrays}, "bad.pt")


def other_width() -> None:
    other = network(3, patch_size=16, dim=12, num_heads=2, mlp_dim=32)
    write_arrays(Path("other.npz"), to_family(other.state_dict(), "google", 2))


def bomb() -> None:
    torch.save({"model": Bomb(Path("boom"))}, "bomb.pt")


def not_a_number() -> None:
    spoiled(cls=np.full((1, 1, 12), np.nan, dtype=np.float32))


def zip_bomb() -> None:
    with zipfile.ZipFile("bad.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("bad/data/0", bytes(70_000_000))
    os.link("bad.npz", "bad.pt")


def one_array_twice() -> None:
    with zipfile.ZipFile("vit.npz") as source, zipfile.ZipFile("bad.npz", "w") as archive:
        for name in ("cls.npy", "cls"):
            archive.writestr(name, source.read("cls.npy"))


def rows_of_several_lengths() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what this class of tensors may become
        saved(**{"head.bias": torch.nested.nested_tensor([torch.ones(3), torch.ones(4)])})


def header_longer_than_the_file() -> None:
    write_arrays(Path("good.safetensors"), google())
    Path("bad.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + Path("good.safetensors").read_bytes()[8:])


def without_heads() -> None:
    write_arrays(Path("vit.pth"), to_family(network().state_dict(), "timm", 3))


NAN = "bad.npz: cls (1, 1, 12) must be finite; it contains nan or infinity"
EXPLODES = "must unpack to at most 67,108,864 bytes; it declares 70,000,000"
TYPES = "must be floating-point numbers of 16 to 64 bits, not"
npz, pt = partial(convert, "bad.npz new.pt"), partial(convert, "bad.pt new.pt")
WEIGHTS = [
    vit("--weights other.npz --recipe b16", "other.npz must hold the weights of the model (dim 24); it has dim 12",
        "another width", other_width),
    npz("bad.npz must be a complete .npz archive; it is truncated or not a zip file", "a web page",
        lambda: Path("bad.npz").write_text("<html>")),
    npz("bad.npz must be a file of weights; it does not exist", "no file"),
    npz("bad.npz must be a file of weights; it is a folder", "a folder", Path("bad.npz").mkdir),
    npz("bad.npz must be a file of weights; it is a pipe or a device", "a pipe", lambda: os.mkfifo("bad.npz")),
    convert("bomb.pt new.pt", f"bomb.pt {NO_CODE}", "would run code", bomb),
    vit("--weights bomb.pt", f"bomb.pt {NO_CODE}", "would run code", bomb),
    npz("bad.npz: cls must be numbers; it is a pickle, which could run code", "an array that would run code",
        lambda: np.savez("bad.npz", cls=np.array([Bomb(Path("boom"))], dtype=object))),
    npz(NAN, "not a number", not_a_number),
    vit("--weights bad.npz", NAN, "not a number", not_a_number),
    npz(f"bad.npz: cls (1, 1, 12) {TYPES} torch.int64", "whole numbers",
        lambda: spoiled(cls=np.ones((1, 1, 12), dtype=np.int64))),
    pt(f"bad.pt: head.bias (7,) {TYPES} torch.float8_e4m3fn", "numbers of eight bits",
       lambda: saved(**{"head.bias": torch.ones(7, dtype=torch.float8_e4m3fn)})),
    npz("bad.npz must hold only a Vision Transformer; unknown names: ../../boom", "a name that is a path",
        lambda: spoiled(**{"../../boom": np.ones(3, dtype=np.float32)})),
    pt(r"bad.pt must hold only a Vision Transformer; unknown names: a\nb", "a name of two lines",
       lambda: saved(**{"a\nb": torch.ones(3)})),
    pt("bad.pt: head.bias (1000000000000,) must be stored completely in the file", "one number a trillion times",
       lambda: saved(**{"head.bias": torch.ones(1).expand(10**12)})),
    pt("bad.pt: head.bias must be stored completely in the file", "rows of several lengths",
       rows_of_several_lengths),
    npz(f"bad.npz {EXPLODES}", "unpacks to a thousand times its size", zip_bomb),
    pt(f"bad.pt {EXPLODES}", "unpacks to a thousand times its size", zip_bomb),
    npz("bad.npz must hold cls once; it holds it twice", "an array twice", one_array_twice),
    convert("bad.safetensors new.pt", "bad.safetensors must be a complete .safetensors file; it cannot be read",
            "a header longer than the file", header_longer_than_the_file),
    convert("in21k.npz new.pt", "in21k.npz must have no layer between encoder and head; it has pre_logits/kernel, "
            "pre_logits/bias: use --no-head", "pre_logits", lambda: with_pre_logits(Path("in21k.npz"), 21)),
    convert("vit.pth new.npz --family google", "--num-heads must be given: vit.pth does not store it, no preset has "
            "width 12", "without heads", without_heads),
    convert("vit.pth new.npz --family google --num-heads 5",
            "--num-heads (5) must divide 12, the width of vit.pth", "without heads", without_heads),
]  # fmt: skip


# exports

OTHER_NETWORK = "ended/last.pt must hold a network of this kit; it holds something else"
exports = partial(export, "ended --format pt2")
EXPORTS = [
    exports("--out (ended/model.pt2) must be a new file; it exists already", "a second time",
            lambda: Path("ended/model.pt2").write_text("precious")),
    exports("RUN (ended) must hold last.pt; it is missing", "before the first checkpoint", LAST.unlink),
    exports(f"{CONFIG} {JSON}", "truncated flags", lambda: cut(CONFIG, 100)),
    exports(f"{LAST} {NO_CODE}", "a checkpoint that would run code",
            lambda: torch.save({"model": Bomb(Path("boom"))}, LAST)),
    exports(f"{LAST} must be a complete torch file; it cannot be read", "a truncated checkpoint",
            lambda: cut(LAST, -500)),
    exports(OTHER_NETWORK, "a tensor", lambda: torch.save(torch.ones(3), LAST)),
    exports(OTHER_NETWORK, "weights alone", lambda: torch.save(network().state_dict(), LAST)),
    exports(OTHER_NETWORK, "another network", lambda: sealed(lambda state: state.update(model=network().state_dict()))),
    exports(OTHER_NETWORK, "classes of another number",
            lambda: sealed(lambda state: state.update(classes=("cat", "dog")))),
]  # fmt: skip


# reports

finished = partial(report, "finished")
UNDRAWABLE = f"{FINISHED.format('finished')} its files cannot be drawn"
REPORTS = [
    finished(f"finished/summary.json {JSON}", "a list", lambda: Path("finished/summary.json").write_text("[1, 2]")),
    finished(f"{UNDRAWABLE} (KeyError: 'seed')", "a summary without seed",
             lambda: edited("finished/summary.json", lambda content: content.pop("seed"))),
    finished("finished/metrics.csv must hold rows of numbers below the names of the columns; it is damaged",
             "metrics without rows", lambda: Path("finished/metrics.csv").write_text("epoch,loss\n")),
    finished("finished/metrics.csv must hold rows of numbers below the names of the columns; it is damaged",
             "truncated metrics", lambda: cut("finished/metrics.csv", -30)),
    finished(f"finished/findings.pt {NO_CODE}", "findings that would run code",
             lambda: torch.save({"classes": Bomb(Path("boom"))}, "finished/findings.pt")),
]  # fmt: skip


# annotated scenes

ANNOTATIONS = [
    annotate("--count 0", f"--count (0) {ONE_UP}"),
    annotate("--data cluttered:photos --out taken", f"--out (taken) {TAKEN}"),
    annotate("--data photos", "--data (photos) must be cluttered, such as cluttered:digits, to have boxes"),
    annotate("--run finished",
             "--run (finished) must be of data that are cluttered, such as cluttered:digits, to have boxes"),
    annotate("--data cluttered:photos --out vit.npz/new",
             "--out (vit.npz/new) must be a folder that can be created; File exists"),
    annotate("--data cluttered:photos --run finished",
             "--data (cluttered:photos) must be left out with --run, whose data are drawn"),
    annotate("--run nowhere", "--run (nowhere) must be a run folder; it has no config.json"),
    annotate("--run ended-vit", "--run (ended-vit) must hold flags of this script in config.json; ..."),
    annotate("--run finished", "--run (finished) must have a transformer; it was trained with --no-transformer",
             "without transformer",
             lambda: edited("finished/config.json", lambda content: content["asked"].update(no_transformer=True))),
]  # fmt: skip

ROWS = [*FLAGS, *IMAGES, *CIFAR10, *RESUMING, *WEIGHTS, *EXPORTS, *REPORTS, *ANNOTATIONS]
