"""Exercise 3.2: the matrix that turns an encoding into that of a later position: its checks."""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch03_embeddings.common import first_difference, is_float_tensor, near_and_alike
from gptbook.grading.compare import Tolerance, difference, show
from gptbook.grading.exercise import Args, Check, Draw, Kind, source_of
from gptbook.grading.tensors import FLOAT32, same


def offset_matrix(d_model: int, offset: int, base: float = 10000.0) -> Tensor:
    """Return the (C, C) matrix that turns the encoding of t into that of t + offset."""
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(0, d_model, 2):
        angle = offset * base ** (-i / d_model)
        cos, sin = math.cos(angle), math.sin(angle)
        matrix[i, i], matrix[i, i + 1] = cos, sin
        matrix[i + 1, i], matrix[i + 1, i + 1] = -sin, cos
    return matrix


# --- inputs ---

BASE = 10000.0


def draw_zero(stream: random.Random) -> list[Args]:
    """No offset."""
    return [(d_model, 0, BASE) for d_model in (4, stream.choice((6, 10)))]


def draw_small(stream: random.Random) -> list[Args]:
    """Offsets to the right."""
    return [(d_model, stream.randint(2, 40), BASE) for d_model in (4, 6, 8, 16)]


def draw_negative(stream: random.Random) -> list[Args]:
    """Offsets to the left."""
    return [(d_model, -stream.randint(2, 40), BASE) for d_model in (4, 10)]


def draw_pairs(stream: random.Random) -> list[Args]:
    """An offset, another one, and their sum; then one and its opposite."""
    cases: list[Args] = []
    for d_model in (4, 6, 8):
        j, k = stream.randint(2, 30), stream.randint(2, 30)
        k = k if d_model > 4 else -j
        cases.append(tuple((d_model, offset, BASE) for offset in (j, k, j + k)))
    return cases


def draw_large(stream: random.Random) -> list[Args]:
    """Offsets so large that angles in float32 are off by more than a hundredth."""
    return [(d_model, stream.randint(400_000, 999_999), BASE) for d_model in (4, 8)]


def draw_bases(stream: random.Random) -> list[Args]:
    """Other bases."""
    return [
        (4, stream.randint(2, 40), stream.choice((100.0, 500.0))),
        (12, stream.randint(2, 40), 500_000.0),
    ]


def legal(d_model: int, offset: int, base: float = BASE) -> bool:
    """Whether dimensions come in pairs and the base is one."""
    return d_model >= 2 and d_model % 2 == 0 and base > 1


# --- verdicts ---

# Angles of up to 10**6 are known to about 1e-9 in float64, and to 0.03 in float32.
LARGE_ANGLES = Tolerance(1e-6, "float64 angles of up to a million, with room for other formulas")


def encoding(position: int, d_model: int, base: float) -> Tensor:
    """The sinusoidal encoding of a position, (C,) in float64."""
    angles = [position * base ** (-i / d_model) for i in range(0, d_model, 2)]
    numbers = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
    return torch.tensor(numbers, dtype=torch.float64)


def is_square(args: Args, value: Any) -> str | None:
    """The form of the answer."""
    return is_float_tensor(value, (args[0], args[0]))


def is_identity(args: Args, value: Any) -> str | None:
    """An offset of 0 leaves everything as it is."""
    if difference(torch.eye(args[0]), value, FLOAT32) is None:
        return None
    return f"gives {show(value)}, expected the identity: nothing moves"


def turns_encodings(args: Args, value: Any) -> str | None:
    """The matrix works for every position at once."""
    d_model, offset, base = args
    for position in (0, 1, 2, 7, 30, -5):
        expected = encoding(position + offset, d_model, base)
        got = value.double() @ encoding(position, d_model, base)
        place = first_difference(expected, got, FLOAT32)
        if place is not None:
            return (
                f"gives M for which (M @ encoding({position}))[{place[0]}] is "
                f"{got[place]:.4f}, and encoding({position + offset})[{place[0]}] is "
                f"{expected[place]:.4f}"
            )
    return None


def adds_up(args: Args, value: Any) -> str | None:
    """One offset after another is the sum of both; for the probe `call_each`."""
    first, second, both = (matrix.double() for matrix in value)
    found = difference(first @ second, both, FLOAT32)
    (_, j, _), (_, k, _), _ = args
    return None if found is None else f"gives M({j}) @ M({k}) that is not M({j + k}): {found}"


def is_the_matrix(args: Args, value: Any) -> str | None:
    """Every number of the matrix."""
    found = difference(offset_matrix(*args), value, FLOAT32)
    return None if found is None else f"gives a matrix that {found}"


def is_precise(args: Args, value: Any) -> str | None:
    """The dtype, and the numbers where only float64 has them."""
    if value.dtype != torch.float64:
        return f"gives {value.dtype}, expected torch.float64"
    found = difference(offset_matrix(*args), value, LARGE_ANGLES)
    return None if found is None else f"gives a matrix that {found}"


def same_large(a: Any, b: Any) -> bool:
    """Whether two matrices of one dtype agree for large angles."""
    return near_and_alike(a, b) and same(a, b, LARGE_ANGLES)


FORM = "returns a (C, C) tensor"
ZERO = "an offset of 0 changes nothing"
SUMS = "one offset after another"
TURNS = "turns the encoding of every position"
NEGATIVE = "negative offsets"
BASES = "other bases"
LARGE = "large offsets, in float64"


def _check(
    name: str,
    kind: Kind,
    points: int,
    draw: Draw,
    verify: Callable[[Args, Any], str | None],
    hint: int,
    **options: Any,
) -> Check:
    needs = (FORM,) if name != FORM else ()
    return Check(name, kind, points, draw, verify, needs, hint=hint, **{"same": same, **options})


CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_small, is_square, 1),
    _check(ZERO, Kind.PROPERTY, 1, draw_zero, is_identity, 2, legal=legal),
    _check(SUMS, Kind.PROPERTY, 1, draw_pairs, adds_up, 2, probe="call_each"),
    _check(TURNS, Kind.PROPERTY, 4, draw_small, turns_encodings, 3, legal=legal),
    _check(NEGATIVE, Kind.ORACLE, 1, draw_negative, is_the_matrix, 3, legal=legal),
    _check(BASES, Kind.ORACLE, 1, draw_bases, is_the_matrix, 2, legal=legal),
    _check(LARGE, Kind.ORACLE, 2, draw_large, is_precise, 4, same=same_large),
)

REFERENCE = source_of(offset_matrix)
