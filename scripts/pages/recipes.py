"""The recipes in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scripts.pages.markdown import table
from scripts.recipes import stn, vit
from scripts.subjects import stn as stn_subject
from scripts.subjects import vit as vit_subject
from scripts.training.plan import Recipe

RECIPES: dict[str, tuple[Mapping[str, Recipe], Mapping[str, Callable[..., Any]]]] = {
    "train-stn": (stn.RECIPES, stn_subject.OPTIMIZERS),
    "train-vit": (vit.RECIPES, vit_subject.OPTIMIZERS),
}


def _stages(stem: int, widths: Sequence[int]) -> str:
    return f"stem {stem} and stages {'-'.join(map(str, widths))}"


NETWORK: dict[str, Callable[[Any], str]] = {  # options of networks in words
    "preset": lambda name: f"preset `{name}`",
    "dropout": lambda share: f"dropout {share:g}",
    "patch_dropout": lambda share: f"{share:.0%} of the patches dropped",
    "stochastic_depth": lambda share: f"stochastic depth {share:g}",
    "stem": lambda width: f"stem {width}",
    "widths": lambda widths: f"stages {'-'.join(map(str, widths))}",
    "localization": lambda sizes: f"a localization of {_stages(*sizes)}",
    "places": lambda _: "which reads places too",
    "predicts": lambda what: f"and regresses the {what}",
    "output_size": lambda side: f"a crop of {side}x{side} pixels",
    "alone": lambda sizes: f"without transformer {_stages(*sizes)}",
}


def recipe_table(entry: str) -> str:
    """Return the recipes of an entry in Markdown, with a column for each."""
    recipes, optimizers = RECIPES[entry]
    columns = [described(recipe, optimizers[recipe.optimizer]) for recipe in recipes.values()]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return table(["", *(f"`{name}`" for name in recipes)], [row for row in rows if any(row[1:])])


def described(recipe: Recipe, optimizers: Callable[..., object]) -> dict[str, str]:
    """Return every setting of a recipe in words, by its name."""
    schedule, augment, mix = recipe.schedule, recipe.augment, recipe.mix
    rise = f"linear warm-up over {schedule.warm_up:.0%} of the steps, then " if schedule.warm_up else ""
    fall = {"constant": "constant", "linear": "linear to zero", "cosine": "cosine to zero"}[schedule.fall]
    changes = {
        "mirrored": augment.mirror,
        f"shifted by up to {augment.shift} pixels": augment.shift,
        f"random crops of at least {augment.crop or 0:.0%} of the area": augment.crop,
        f"turned, sheared and stretched, by up to {augment.geometry:.0%}": augment.geometry,
        f"brightness, contrast and saturation changed by up to {augment.colour:.0%}": augment.colour,
        f"a square of {augment.cutout} pixels cut out": augment.cutout,
        f"{mix.mixup:.0%} blended": mix.mixup,
        f"{mix.cutmix:.0%} with a box of another image": mix.cutmix,
    }
    one_pass = recipe.batch_size <= recipe.at_once
    return {
        "network": ", ".join(NETWORK[name](value) for name, value in recipe.network.items()),
        "pretrained weights": "`--weights`" if recipe.pretrained else "",
        "image size": "x".join(map(str, recipe.image_size)) if recipe.image_size else "",
        "training images": ", ".join(words for words, given in changes.items() if given) or "unchanged",
        "normalised by": "fixed statistics" if recipe.normalise else "statistics of the training images",
        "optimizer": (optimizers.__doc__ or "").partition("\n")[0].rstrip("."),
        "peak learning rate": f"{recipe.lr:g}",
        "schedule": rise + fall,
        "batch size": f"{recipe.batch_size}" + ("" if one_pass else f", {recipe.at_once} at once"),
        "label smoothing": f"{recipe.label_smoothing:g}" if recipe.label_smoothing else "",
        "length": f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs} epochs",
        "all patches": f"in the epochs of the last {recipe.whole_images:.0%} of the run" if recipe.whole_images else "",
        "averaged weights": f"decay {recipe.averaged:g} a step" if recipe.averaged else "",
        "largest gradient norm": f"{recipe.clip:g}" if recipe.clip else "",
        "precision": recipe.precision,
    }
