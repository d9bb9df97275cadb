"""Metrics and figures of a run as an event file of TensorBoard, beside metrics.csv and the figures themselves.

tensorboard --logdir runs
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.system.libraries import library

EVENT_FILES = "events.out.tfevents.*"


def refuse_without_tensorboard() -> None:
    """Raise InputError if TensorBoard is not installed."""
    library("tensorboard", "--tensorboard", "tensorboard")


class Events:
    """Writes the event file of one run, in which each epoch stands once, however often the run was stopped.

    A file that an earlier process left may have epochs that are trained again, or lack the last one. So the first call
    replaces it by one with all rows so far, and later calls append the new ones, which TensorBoard shows at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs = 0
        self._writer: Any = None

    def rows(self, rows: Sequence[dict[str, float]]) -> None:
        """Write every column of the rows of metrics.csv that are not written yet, by epoch."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # nobody else loads it

            for path in self.folder.glob(EVENT_FILES):
                path.unlink()
            # a TensorBoard that is looking on forgets what it has read of the files before
            self._writer = SummaryWriter(str(self.folder), purge_step=0)
        for row in rows[self.epochs :]:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(f"metrics/{name}", value, int(row["epoch"]))
        self.epochs = len(rows)
        self._writer.flush()

    def figures(self) -> None:
        """Write the figures in the folder, and close the file."""
        for path in sorted(self.folder.glob("*.png")):
            with Image.open(path) as figure:
                pixels = np.asarray(figure.convert("RGB"))
            self._writer.add_image(f"figures/{path.stem}", pixels, self.epochs, dataformats="HWC")
        self._writer.close()
