"""Whether a value is the expected one, and where the first difference is.

:func:`difference` looks only at plain data (see :mod:`gptbook.grading.values`), with rules that no
library function can change under it: NaN equals nothing but an expected NaN, a bool is no int, and
an :class:`~gptbook.grading.values.Opaque` equals nothing.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbook.grading.values import Opaque

SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the reference: ``relative`` times the reference's scale.

    The scale of an array is its largest finite magnitude, and of a number its magnitude, so an
    answer of zeros is as wrong for a reference of 1e-8 as for one of 1e8.

    Attributes:
        relative: 0 for exact; below 0.1, because a tolerance near 1 would let zeros pass.
        reason: where the number comes from, for whoever reads the check.
    """

    relative: float
    reason: str

    def __post_init__(self) -> None:
        if not 0 <= self.relative < 0.1:
            raise ValueError(f"relative must be in [0, 0.1), got {self.relative!r}")
        if not self.reason:
            raise ValueError("a tolerance states its reason, got an empty one")

    def allowed(self, reference: Any) -> float:
        """Largest allowed error for a reference, which is a number or an array."""
        magnitudes = np.abs(np.asarray(reference, dtype=np.complex128))
        finite = magnitudes[np.isfinite(magnitudes)]
        return self.relative * float(finite.max()) if finite.size else 0.0


EXACT = Tolerance(0.0, "integers, text and structure have no rounding")


def rounding(dtype: str, operations: int) -> Tolerance:
    """Tolerance for the rounding of a chain of operations.

    Args:
        dtype: the numpy dtype in which the reader's code computes.
        operations: how many rounded operations are on the longest path to one output.

    Returns:
        ``8 sqrt(operations)`` units of the dtype's epsilon: errors of rounding add like a random
        walk, and 8 standard deviations leave one false alarm in 10**15.
    """
    eps = float(np.finfo(np.dtype(dtype)).eps)
    return Tolerance(
        8 * math.sqrt(operations) * eps, f"{operations} rounded {dtype} operations, times 8"
    )


def show(value: Any, limit: int = SHOWN_CHARACTERS) -> str:
    """A value as short text of one line."""
    if isinstance(value, np.ndarray) or _is_tensor(value):
        array = _as_array(value) if _is_tensor(value) else value
        kind = "tensor" if _is_tensor(value) else "array"
        text = f"{kind}({np.array2string(array, precision=4, threshold=8, separator=', ')})"
        text = " ".join(text.split())
    else:
        try:
            text = repr(value)
        except ValueError:  # Python does not write integers of thousands of digits
            text = f"<{type(value).__name__} too long to show>"
    return text if len(text) <= limit else f"{text[: limit - 12]} ... {text[-6:]}"


def difference(expected: Any, got: Any, tolerance: Tolerance = EXACT) -> str | None:
    """Describe the first difference, or None where there is none.

    A list and a tuple of the same items are equal, and so are a number of Python and of numpy, and
    an array and a tensor: how a value is built is a matter of style. Where the type matters, check
    it on its own.

    Args:
        expected: the reference's value.
        got: the reader's value, decoded.
        tolerance: for every number and array inside.

    Returns:
        A phrase such as ``"item 3 is 258, expected 257"``.
    """
    found = _Differ(tolerance).find(expected, got)
    if found is None:
        return None
    place, problem = found
    return f"{place} {problem}" if place else problem


def same(a: Any, b: Any, tolerance: Tolerance = EXACT) -> bool:
    """Whether two observed values are the same; opaque values are by their type's name."""
    if isinstance(a, Opaque) and isinstance(b, Opaque):
        return a.type_name == b.type_name
    return difference(a, b, tolerance) is None


_Found = tuple[str, str]  # where, and what


