"""Ways to call a reader's function inside the isolated process.

A probe gets the function and a case's arguments and returns what the grader is to see. Probes run
beside the reader's code, so they decide nothing: what they return is judged in the grader.
"""

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gptbook.grading.training_probes import in_turn, peak_saved, resumed, saved_over

Function = Callable[..., Any]

MAX_STREAM_ITEMS = 100_000
"""After so many items a stream counts as endless."""

MEASURED_SECONDS = 0.03
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


def attempt_and_read(function: Function, *args: Any) -> tuple[str, Any, str]:
    """Return what :func:`attempt` returns, and the exception's text; empty without one."""
    try:
        return "returned", function(*args), ""
    except Exception as error:  # noqa: BLE001 - which exception it is, is the question
        return "raised", [cls.__name__ for cls in type(error).__mro__[:-2]], str(error)


def collect(function: Function, *args: Any) -> list[Any]:
    """Collect what the returned iterator yields, up to :data:`MAX_STREAM_ITEMS` items."""
    return list(itertools.islice(function(*args), MAX_STREAM_ITEMS))


def interleave(function: Function, items: Iterable[Any], *args: Any) -> Any:
    """Feed the function an iterator; note with each item it yields how many it had taken.

    Returns:
        Pairs of the number of items taken from ``items`` so far and the item yielded; what the
        function returns, where that cannot be iterated over.
    """
    taken = 0

    def feed() -> Iterator[Any]:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    stream = function(feed(), *args)
    if not isinstance(stream, Iterable):
        return stream
    return [(taken, result) for result in itertools.islice(stream, MAX_STREAM_ITEMS)]


def drain(function: Function, items: Iterable[Any], *args: Any) -> Any:
    """Do what :func:`interleave` does, and say how many items it had taken when it ended.

    Returns:
        The pairs, and that number; what the function returns, where that cannot be iterated over.
    """
    taken = 0

    def counted() -> Iterator[Any]:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    pairs = interleave(function, counted(), *args)
    return (pairs, taken) if isinstance(pairs, list) else pairs


def repeat(function: Function, seeds: Iterable[int], *args: Any) -> list[Any]:
    """Call the function with each seed as its last argument."""
    return [function(*args, seed) for seed in seeds]


def carry(function: Function, first: Any, items: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Call ``function(first, state, item)`` for one item after another, each with the last state.

    The first state is None, and each call returns its output and the next one.

    Returns:
        The outputs, and for each call how many numbers its products of matrices gave: whether what
        was computed before is computed again.
    """
    import torch  # has been loaded where there are tensors, and nowhere else
    from torch.overrides import TorchFunctionMode

    numbers = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, called: Function, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal numbers
            result = called(*args, **(kwargs or {}))
            name = getattr(called, "__name__", "")
            if isinstance(result, torch.Tensor) and any(part in name for part in _PRODUCTS):
                numbers += result.numel()
            return result

    state, outputs, counts = None, [], []
    for item in items:
        numbers = 0
        with Watch():
            output, state = function(first, state, item)
        outputs.append(output)
        counts.append(numbers)
    return outputs, counts


_PRODUCTS = ("matmul", "mm", "linear", "einsum", "scaled_dot_product", "tensordot", "mv")


def gradients(function: Function, *args: Any) -> tuple[Any, list[Any]]:
    """Call a function of torch tensors; differentiate its value with respect to its arguments.

    Differentiated is a sum of the value's elements in which each has a weight of its own: all
    gradients of the plain sum of a softmax are zero.

    Returns:
        The value, and for each argument that requires a gradient that gradient, or None where the
        value does not depend on it in a way that torch can follow.
    """
    import torch  # has been loaded where there are tensors, and nowhere else

    inputs = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.requires_grad]
    value = function(*args)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return value, [None] * len(inputs)
    weights = torch.cos(torch.arange(value.numel(), dtype=torch.float64)).to(value.dtype)
    total = (value.reshape(-1) * weights).sum()
    return value, list(torch.autograd.grad(total, inputs, allow_unused=True))


def streamed(function: Function, *args: Any) -> tuple[Any, int]:
    """Hand over the last argument, a list, as an iterator that can be read once.

    Returns:
        The value, and how many numbers the largest tensor holds that a function of torch gave back
        meanwhile: whether what streams by is being collected. Of a view, the whole of it counts.
    """
    import torch  # has been loaded where there are tensors, and nowhere else
    from torch.overrides import TorchFunctionMode

    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, called: Function, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = called(*args, **(kwargs or {}))
            for item in result if isinstance(result, list | tuple) else [result]:
                if isinstance(item, torch.Tensor):
                    size = item.untyped_storage().nbytes() // item.element_size()
                    largest = max(largest, size)
            return result

    *first, items = args
    with Watch():
        return function(*first, iter(items)), largest


def measure(function: Function, calls: list[tuple[Any, ...]]) -> list[float]:
    """Processor seconds of each call; after one of a second no larger one is tried.

    A clock of processor time may stand still for some milliseconds, so a call is repeated until all
    its runs together have taken :data:`MEASURED_SECONDS`, and the mean counts.
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
    probe.__name__: probe
    for probe in (
        call,
        call_each,
        attempt,
        attempt_and_read,
        collect,
        interleave,
        drain,
        repeat,
        carry,
        gradients,
        streamed,
        measure,
        in_turn,
        peak_saved,
        resumed,
        saved_over,
    )
}
