"""The report of a finished run: figures and report.html, drawn from the run folder."""

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from scripts.models.vit import few_patches_warning
from scripts.run import figures, heat_maps
from scripts.run.folder import read_metrics
from scripts.run.theta import LEAST_SPREAD, collapse_warning, idle_warning
from scripts.system.errors import InputError
from scripts.system.files import read_json, read_torch, write_bytes
from scripts.system.libraries import plain_figures

NEEDED = ("config.json", "environment.json", "summary.json", "metrics.csv", "train.log", "findings.pt")
LAST_EPOCHS = 10
OUTSIDE = {  # by the padding mode of the transformer
    "zeros": ", which is zero, the mean of the normalisation, outside the frame",
    "border": ", which repeats the pixels at the border outside the frame",
    "reflection": ", which mirrors the image outside the frame",
    "mean": ", which has the mean colour of the image outside the frame",
}


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report with its title and caption."""

    name: str
    title: str
    caption: str
    content: bytes

    @property
    def png(self) -> str:
        """The content as base64, for the page."""
        return base64.b64encode(self.content).decode()


def write_report(folder: Path) -> Path:
    """Draw every figure and report.html, and return the page.

    Raises:
        InputError: If the folder does not hold a finished run; then nothing in it is changed.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise InputError(f"run folder ({folder}) must hold a finished run; {name} is missing")
    config, environment, summary = (read_json(folder / name) for name in NEEDED[:3])
    rows, found = read_metrics(folder), read_torch(folder / "findings.pt")
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("report.html")
    try:
        with plain_figures():
            drawn = _figures(config["resolved"], rows, found)
        text = page.render(
            title=f"Recipe {summary['recipe']} on {summary['dataset']}, seed {summary['seed']}",
            notices=_notices(config, environment, rows, found),
            numbers=_numbers(summary),
            selection=_selection(config),
            figures=drawn,
            log=_last_epochs((folder / "train.log").read_text("utf-8")),
            facts=facts(config, environment),
        )
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # a file was changed
        why = f"its files cannot be drawn ({type(error).__name__}: {error})"
        raise InputError(f"run folder ({folder}) must hold a finished run; {why}") from error
    for figure in drawn:
        write_bytes(folder / f"{figure.name}.png", figure.content)
    write_bytes(folder / "report.html", text.encode())
    return folder / "report.html"


def _notices(
    config: dict[str, Any], environment: dict[str, Any], rows: figures.Rows, found: dict[str, Any]
) -> list[dict[str, str]]:
    resolved = config["resolved"]
    allowed = found.get("outside_allowed", 0.0)  # earlier versions did not say
    warnings = [collapse_warning(rows[-1], allowed)] if "theta_outside" in rows[-1] else []
    warnings += [idle_warning(rows[-1], *resolved["image_size"])] if "theta_spread" in rows[-1] else []
    if "patches" in resolved:
        convolutions = bool(resolved["network"].get("stem"))
        warnings.append(few_patches_warning(resolved["patches"], resolved["image_size"], convolutions=convolutions))
    notices = [("Notice", environment["notice"]), *(("Warning", warning) for warning in warnings)]
    return [{"word": word, "text": text} for word, text in notices if text]


def _numbers(summary: dict[str, Any]) -> list[tuple[str, str]]:
    peak = summary.get("peak_memory_mib")  # earlier versions did not measure it; 0 on Windows
    theta = {"theta_spread": "spread of theta in pixels", "pose_correlation": "correlation of pose and theta"}
    trained = summary["train_accuracy"]
    tta = summary.get("tta", "none")  # earlier versions had none
    alone = summary.get("test_accuracy_without_tta")
    return [
        ("test accuracy, last epoch", f"{summary['test_accuracy']:.2f} %"),
        ("test accuracy, best checkpoint", f"{summary['best_test_accuracy']:.2f} %"),
        *([] if tta == "none" else [("test-time augmentation", tta)]),
        *([] if alone is None else [("test accuracy, last epoch, without it", f"{alone:.2f} %")]),
        ("training accuracy, last epoch", "every step was skipped" if trained is None else f"{trained:.2f} %"),
        ("epochs", str(summary["epochs"])),
        ("parameters", f"{summary['parameters']:,}"),
        ("seconds", f"{summary['seconds']:,.0f}"),
        ("images a second in training", f"{summary['images_per_second']:,.0f}"),
        ("peak memory in MiB", f"{peak:,}" if peak else "not measured"),
        *((words, f"{summary[name]:.2f}") for name, words in theta.items() if name in summary),
    ]


def _selection(config: dict[str, Any]) -> str:
    if share := config["asked"]["validation"]:
        return (
            f"The best checkpoint was chosen on training images held out for it (--validation {share:g}); the test set "
            "was used only once, at the end. The figures show the best checkpoint."
        )
    return (
        "The best checkpoint was chosen by its test accuracy, so that number is optimistic; the one of the last epoch "
        "is not. The figures show the last epoch. To choose on held-out training images, use --validation 0.1."
    )


