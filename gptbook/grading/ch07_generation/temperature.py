"""Exercise 7.1: temperature and its limits: its checks."""

import math
import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch07_generation.common import distinct
from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import difference, form_problem, normal, same


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return the probabilities, (..., V), from which to draw at a temperature."""
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or above, got {temperature}")
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature == 0:
        best = z.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(z).scatter(-1, best, 1.0)
    below = z - z.amax(dim=-1, keepdim=True)
    if temperature == math.inf:
        scaled = torch.where(z == -math.inf, z, 0.0)
    else:
        scaled = below.double() / temperature
    return torch.softmax(scaled, dim=-1).to(z.dtype)


# --- inputs: logits (..., V), temperature ---


def draw_row(stream: random.Random, *shape: int) -> Tensor:
    """Rows of logits that are apart, so that rounding decides nothing."""
    rows = [distinct(stream, shape[-1], 0.3) for _ in range(math.prod(shape[:-1]))]
    return torch.stack(rows).view(shape)


def draw_forms(stream: random.Random) -> list[Args]:
    """No leading axis, one and two; float64 once."""
    wide = draw_row(stream, 2, 5).double()
    shapes = ((5,), (2, 3, 4))
    return [*((draw_row(stream, *shape), 0.7) for shape in shapes), (wide, 0.7)]


def draw_usual(stream: random.Random) -> list[Args]:
    """Temperatures below 1, at 1 and above."""
    low, high = stream.uniform(0.3, 0.8), stream.uniform(1.5, 4.0)
    return [(draw_row(stream, 3, 5), t) for t in (low, 1.0, high)]


def draw_zero(stream: random.Random) -> list[Args]:
    """Rows without ties."""
    return [(draw_row(stream, 4, 6), 0.0), (draw_row(stream, 2, 3, 5), 0)]


def with_ties(stream: random.Random, n_rows: int, size: int) -> Tensor:
    """Rows whose largest logit occurs two or three times."""
    rows = draw_row(stream, n_rows, size)
    tied = torch.zeros(n_rows, size, dtype=torch.bool)
    for row in range(n_rows):
        places = stream.sample(range(size), stream.randint(2, 3))
        tied[row, places] = True
    return torch.where(tied, rows.amax() + 1, rows)


def draw_ties(stream: random.Random) -> list[Args]:
    """Ties for the largest, at zero."""
    return [(with_ties(stream, 4, 7), 0.0)]


def draw_tiny(stream: random.Random) -> list[Args]:
    """Small temperatures with ties: one is small, one makes logits overflow, one float32 lacks."""
    shifts = {2e-3: 0, 1e-7: 0, 1e-37: 1000, 1e-50: 0}
    return [(with_ties(stream, 3, 5) + shift, t) for t, shift in shifts.items()]


def draw_high(stream: random.Random) -> list[Args]:
    """High temperatures, and logits that are far apart, so that not all probabilities are seen."""
    far = 60 * draw_row(stream, 3, 5)
    return [(far, stream.uniform(50, 100)), (far, 1e7), (far, math.inf)]


def draw_impossible(stream: random.Random) -> list[Args]:
    """Ids that cannot be chosen."""
    cases: list[Args] = []
    for temperature in (0.5, 2.0, 1e38, math.inf):
        rows = draw_row(stream, 3, 6)
        for row in rows:
            row[stream.sample(range(6), stream.randint(1, 4))] = -math.inf
        cases.append((rows, temperature))
    return cases


def draw_half(stream: random.Random) -> list[Args]:
    """Logits in 16 bits."""
    narrow = (torch.bfloat16, torch.float16)
    return [((3 * normal(stream, 2, 6)).to(dtype), 0.7) for dtype in narrow]


def draw_refused(stream: random.Random) -> list[Args]:
    """What is no temperature."""
    row = draw_row(stream, 2, 4)
    return [(row, -stream.uniform(0.1, 2)), (row, -math.inf), (row, math.nan)]


# --- verdicts ---


def wide_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """The probabilities in float64, by cases."""
    z = logits.double()
    highest = z.amax(-1, keepdim=True)
    if temperature == 0:
        first = (z == highest).int().cumsum(-1)
        return ((z == highest) & (first == 1)).double()
    possible = z > -math.inf
    if temperature == math.inf:
        return possible / possible.sum(-1, keepdim=True)
    shares = torch.where(possible, ((z - highest) / temperature).exp(), 0.0)
    return shares / shares.sum(-1, keepdim=True)


def has_the_form(args: Args, value: Any) -> str | None:
    """A tensor like the logits, in float32 or wider."""
    logits = args[0]
    return form_problem(value, logits.to(torch.promote_types(logits.dtype, torch.float32)))


def is_right(args: Args, value: Any) -> str | None:
    """The probabilities; what is impossible must be exactly so."""
    problem = has_the_form(args, value) or difference(wide_probabilities(*args), value)
    if problem:
        return problem
    if args[1] != 0 and (value[args[0] == -math.inf] != 0).any():
        return "gives a probability above zero to an id whose logit is -inf"
    return None


def is_refused(args: Args, value: Any) -> str | None:
    """A ValueError."""
    kind, content = value
    if kind == "returned":
        return f"returns {show(content)}, expected a ValueError"
    return None if "ValueError" in content else f"raises {content[0]}, expected a ValueError"


FORM = "returns a tensor like the logits; changes nothing"
USUAL = "temperatures near 1"
ZERO = "0 is greedy"
TIES = "0: among equal logits the lowest id"
TINY = "the smallest temperatures: nothing overflows, ties share"
HIGH = "high temperatures, and infinity: all alike"
IMPOSSIBLE = "-inf stays impossible at every temperature"
HALF = "logits in 16 bits"
REFUSED = "refuses a temperature below 0, and NaN"

_check = partial(Check, same=same)
_right = partial(_check, verify=is_right, kind=Kind.ORACLE)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, pure=True),
    _right(USUAL, points=2, draw=draw_usual),
    _right(ZERO, points=1, draw=draw_zero, hint=2),
    _right(TIES, points=1, draw=draw_ties, hint=2),
    _right(TINY, points=2, draw=draw_tiny, hint=3),
    _right(HIGH, points=1, draw=draw_high, hint=4),
    _right(IMPOSSIBLE, points=2, draw=draw_impossible, hint=4),
    _right(HALF, points=1, draw=draw_half, hint=1),
    _check(REFUSED, Kind.BEHAVIOR, 1, draw_refused, is_refused, probe="attempt", hint=2),
)

REFERENCE = source_of(at_temperature)