class _Differ:
    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance

    def find(self, expected: Any, got: Any, place: str = "") -> _Found | None:
        if _is_tensor(got):
            if _is_tensor(expected) or isinstance(expected, np.ndarray):
                got = _as_array(got)
            elif _is_number(_plain(expected)) and got.ndim == 0:
                got = _as_array(got)[()]
        if _is_tensor(expected) and isinstance(got, np.ndarray):
            expected = _as_array(expected)
        if isinstance(expected, np.ndarray):
            return self._arrays(expected, got, place)
        if isinstance(expected, list | tuple):
            return self._sequences(expected, got, place)
        if isinstance(expected, dict):
            return self._mappings(expected, got, place)
        return self._scalars(expected, got, place)

    def _scalars(self, expected: Any, got: Any, place: str) -> _Found | None:
        a, b = _plain(expected), _plain(got)
        if _is_number(a) and _is_number(b):
            equal = _numbers_equal(a, b, self._tolerance)
        else:
            equal = type(a) is type(b) and bool(a == b) and not isinstance(a, Opaque)
        if equal:
            return None
        kind = "" if type(a) is type(b) or b is None else f" ({type(b).__name__})"
        return place, f"is {show(got)}{kind}, expected {show(expected)}"

    def _sequences(self, expected: Any, got: Any, place: str) -> _Found | None:
        if isinstance(got, np.ndarray) and got.ndim == 1:
            got = list(got)
        if not isinstance(got, list | tuple):
            return place, f"is {show(got)}, expected {show(expected)}"
        for index, (a, b) in enumerate(zip(expected, got, strict=False)):
            found = self.find(a, b, f"{place}[{index}]" if place else f"item {index}")
            if found:
                return found
        if len(expected) != len(got):
            return place, f"has {_count(len(got), 'item')}, expected {len(expected)}"
        return None

    def _mappings(self, expected: dict[Any, Any], got: Any, place: str) -> _Found | None:
        if not isinstance(got, dict):
            return place, f"is {show(got)}, expected {show(expected)}"
        for key, item in expected.items():
            if key not in got:
                return place, f"has no key {show(key)}"
            found = self.find(item, got[key], f"{place}[{show(key)}]")
            if found:
                return found
        extra = [key for key in got if key not in expected]
        return (place, f"has a key too many: {show(extra[0])}") if extra else None

    def _arrays(self, expected: NDArray[Any], got: Any, place: str) -> _Found | None:
        if not isinstance(got, np.ndarray):
            return place, f"is {show(got)}, expected an array of shape {expected.shape}"
        if got.shape != expected.shape:
            return place, f"has shape {got.shape}, expected {expected.shape}"
        wrong = _unequal(expected, got, self._tolerance.allowed(expected))
        if not wrong.any():
            return None
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"{place} at {list(first)}" if place else f"at {list(first)}"
        count = f"{int(wrong.sum())} of {wrong.size} values differ"
        return where, (
            f"is {show(got[first].item())}, expected {show(expected[first].item())} ({count})"
        )


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # what no one has loaded, no value is of
    return torch is not None and isinstance(value, torch.Tensor)


def _as_array(tensor: Any) -> NDArray[Any]:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    array: NDArray[Any] = (plain.double() if plain.is_floating_point() else plain).numpy()
    return array


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) and not isinstance(value, bool)


def _numbers_equal(expected: Any, got: Any, tolerance: Tolerance) -> bool:
    if isinstance(expected, int) and isinstance(got, int):
        return expected == got
    if expected != expected or got != got:  # NaN is the one number that differs from itself
        return bool(expected != expected and got != got)
    if expected == got:
        return True
    try:
        error, finite = abs(complex(expected) - complex(got)), math.isfinite(abs(complex(got)))
    except OverflowError:  # an int beyond every float
        return False
    return finite and error <= tolerance.allowed(expected)


def _unequal(expected: NDArray[Any], got: NDArray[Any], allowed: float) -> NDArray[np.bool_]:
    if allowed == 0 and expected.dtype.kind in "biu" and got.dtype.kind in "biu":
        different: NDArray[np.bool_] = expected != got  # complex128 holds no int above 2**53
        return different
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = expected.astype(np.complex128), got.astype(np.complex128)
        close = (a == b) | (np.abs(a - b) <= allowed) | (np.isnan(a) & np.isnan(b))
        wrong: NDArray[np.bool_] = ~close
    return wrong


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
