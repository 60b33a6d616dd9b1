"""The only way values cross from a reader's process: plain data, by type, without pickle."""

import json
from collections import Counter, OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

from gptbook.grading.values import MAX_DEPTH, Opaque, ValueFormatError, dumps, loads

Point = namedtuple("Point", "x y")

PLAIN = [
    None,
    True,
    -7,
    3**200,
    0.1,
    float("inf"),
    "naïve \ud800 text",
    b"\x00\xff",
    bytearray(b"ab"),
    [1, [2.5, None]],
    (1, ("a",)),
    {1: "a", (2, 3): [b"x"]},
    {1, 2},
    frozenset("ab"),
    range(2, 9, 3),
    2 - 1j,
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    back = loads(dumps(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_arrays_come_back_with_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(dtype)
    back = loads(dumps(array))
    assert back.dtype == array.dtype
    assert back.shape == shape
    assert (back == array).all()


def test_a_transposed_array_keeps_its_elements_in_place() -> None:
    array = np.arange(6.0).reshape(2, 3).T
    assert (loads(dumps(array)) == array).all()


def test_nan_stays_nan() -> None:
    assert np.isnan(loads(dumps([float("nan")]))[0])


def test_subclasses_of_containers_count_as_their_base() -> None:
    assert loads(dumps(Counter("aab"))) == {"a": 2, "b": 1}
    assert loads(dumps(OrderedDict(a=1))) == {"a": 1}
    assert loads(dumps(Point(1, 2))) == (1, 2)
    assert loads(dumps(np.float32(0.5))) == 0.5


class LyingList(list[int]):
    def __iter__(self) -> Any:
        return iter([9, 9])

    def __eq__(self, other: object) -> bool:
        return True


class EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        raise RuntimeError("a hostile repr")


def test_an_override_does_not_change_what_is_written() -> None:
    assert loads(dumps(LyingList([1, 2]))) == [1, 2]


@pytest.mark.parametrize("value", [EqualToAll(), iter([1]), print, np.array([object()])])
def test_anything_else_is_only_a_type_name(value: Any) -> None:
    assert isinstance(loads(dumps(value)), Opaque)


def test_depth_and_cycles_are_cut() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    text = dumps(cycle)
    assert "too deep" in text
    assert text.count("[") <= MAX_DEPTH + 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"t": "pickle", "data": "gASV"}',
        '{"t": "array", "dtype": "O", "shape": [1], "data": ""}',
        '{"t": "array", "dtype": "float64", "shape": [1000000000], "data": ""}',
        '{"t": "array", "dtype": "float64", "shape": [-1], "data": ""}',
        '{"t": "dict", "items": [[{"t": "dict", "items": []}, 1]]}',
        '{"t": "int"}',
        "[" * 100_000,
    ],
)
def test_what_encode_did_not_write_is_refused(text: str) -> None:
    with pytest.raises(ValueFormatError):
        loads(text)


def test_a_value_is_one_line() -> None:
    assert "\n" not in dumps("a\nb")
    assert json.loads(dumps("a\nb")) == "a\nb"
