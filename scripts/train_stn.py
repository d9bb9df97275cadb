"""Train a spatial transformer network: images -> transformer -> CNN -> classes.

    make train-stn                                  # CIFAR-10, 50 epochs, recipe "small"
    python -m scripts.train_stn --recipe tutorial   # exactly the published run

README.md lists the accuracies to expect on CIFAR-10.
"""

from scripts.recipes.stn import RECIPES, Options
from scripts.system.command_line import parse, run


def main(options: Options) -> None:
    """Train the network that the flags describe."""
    # imported here: these load torch, and flags are read before that
    from scripts.experiment import train
    from scripts.subjects.stn import subject

    train(options, RECIPES, subject)


if __name__ == "__main__":
    run(lambda: main(parse(Options, "train_stn")), "train_stn")
