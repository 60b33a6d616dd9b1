"""Ways to call a reader's function inside the isolated process.

A probe gets the function and a case's arguments and returns what the grader is to see. Probes run
beside the reader's code, so they decide nothing: what they return is judged in the grader.
"""

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Function = Callable[..., Any]

MAX_STREAM_ITEMS = 100_000
"""After so many items a stream counts as endless."""

MEASURED_SECONDS = 0.05
"""Processor time for which a call is repeated when its time is measured."""


def call(function: Function, *args: Any) -> Any:
    """Return what the function returns."""
    return function(*args)


def call_each(function: Function, *calls: tuple[Any, ...]) -> list[Any]:
    """Call the function once for each tuple of arguments, for properties that compare calls."""
    return [function(*args) for args in calls]


def attempt(function: Function, *args: Any) -> tuple[str, Any]:
    """Return ``("returned", value)`` or ``("raised", names of the exception's classes)``."""
    try:
        return "returned", function(*args)
    except Exception as error:  # noqa: BLE001 - which exception it is, is the question
        return "raised", [cls.__name__ for cls in type(error).__mro__[:-2]]


def collect(function: Function, *args: Any) -> list[Any]:
    """Collect what the returned iterator yields, up to :data:`MAX_STREAM_ITEMS` items."""
    return list(itertools.islice(function(*args), MAX_STREAM_ITEMS))


def interleave(function: Function, items: Iterable[Any], *args: Any) -> list[tuple[int, Any]]:
    """Feed the function an iterator; note with each item it yields how many it had taken.

    Returns:
        Pairs of the number of items taken from ``items`` so far and the item yielded.
    """
    taken = 0

    def feed() -> Iterator[Any]:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    results = itertools.islice(function(feed(), *args), MAX_STREAM_ITEMS)
    return [(taken, result) for result in results]


def measure(function: Function, calls: list[tuple[Any, ...]]) -> list[float]:
    """Processor seconds of each call; after one of a second no larger one is tried.

    A clock of processor time may move in steps of some milliseconds, so a call is repeated until
    all its runs together have taken :data:`MEASURED_SECONDS`.
    """
    means = []
    for args in calls:
        means.append(_mean_seconds(function, args))
        if means[-1] > 1.0:
            break
    return means


def _mean_seconds(function: Function, args: tuple[Any, ...]) -> float:
    gc.collect()
    gc.disable()
    start, count, spent = time.process_time(), 0, 0.0
    while spent < MEASURED_SECONDS:
        function(*args)
        count += 1
        spent = time.process_time() - start
    gc.enable()
    return spent / count


PROBES: dict[str, Function] = {
    probe.__name__: probe for probe in (call, call_each, attempt, collect, interleave, measure)
}
