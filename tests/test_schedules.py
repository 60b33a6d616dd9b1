"""Schedules: exact at their boundaries, and without a jump between them."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbook.schedules import constant, warmup_cosine, warmup_stable_decay


def test_warmup_is_linear_and_starts_above_zero() -> None:
    factors = [constant(step, warmup_steps=4) for step in range(6)]
    assert factors == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert constant(0) == 1
    assert [warmup_cosine(s, warmup_steps=4, total_steps=10) for s in range(5)] == factors[:5]


def test_cosine_at_its_boundaries() -> None:
    def at(step: int) -> float:
        return warmup_cosine(step, warmup_steps=10, total_steps=110, floor=0.1)

    assert at(10) == 1
    assert at(60) == pytest.approx(0.55, abs=1e-15)
    assert at(110) == at(111) == at(10**9) == 0.1
    assert at(109) == pytest.approx(0.1 + 0.9 * math.sin(math.pi / 200) ** 2)


def test_stable_decay_at_its_boundaries() -> None:
    def at(step: int, **more: Any) -> float:
        return warmup_stable_decay(step, warmup_steps=10, total_steps=100, decay_steps=20, **more)

    assert at(9) == 10 / 11
    assert at(10) == at(50) == at(80) == 1
    assert at(81) == 0.95
    assert at(90) == 0.5
    assert at(99) == pytest.approx(0.05, abs=1e-15)
    assert at(100) == at(500) == 0
    assert at(90, floor=0.2) == pytest.approx(0.6, abs=1e-15)
    assert at(85, shape="sqrt") == pytest.approx(0.5, abs=1e-15)


spans = st.integers(1, 200).flatmap(
    lambda total: st.integers(0, total).flatmap(
        lambda warmup: st.tuples(st.just(total), st.just(warmup), st.integers(0, total - warmup))
    )
)


@given(spans, st.floats(0, 1))
def test_no_step_is_wasted_and_nothing_jumps(span: tuple[int, int, int], floor: float) -> None:
    total, warmup, decay = span
    settings: dict[str, Any] = {"warmup_steps": warmup, "total_steps": total, "floor": floor}
    for at in (
        partial(warmup_cosine, **settings),
        partial(warmup_stable_decay, decay_steps=decay, **settings),
    ):
        factors = [at(step) for step in range(total)]
        assert all(0 < factor <= 1 for factor in factors)
        assert factors[: warmup + 1] == sorted(factors[: warmup + 1])
        assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
        assert at(total) == floor
        if warmup < total:
            assert factors[warmup] == 1


@given(spans)
def test_linear_decay_equals_exact_arithmetic(span: tuple[int, int, int]) -> None:
    total, warmup, decay = span
    for step in range(total):
        exact = min(
            Fraction(step + 1, warmup + 1),
            Fraction(1),
            Fraction(total - step, decay) if decay else Fraction(1),
        )
        found = warmup_stable_decay(step, warmup_steps=warmup, total_steps=total, decay_steps=decay)
        assert found == pytest.approx(float(exact), abs=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: constant(-1), "step is -1"),
        (lambda: warmup_cosine(-1, warmup_steps=1, total_steps=2), "step must be at least 0"),
        (lambda: warmup_cosine(0, warmup_steps=3, total_steps=2), "warmup_steps is 3, but must be"),
        (lambda: warmup_cosine(0, warmup_steps=1, total_steps=2, floor=1.5), "floor is a factor"),
        (
            lambda: warmup_stable_decay(0, warmup_steps=5, total_steps=9, decay_steps=5),
            "decay_steps is 5, but warmup_steps 5 leave 0 to 4",
        ),
        (
            lambda: warmup_stable_decay(
                0,
                warmup_steps=5,
                total_steps=9,
                decay_steps=1,
                shape="cubic",  # type: ignore[arg-type]
            ),
            "choose linear or sqrt",
        ),
    ],
)
def test_errors_name_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
