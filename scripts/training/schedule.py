"""Learning rates over a run, as plain values that a recipe can hold."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate at a share of the run from 0 to 1.

    Args:
        fall: How it ends: ``constant``, or a fall to zero that is ``linear`` or half a ``cosine``.
        warm_up: Share of the run over which it rises from zero first, linearly.
    """

    fall: str = "constant"
    warm_up: float = 0.0

    def __call__(self, done: float) -> float:
        """The factor at that share."""
        if done < self.warm_up:
            return done / self.warm_up
        fallen = (done - self.warm_up) / (1 - self.warm_up)
        return {"constant": 1.0, "linear": 1 - fallen, "cosine": (1 + math.cos(math.pi * fallen)) / 2}[self.fall]
