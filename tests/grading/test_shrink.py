"""Smaller inputs that still fail; and how fast time grows."""

import random
from typing import Any

import numpy as np
import pytest

from gptbook.grading.growth import growth_exponent
from gptbook.grading.shrink import shrink, simpler


def smallest(args: tuple[Any, ...], fails: Any, legal: Any = lambda *args: True) -> tuple[Any, ...]:
    def first_failure(candidates: list[tuple[Any, ...]]) -> int | None:
        return next((i for i, candidate in enumerate(candidates) if fails(*candidate)), None)

    return shrink(args, legal, first_failure)


@pytest.mark.parametrize("seed", range(5))
def test_a_list_shrinks_to_what_makes_it_fail(seed: int) -> None:
    stream = random.Random(seed)
    items = [stream.randint(0, 99) for _ in range(60)]
    items[stream.randrange(60)] = 777
    assert smallest((items,), lambda items: max(items, default=0) >= 100) == ([100],)


def test_text_shrinks_in_length_and_letters() -> None:
    (text,) = smallest(("Hello, wonderful world!",), lambda text: text.count("o") >= 2)
    assert text == "oo"


def test_bytes_and_several_arguments_shrink() -> None:
    assert smallest((b"xyz\xffxyz", 50), lambda data, n: b"\xff" in data and n > 3) == (b"\xff", 4)


def test_only_legal_arguments_are_tried() -> None:
    def fails(items: list[int]) -> bool:
        assert len(items) >= 3
        return True

    (items,) = smallest(([9] * 20,), fails, legal=lambda items: len(items) >= 3)
    assert items == [0, 0, 0]


def test_an_array_shrinks_along_its_axes() -> None:
    (array,) = smallest((np.arange(24.0).reshape(4, 6),), lambda a: a.shape[1] >= 2)
    assert array.shape == (1, 2)
    assert not array.any()


@pytest.mark.parametrize("value", [7, -3, 2.5, "ab", b"ab", [1], (1, 2), {"a": 1}, True])
def test_simpler_never_gives_the_value_back(value: Any) -> None:
    assert all(item != value for item in simpler(value))


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_found_through_noise(power: float) -> None:
    stream = random.Random(4)
    sizes = [100, 200, 400, 800, 1600]
    seconds = [1e-6 * size**power * stream.uniform(1, 1.15) for size in sizes]
    seconds[2] *= 3  # one measurement disturbed
    assert growth_exponent(sizes, seconds) == pytest.approx(power, abs=0.15)


def test_one_point_has_no_slope() -> None:
    with pytest.raises(ValueError, match="two or more"):
        growth_exponent([100], [1.0])