def _figures(resolved: dict[str, Any], rows: figures.Rows, found: dict[str, Any]) -> list[ReportFigure]:
    drawn: list[ReportFigure] = []

    def add(name: str, title: str, caption: str, draw: Callable[..., None], *data: object) -> None:
        file = io.BytesIO()
        draw(*data, file)
        drawn.append(ReportFigure(name, title, caption, file.getvalue()))

    held_out = "validation" if "validation_loss" in rows[0] else "test"
    parts = _parts_of_the_loss(resolved, "theta" in found)
    caption = f"Training set (during the epoch) and {held_out} set (after it)."
    caption += f" The training loss includes {' and '.join(parts)}." if parts else ""
    add("curves", "Curves", caption, figures.curves, rows, held_out)
    if "theta" in found:
        caption = (
            "Mean (line) and standard deviation (band) over the held-out images. A collapse shows here first: the "
            "scale crosses a dotted line, and the share outside the frame rises. Below the dotted line of the last "
            "panel the transformer does the same to every image."
        )
        least = LEAST_SPREAD * min(found["transformer_inputs"].shape[-2:])
        add("theta", "What the spatial transformer does", caption, figures.theta_curves, rows, least)
        outside = OUTSIDE.get(found.get("padding_mode", ""), "")  # runs of older versions did not say
        caption = (
            "Upper rows: test images with the sampled area outlined in red. Lower rows: the input of the classifier"
            f"{outside}."
        )
        add("transformer", "The spatial transformer at work", caption, figures.transformer, found)
    if "poses" in found:
        caption = (
            "Upper rows: an upright test image, and the image turned, scaled and shifted in eight known ways, with the "
            "sampled area outlined in red. Lower rows: the input of the classifier. Where the transformer undoes the "
            "pose, a lower row shows one image eight times."
        )
        add("poses", "The same image in eight poses", caption, figures.poses, found)
    if "angles" in found:
        caption = (
            "By how much a test image was turned, and by how much theta turns the sampled area: the larger a dot, the "
            "more images. A transformer that undoes the pose puts all on the dotted line or on a parallel of it; one "
            "that does the same to every image puts them on a level line."
        )
        title, correlation = "The angle taken out against the angle put in", found["numbers"]["pose_correlation"]
        add("angles", title, caption, figures.angles, found["angles"], correlation)
    if "cam_images" in found:
        caption = (
            "Test images, truth → prediction, and where a layer of the network speaks for the prediction: bright is "
            "much, each map on its own scale. "
        )
        if "cam_seen" in found:
            caption += (
                "Upper row: the image with the sampled area outlined in red. Lowest row: what the classifier sees, in "
                "grey, with the map over it. Middle row: the same map carried back to the image."
            )
        else:
            caption += "Lower row: the map over the image in grey."
        add("grad_cam", "Where the network sees the class (Grad-CAM)", caption, heat_maps.grad_cam, found)
    if "attention_images" in found:
        caption = (
            "Where the class token looks: bright is high attention. Rollout: through all layers, including the "
            "residual paths. Then the heads of the last layer, each on its own scale."
        )
        add("attention", "Attention", caption, heat_maps.attention, found)
    if "attention_layers" in found:
        caption = (
            "The same for every layer (row) and head (column), over the first of these images in grey, each map on "
            "its own scale and smoothed from patches to pixels."
        )
        add("heads", "Attention of all layers and heads", caption, heat_maps.attention_layers, found)
    many = len(found["classes"]) > figures.MOST_CLASSES
    title = "Confused classes" if many else "Confusion matrix"
    caption = "Test images: truth → prediction." if many else "Test images: truth by row, prediction by column."
    add("confusion", title, caption, figures.confusion, found["confusion"], found["classes"])
    counts = f"{len(found['wrong_images'])} of {found['wrong_total']}"
    caption = f"{counts} misclassified test images, drawn at random: truth → prediction, confidence."
    add("misclassified", "Misclassified test images", caption, figures.misclassified, found)
    return drawn


def _parts_of_the_loss(resolved: dict[str, Any], transformer: bool) -> list[str]:
    """What is minimised in training beside the cross entropy; earlier versions had nothing else, nor the settings."""
    network = resolved.get("network", {})
    told = "localization" in network and network.get("predicts", "angle") in ("angle", "pose")
    parts = {
        "label smoothing": resolved.get("label_smoothing"),
        "the loss of the predicted pose": transformer and told,
        "the prior of theta": transformer and network.get("prior"),
    }
    return [words for words, given in parts.items() if given]


def _last_epochs(log: str) -> str:
    starts = [match.start() for match in re.finditer(r"^Epoch \d+/\d+", log, re.MULTILINE)]
    return log[starts[-LAST_EPOCHS:][0] :].rstrip()


def facts(config: dict[str, Any], environment: dict[str, Any]) -> list[tuple[str, str]]:
    """List flags, plan and environment as names and values."""

    def plain(value: object) -> str:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)

    code = {name: "unknown" for name in ("commit", "uncommitted_changes") if environment.get(name) is None}
    merged = {**config["asked"], **config["resolved"], **environment, **code}
    return [(name.replace("_", " "), plain(value)) for name, value in merged.items() if value not in (None, "")]
