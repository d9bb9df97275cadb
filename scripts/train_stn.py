"""Train the spatial transformer network of the PyTorch tutorial: images -> transformer -> small CNN -> ten classes.

    make train-stn                                  # CIFAR-10, 50 epochs, recipe "tuned"
    python -m scripts.train_stn --recipe tutorial   # the published run, to the letter

What to expect on CIFAR-10 stands in README.md, made from the run files in scripts/results/.
"""

from scripts.recipes.stn import RECIPES, Options
from scripts.system.command_line import parse, run


def main(options: Options) -> None:
    """Data -> network -> loop -> run folder -> report."""
    # here, since these import torch, and the flags were to be read before
    from scripts.experiment import train
    from scripts.subjects.stn import subject

    train(options, RECIPES, subject)


if __name__ == "__main__":
    run(lambda: main(parse(Options, "train_stn")), "train_stn")
