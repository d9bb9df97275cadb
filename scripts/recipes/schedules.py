"""Learning-rate factors at a share of the run from 0 to 1."""

import math
from collections.abc import Callable


def one_cycle(warm_up: float) -> Callable[[float], float]:
    """A linear rise over ``warm_up``, then a linear fall to zero."""
    return lambda done: min(done / warm_up, (1 - done) / (1 - warm_up))


def cosine(warm_up: float) -> Callable[[float], float]:
    """A linear rise over ``warm_up``, then half a cosine down to zero."""
    return lambda done: min(done / warm_up, (1 + math.cos(math.pi * max(0.0, done - warm_up) / (1 - warm_up))) / 2)


def constant(done: float) -> float:
    """No change."""
    return 1.0
