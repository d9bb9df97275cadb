"""Draw the pictures of the READMEs.

python -m scripts.pages.pictures
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from scripts.pages import components, stn, study
from scripts.pages.drawing import save
from scripts.system.command_line import run
from scripts.system.libraries import plain_figures

ROOT = Path(__file__).parents[2]
PAGES: dict[str, dict[str, Callable[[], Figure]]] = {  # folder of a page -> its pictures
    "components": components.PICTURES,
    "scripts": {**stn.PICTURES, **study.PICTURES},
}


def path_of(page: str, name: str) -> Path:
    """Return the path of a picture, in a folder beside its page."""
    return ROOT / page / "pictures" / f"{name}.png"


def main() -> None:
    """Draw every picture of every page."""
    for page, pictures in PAGES.items():
        for name, draw in pictures.items():
            path = path_of(page, name)
            path.parent.mkdir(exist_ok=True)
            with plain_figures():
                save(draw(), path)
            print(path)


if __name__ == "__main__":
    run(main, "pictures")
