"""How time grows with size."""

import itertools
import math
import statistics
from collections.abc import Sequence


def growth_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Estimate ``k`` in ``seconds ~ size**k``.

    The median of the slopes between all pairs of points on log-log axes (Theil and Sen), each
    weighted alike: one disturbed measurement moves it little.

    Args:
        sizes: increasing, at least two.
        seconds: one time for each size.

    Raises:
        ValueError: there are fewer than two points, or not one time for each size.
    """
    if len(sizes) != len(seconds) or len(sizes) < 2:
        raise ValueError(f"need a time for each of two or more sizes, got {sizes}, {seconds}")
    tick = 1e-7  # a clock may see no time pass at all
    points = [(math.log(n), math.log(max(s, tick))) for n, s in zip(sizes, seconds, strict=True)]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2)]
    return statistics.median(slopes)
