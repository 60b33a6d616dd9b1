"""What the exercises of chapter 3 share: headings, shortcuts, tensors."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from gptbook.grading.compare import Tolerance, difference, show
from gptbook.grading.tensors import same

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "lookup": "A lookup is a matrix product",
        "learning": "Near in meaning, near in space",
        "sinusoids": "Clock hands",
        "clock": "Clock hands",
        "rotary": "Turn, do not add",
        "positions": "Any positions you like",
        "layout": "Which numbers are a pair?",
        "beyond": "Past the trained length",
        "stretching": "Slower clocks",
    }
)
"""Headings by what they are about; the last five are of the page on rotary positions."""

READY_MADE = (
    "gptbook.layers",
    "gptbook.positions",
    "gptbook.attention",
    "gptbook.model",
    "transformers",
    "torchtune",
    "rotary_embedding_torch",
    "x_transformers",
)
"""Modules that have the answers."""


def is_float_tensor(value: object, shape: Sequence[int]) -> str | None:
    """The form of an answer: a tensor of floating-point numbers of a shape."""
    if not isinstance(value, Tensor):
        return f"gives {show(value)}, expected a torch tensor"
    if tuple(value.shape) != tuple(shape):
        return f"gives a tensor of shape {tuple(value.shape)}, expected {tuple(shape)}"
    if not value.is_floating_point():
        return f"gives a tensor of {value.dtype}, expected floating-point numbers"
    return None


def near_and_alike(a: Any, b: Any) -> bool:
    """Whether two answers are the same but for rounding, and tensors of one dtype."""
    return getattr(a, "dtype", None) == getattr(b, "dtype", None) and same(a, b)


def first_difference(expected: Tensor, got: Tensor, tolerance: Tolerance) -> tuple[int, ...] | None:
    """The index of the first number that is wrong; None where all are right or shapes differ."""
    if got.shape != expected.shape or difference(expected, got, tolerance) is None:
        return None
    error = (got.detach().double() - expected.double()).abs()
    wrong = ~(error <= tolerance.allowed(expected.numpy()))  # NaN is wrong as well
    return tuple(int(index) for index in wrong.nonzero()[0])
