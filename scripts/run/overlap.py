"""How much of what a transformer samples lies in the box of an object: the intersection over the union of their areas.

Source: I. Sutherland and G. Hodgman, "Reentrant Polygon Clipping", 1974.
"""

from torch import Tensor

Point = tuple[float, ...]


def overlap(corners: Tensor, box: Tensor) -> float:
    """Return the intersection over union of a convex polygon and a box, from 0 to 1.

    Args:
        corners: (n, 2), x before y, in either direction.
        box: (4,): left, top, width and height, of a positive area.
    """
    left, top, width, height = box.tolist()
    polygon = [tuple(corner) for corner in corners.tolist()]
    both = polygon
    for axis, bound, side in ((0, left, 1), (0, left + width, -1), (1, top, 1), (1, top + height, -1)):
        both = _clipped(both, axis, bound, side)
    shared = _area(both)
    return shared / (_area(polygon) + width * height - shared)


def _clipped(polygon: list[Point], axis: int, bound: float, side: int) -> list[Point]:
    """The part of a convex polygon on one side of a bound along an axis, 1 for above and -1 for below."""
    kept = []
    for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        depth, next_depth = side * (one[axis] - bound), side * (other[axis] - bound)
        if depth >= 0:
            kept.append(one)
        if depth * next_depth < 0:  # the edge crosses the bound
            share = depth / (depth - next_depth)
            kept.append(tuple(a + share * (b - a) for a, b in zip(one, other, strict=True)))
    return kept


def _area(polygon: list[Point]) -> float:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(one[0] * other[1] - one[1] * other[0] for one, other in pairs)) / 2
