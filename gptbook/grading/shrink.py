"""Making a failing input smaller while it still fails."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Args = tuple[Any, ...]
FirstFailure = Callable[[list[Args]], int | None]

MAX_ROUNDS = 24
MAX_CANDIDATES = 64
MAX_SECONDS = 3.0

_TRIED_ONE_BY_ONE = 24  # items of a sequence that are removed or simplified singly
_TRIED_WHOLE = 8  # items of a sequence that are replaced by each simpler one


def shrink(args: Args, legal: Callable[..., bool], first_failure: FirstFailure) -> Args:
    """Look for smaller arguments that fail as well, greedily, until none does.

    Args:
        args: arguments that fail.
        legal: whether arguments are ones that a caller may pass.
        first_failure: index of the first of several arguments that fails, None where all pass.

    Returns:
        The smallest that was found within the limits of rounds and time.
    """
    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_ROUNDS):
        smaller = (candidate for candidate in simpler_args(args) if legal(*candidate))
        candidates = list(itertools.islice(smaller, MAX_CANDIDATES))
        found = first_failure(candidates) if candidates else None
        if found is None:
            return args
        args = candidates[found]
        if time.monotonic() > deadline:
            return args
    return args


def simpler_args(args: Args) -> Iterator[Args]:
    """Arguments with one of them made simpler, the boldest steps of each first."""
    streams = [
        [(*args[:index], value, *args[index + 1 :]) for value in simpler(item)]
        for index, item in enumerate(args)
    ]
    for step in itertools.zip_longest(*streams):
        yield from (candidate for candidate in step if candidate is not None)


def simpler(value: Any) -> list[Any]:
    """Simpler values of the same kind; each is smaller, so that shrinking ends."""
    match value:
        case bool() | None:
            return [False] if value else []
        case int():
            return _simpler_ints(value)
        case float():
            return [item for item in (0.0, 1.0, float(round(value))) if abs(item) < abs(value)]
        case str():
            return ["".join(chars) for chars in _simpler_sequences(list(value), _simpler_char)]
        case bytes():
            return [bytes(items) for items in _simpler_sequences(list(value), _simpler_byte)]
        case list():
            return _simpler_sequences(value, simpler)
        case tuple():
            return [tuple(items) for items in _simpler_items(list(value), simpler)]
        case dict():
            return [{k: v for k, v in value.items() if k is not key} for key in value]
        case np.ndarray():
            return list(_simpler_arrays(value))
        case _ if hasattr(value, "requires_grad_"):
            return list(_simpler_tensors(value))
        case _:
            return []


def _simpler_ints(value: int) -> list[int]:
    """Zero, then ever smaller steps towards it, then the sign away."""
    size = abs(value)
    sign = -1 if value < 0 else 1
    steps = [sign * (size - (size >> shift)) for shift in range(size.bit_length())]
    return [*steps, size] if value < 0 else steps


def _simpler_char(char: str) -> list[str]:
    return ["a"] if char != "a" and char.isprintable() else []


def _simpler_byte(byte: int) -> list[int]:
    return [97] if byte != 97 else []


def _simpler_sequences(items: list[Any], simpler_item: Callable[[Any], list[Any]]) -> list[Any]:
    """Shorter sequences, then ones with a simpler item."""
    return [*_shorter(items), *_simpler_items(items, simpler_item)]


def _shorter(items: Sequence[Any]) -> Iterator[list[Any]]:
    size = len(items)
    if size == 0:
        return
    yield []
    chunk = size // 2
    while chunk > 1:
        for start in range(0, size, chunk):
            yield [*items[:start], *items[start + chunk :]]
        chunk //= 2
    for index in range(min(size, _TRIED_ONE_BY_ONE)):
        yield [*items[:index], *items[index + 1 :]]


def _simpler_items(items: list[Any], simpler_item: Callable[[Any], list[Any]]) -> list[Any]:
    return [
        [*items[:index], item, *items[index + 1 :]]
        for index in range(min(len(items), _TRIED_ONE_BY_ONE))
        for item in simpler_item(items[index])[:_TRIED_WHOLE]
    ]


def _simpler_arrays(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for axis, size in enumerate(array.shape):
        if size > 1:
            yield np.take(array, range(size // 2), axis)
            yield np.take(array, range(size // 2, size), axis)
            yield np.take(array, range(size - 1), axis)
    if array.any():
        yield np.zeros_like(array)
    rounded = np.round(array)
    if (rounded != array).any() and np.isfinite(array).all():
        yield rounded


def _simpler_tensors(tensor: Any) -> Iterator[Any]:
    """The same steps for a torch tensor, which keeps its dtype and whether it needs a gradient."""
    import torch  # is loaded where there is a tensor

    wide = tensor.detach().double() if tensor.is_floating_point() else tensor
    for array in _simpler_arrays(wide.numpy()):
        yield torch.from_numpy(array).to(tensor.dtype).requires_grad_(tensor.requires_grad)
