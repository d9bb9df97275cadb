"""The learning-rate schedule, configured by plain values that a recipe can hold."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The learning-rate factor as a function of the share of the run that is done, from 0 to 1.

    Args:
        fall: ``constant`` after the warm-up, or a fall to zero, ``linear`` or as half a ``cosine``.
        warm_up: Share of the run over which the factor first rises linearly from zero.
    """

    fall: str = "constant"
    warm_up: float = 0.0

    def __call__(self, done: float) -> float:
        """Return the factor."""
        if done < self.warm_up:
            return done / self.warm_up
        fallen = (done - self.warm_up) / (1 - self.warm_up)
        return {"constant": 1.0, "linear": 1 - fallen, "cosine": (1 + math.cos(math.pi * fallen)) / 2}[self.fall]
