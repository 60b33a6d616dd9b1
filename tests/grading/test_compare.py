"""Equality of values and the words for a difference."""

from typing import Any

import numpy as np
import pytest

from gptbook.grading.compare import EXACT, Tolerance, difference, rounding, same, show
from gptbook.grading.values import Opaque

NAN = float("nan")


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ([1, 2], (1, 2)),
        (3, np.int64(3)),
        (2.0, 2),
        (NAN, NAN),
        ([np.array([1.0, NAN])], [np.array([1.0, NAN])]),
        ({"a": [1]}, {"a": [1]}),
        ([1, 2], np.array([1, 2])),
    ],
)
def test_equal(expected: Any, got: Any) -> None:
    assert difference(expected, got) is None


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (3, 4, "is 4, expected 3"),
        (3, NAN, "is nan"),
        (NAN, 3, "expected nan"),
        (1, True, "bool"),
        (1, None, "is None"),
        ([1, 2, 3], [1, 5, 3], "item 1 is 5, expected 2"),
        ([1, 2], [1], "has 1 item, expected 2"),
        ([[1], [2]], [[1], [3]], "item 1[0] is 3"),
        ({"a": 1}, {}, "no key 'a'"),
        ({}, {"a": 1}, "a key too many"),
        ("a", b"a", "expected 'a'"),
        (np.zeros((2, 3)), np.zeros((3, 2)), "shape (3, 2)"),
        (np.ones((2, 3)), np.array([[1, 1, 1], [1, 0, 1.0]]), "at [1, 1] is 0.0"),
        (np.ones(2), np.array([NAN, 1]), "at [0] is nan"),
        (3, Opaque("EqualToAll"), "<EqualToAll object>"),
        ([3], Opaque("generator"), "<generator object>"),
    ],
)
def test_different(expected: Any, got: Any, words: str) -> None:
    found = difference(expected, got)
    assert found is not None
    assert words in found


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_tolerance_scales_with_the_reference(scale: float) -> None:
    reference = np.linspace(-1, 1, 7) * scale
    tolerance = rounding("float32", 10)
    assert difference(reference, reference.astype(np.float32), tolerance) is None
    assert difference(reference, np.zeros(7), tolerance) is not None
    assert difference(reference, reference * 1.001, tolerance) is not None


def test_a_tolerance_that_lets_zeros_pass_or_has_no_reason_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="relative"):
        Tolerance(1.0, "wide")
    with pytest.raises(ValueError, match="reason"):
        Tolerance(0.01, "")


def test_a_reference_of_zeros_allows_nothing_else() -> None:
    assert rounding("float32", 1).allowed(np.zeros(3)) == 0.0


def test_same_compares_opaque_values_by_type() -> None:
    assert same(Opaque("A"), Opaque("A"), EXACT)
    assert not same(Opaque("A"), Opaque("B"), EXACT)


def test_long_values_are_shown_short_and_on_one_line() -> None:
    assert len(show(list(range(1000)))) <= 120
    assert "\n" not in show(np.zeros((50, 50)))
