"""Exercise 3.3: rotary positions that need not be 0, 1, 2, ...: its checks."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch03_embeddings.common import first_difference, is_float_tensor, near_and_alike
from gptbook.grading.compare import Tolerance, difference
from gptbook.grading.exercise import Args, Check, Draw, Kind, source_of
from gptbook.grading.tensors import FLOAT32, normal, same


def rotate(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Return x (B, H, T, D) with the pairs (i, i + D/2) turned by their positions."""
    d_head = x.shape[-1]
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32) / d_head
    angles = positions[..., None].float() * base**-exponents  # (B, T, D/2) or (T, D/2)
    if angles.ndim == 3:
        angles = angles[:, None]  # the same for all heads
    cos, sin = torch.cos(angles), torch.sin(angles)
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


# --- inputs ---

BASE = 10000.0
SHAPES = ((2, 3, 4, 6), (1, 4, 4, 8), (2, 2, 5, 4))
"""B, H, T, D; among them are equal sizes, where numbers in the wrong order raise no error."""


def scattered(stream: random.Random, length: int) -> list[int]:
    """Positions in any order: a repeated one, negative ones, and far ones."""
    near_ones = stream.sample(range(2, 40), 8)
    far = stream.randint(300, 900)
    pool = [-near_ones[0], near_ones[1], near_ones[1], far, *near_ones[2:]][:length]
    stream.shuffle(pool)
    return pool


def draw_plain(stream: random.Random) -> list[Args]:
    """Positions from 0 to T - 1."""
    return [(normal(stream, *shape), torch.arange(shape[2]), BASE) for shape in SHAPES]


def draw_one_row(stream: random.Random) -> list[Args]:
    """Any positions, the same for all rows; in the last case only one."""
    cases: list[Args] = [
        (normal(stream, *shape), torch.tensor(scattered(stream, shape[2])), BASE)
        for shape in SHAPES
    ]
    return [*cases, (normal(stream, 2, 3, 1, 6), torch.tensor([stream.randint(3, 30)]), BASE)]


def draw_own_rows(stream: random.Random) -> list[Args]:
    """Each row has positions of its own; in the last case one each, as in decoding."""
    cases: list[Args] = []
    for shape in ((2, 2, 4, 6), (3, 4, 5, 4)):
        rows = [scattered(stream, shape[2]) for _ in range(shape[0])]
        cases.append((normal(stream, *shape), torch.tensor(rows), BASE))
    rows = [[place] for place in stream.sample(range(2, 40), 3)]
    return [*cases, (normal(stream, 3, 2, 1, 6), torch.tensor(rows), BASE)]


def draw_bases(stream: random.Random) -> list[Args]:
    """Other bases and sizes of a head; the smallest one has a single pair."""
    settings = ((4, 100.0), (10, 500_000.0), (2, 10.0))
    return [(normal(stream, 1, 2, 4, d), torch.arange(4), base) for d, base in settings]


def draw_views(stream: random.Random) -> list[Args]:
    """Heads cut from a (B, T, H * D) tensor, and every second number of a wider one."""
    heads = normal(stream, 2, 4, 18).reshape(2, 4, 3, 6).transpose(1, 2)
    return [
        (heads, torch.arange(4), BASE),
        (normal(stream, 1, 2, 3, 16)[..., ::2], torch.arange(3), BASE),
    ]


def draw_half(stream: random.Random) -> list[Args]:
    """bfloat16 at positions that bfloat16 does not have; float16 at small ones."""
    far = [2 * stream.randint(400, 900) + 1 for _ in range(4)]
    return [
        (normal(stream, 2, 3, 4, 8, dtype=torch.bfloat16), torch.tensor(far), BASE),
        (normal(stream, 1, 2, 4, 4, dtype=torch.float16), torch.arange(4), BASE),
    ]


def draw_gradients(stream: random.Random) -> list[Args]:
    """Inputs that need a gradient."""
    return [(x.requires_grad_(), positions, base) for x, positions, base in draw_plain(stream)[:2]]


def draw_pairs(stream: random.Random) -> list[Args]:
    """A query and a key at two positions, and both moved by the same number."""
    cases: list[Args] = []
    for gap in (0, stream.randint(1, 9), -stream.randint(1, 9)):
        q, k = normal(stream, 1, 1, 1, 8), normal(stream, 1, 1, 1, 8)
        m, shift = stream.randint(9, 20), stream.randint(1, 60)
        calls = ((q, m), (k, m + gap), (q, m + shift), (k, m + gap + shift))
        cases.append(tuple((vector, torch.tensor([place]), BASE) for vector, place in calls))
    return cases


# --- verdicts ---

# A float32 has an angle of 1,000 radians to about 1e-4.
FAR_ANGLES = Tolerance(5e-4, "float32 angles of up to a thousand radians, times 5")
# Cosine, products and sum rounded to bfloat16 make up to 0.01 of the largest number; an angle in
# bfloat16 is wrong by a radian and more.
HALF = Tolerance(0.02, "four operations rounded to the 8 bits of bfloat16, times 1.3")


def rotated(x: Tensor, positions: Tensor, base: float, sign: int = 1) -> Tensor:
    """The answer in float64, from the definition: a 2 by 2 matrix for each place and pair."""
    batch, _, length, d_head = x.shape
    rows = positions.expand(batch, length).tolist()
    numbers, out = x.detach().double(), torch.empty(x.shape, dtype=torch.float64)
    for b in range(batch):
        for t in range(length):
            for i in range(d_head // 2):
                angle = torch.tensor(sign * rows[b][t] * base ** (-2 * i / d_head)).double()
                cos, sin = angle.cos(), angle.sin()
                matrix = torch.stack((torch.stack((cos, -sin)), torch.stack((sin, cos))))
                pair = [i, i + d_head // 2]
                out[b, :, t, pair] = numbers[b, :, t, pair] @ matrix.T
    return out


def has_the_form(args: Args, value: Any) -> str | None:
    """Shape and dtype."""
    problem = is_float_tensor(value, args[0].shape)
    if problem is None and value.dtype != args[0].dtype:
        return f"gives {value.dtype} for {args[0].dtype}, expected the same dtype"
    return problem


def _wrong_place(args: Args, value: Tensor, expected: Tensor, tolerance: Tolerance) -> str | None:
    place = first_difference(expected, value, tolerance)
    if place is None:
        return difference(expected, value, tolerance)
    b, h, t, number = place
    position = int(args[1].expand(len(expected), expected.shape[2])[b, t])
    return (
        f"turns row {b}, head {h}, place {t} (position {position}) wrongly: number {number} is "
        f"{value[place].item():.5g}, expected {expected[place].item():.5g}"
    )


def is_turned(tolerance: Tolerance) -> Callable[[Args, Any], str | None]:
    """A verdict on form and numbers."""

    def verify(args: Args, value: Any) -> str | None:
        return has_the_form(args, value) or _wrong_place(args, value, rotated(*args), tolerance)

    return verify


def keeps_scores(_: Args, value: Sequence[Tensor]) -> str | None:
    """Moving query and key together leaves their product; for the probe `call_each`."""
    q, k, moved_q, moved_k = (vector.double().reshape(-1) for vector in value)
    score, moved = float(q @ k), float(moved_q @ moved_k)
    if abs(score - moved) > FLOAT32.allowed(float(q.norm() * k.norm())):
        return (
            f"gives a query and a key whose product is {score:.4f}, and {moved:.4f} when both are "
            "moved by the same number of places"
        )
    return None


def keeps_lengths(args: Args, value: Sequence[Tensor]) -> str | None:
    """A vector that is turned is as long as before."""
    for (vector, position, _), got in zip(args, value, strict=True):
        before, after = float(vector.double().norm()), float(got.double().norm())
        if abs(before - after) > FLOAT32.allowed(before):
            return (
                f"gives a vector of length {after:.4f} for one of length {before:.4f} at position "
                f"{int(position[0])}"
            )
    return None


def turns_pairs_of_calls(args: Args, value: Any) -> str | None:
    """Both properties of a rotation."""
    for call, got in zip(args, value, strict=True):
        problem = has_the_form(call, got)
        if problem:
            return problem
    return keeps_lengths(args, value) or keeps_scores(args, value)


def passes_gradients(args: Args, value: Any) -> str | None:
    """For the probe `gradients`: turning back is the gradient of turning."""
    turned, (gradient,) = value
    if gradient is None:
        return "gives a result from which no gradient flows back to x"
    x, positions, base = args
    problem = _wrong_place(args, turned, rotated(*args), FLOAT32)
    if problem:
        return problem
    weights = torch.cos(torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape)
    found = difference(rotated(weights, positions, base, sign=-1), gradient, FLOAT32)
    return None if found is None else f"gives a result whose gradient is wrong: {found}"


FORM = "returns a tensor like x"
SCORES = "scores depend on distances only"
PLAIN = "positions 0, 1, 2, ..."
ONE_ROW = "any positions, one row for all"
OWN_ROWS = "each row its own positions"
BASES = "other bases, other sizes"
VIEWS = "any layout in memory"
HALVES = "half precision"
GRADIENT = "the gradient flows"


def near_far(a: Any, b: Any) -> bool:
    """Whether two answers at far positions are the same."""
    return same(a, b, FAR_ANGLES)


def same_half(a: Any, b: Any) -> bool:
    """Whether two answers in half precision are of one dtype and the same but for rounding."""
    return getattr(a, "dtype", None) == getattr(b, "dtype", None) and same(a, b, HALF)


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


CLOSELY, FAR = is_turned(FLOAT32), is_turned(FAR_ANGLES)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_plain, has_the_form, 1, same=near_and_alike),
    _check(SCORES, Kind.PROPERTY, 1, draw_pairs, turns_pairs_of_calls, 2, probe="call_each"),
    _check(PLAIN, Kind.ORACLE, 2, draw_plain, CLOSELY, 2, pure=True),
    _check(ONE_ROW, Kind.ORACLE, 3, draw_one_row, FAR, 3, same=near_far),
    _check(OWN_ROWS, Kind.ORACLE, 3, draw_own_rows, FAR, 3, same=near_far),
    _check(BASES, Kind.ORACLE, 1, draw_bases, CLOSELY, 1),
    _check(VIEWS, Kind.ORACLE, 1, draw_views, CLOSELY, 2),
    _check(HALVES, Kind.ORACLE, 2, draw_half, is_turned(HALF), 4, same=same_half),
    _check(GRADIENT, Kind.ORACLE, 1, draw_gradients, passes_gradients, 4, probe="gradients"),
)

REFERENCE = source_of(rotate)
