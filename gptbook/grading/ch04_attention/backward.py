"""Exercise 4.5: the backward pass of attention, by hand: its checks."""

import math
import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch04_attention.common import COARSE, some, whole
from gptbook.grading.compare import Tolerance, show
from gptbook.grading.exercise import Args, Check, Kind, Verify, source_of
from gptbook.grading.tensors import FLOAT32, difference, form_problem, normal, same

NAMES = ("dq", "dk", "dv")


def attention_backward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, d_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a loss for q, k and v, from its gradient for attention's output."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = (q @ k.transpose(-2, -1) * scale).masked_fill(~mask, torch.finfo(q.dtype).min)
    weights = torch.softmax(scores, dim=-1).masked_fill(~mask, 0.0)
    dv = weights.transpose(-2, -1) @ d_out
    d_weights = d_out @ v.transpose(-2, -1)
    mean = (weights * d_weights).sum(dim=-1, keepdim=True)
    d_scores = weights * (d_weights - mean)
    return d_scores @ k * scale, d_scores.transpose(-2, -1) @ q * scale, dv


# --- inputs: q (B, H, T, D), k and v (B, H, S, D), mask (T, S), d_out (B, H, T, D) ---


def draw_call(
    stream: random.Random, shape: tuple[int, int], n_query: int, n_key: int, d_head: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normal numbers; every query sees a key and does not see another."""
    q = normal(stream, *shape, n_query, d_head, scale=1.5)
    k = normal(stream, *shape, n_key, d_head, scale=1.5)
    v, d_out = (normal(stream, *shape, n, d_head) for n in (n_key, n_query))
    return q, k, v, some(stream, n_query, n_key), d_out


def draw_forms(stream: random.Random) -> list[Args]:
    """More keys than queries, and fewer; float64 once."""
    q, k, v, mask, d_out = draw_call(stream, (1, 2), 2, 3, 4)
    wide = (q.double(), k.double(), v.double(), mask, d_out.double())
    return [draw_call(stream, (2, 1), 4, 3, 2), wide]


def draw_square(stream: random.Random) -> list[Args]:
    """As many keys as queries, so that what is transposed wrongly still runs."""
    q, k, v, _, d_out = draw_call(stream, (2, 2), 5, 5, 4)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    return [(q, k, v, causal, d_out), draw_call(stream, (1, 2), 4, 4, 3)]


def draw_hidden(stream: random.Random) -> list[Args]:
    """A key that no query sees."""
    cases: list[Args] = []
    for n_query, n_key in ((4, 5), (3, 4)):
        q, k, v, mask, d_out = draw_call(stream, (1, 2), n_query, n_key, 4)
        place, other = stream.sample(range(n_key), 2)
        mask[:, other] = True
        mask[:, place] = False
        cases.append((q, k, v, mask, d_out))
    return cases


def draw_blind(stream: random.Random) -> list[Args]:
    """Queries that see nothing: one among others, and all."""
    q, k, v, mask, d_out = draw_call(stream, (1, 2), 3, 4, 4)
    mask[stream.randrange(3)] = False
    return [(q, k, v, mask, d_out), (q, k, v, torch.zeros_like(mask), d_out)]


def draw_extreme(stream: random.Random) -> list[Args]:
    """Scores in the thousands, exact in float32; two keys are equal and the best by far."""
    cases: list[Args] = []
    for best in (60.0, -60.0):
        q, k, v, mask, d_out = draw_call(stream, (1, 2), 3, 5, 4)
        q, k = whole(stream, 20, 40, *q.shape), best - whole(stream, 20, 40, *k.shape)
        first, second = stream.sample(range(5), 2)
        k[:, :, first] = k[:, :, second] = best
        mask[:, first] = mask[0, second] = True
        cases.append((q, k, v, mask, d_out))
    return cases


# --- verdicts ---


def wide_backward(*args: Tensor) -> tuple[Tensor, ...]:
    """The three gradients in float64, by torch's own differentiation of a plain forward pass."""
    q, k, v = (item.double().requires_grad_() for item in args[:3])
    mask, d_out = args[3], args[4].double()
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    weights = torch.softmax(scores.masked_fill(~mask, -1e300), dim=-1).masked_fill(~mask, 0.0)
    return torch.autograd.grad((weights @ v * d_out).sum(), (q, k, v))


def has_the_form(args: Args, value: Any) -> str | None:
    """Three tensors of the shapes of q, k and v."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return f"gives {show(value)}, expected three tensors: dq, dk, dv"
    problems = (form_problem(a, b, n) for a, b, n in zip(value, args, NAMES, strict=False))
    return next(filter(None, problems), None)


def part_is_right(part: int, tolerance: Tolerance = FLOAT32) -> Verify:
    """A verdict on one of the three gradients."""

    def verify(args: Args, value: Any) -> str | None:
        problem = difference(wide_backward(*args)[part], value[part], tolerance)
        return problem and problem.replace("gives", f"gives as {NAMES[part]}", 1)

    return verify


def keys_sum_to_zero(args: Args, value: Any) -> str | None:
    """Moving all keys by the same vector changes no weight, so that their gradients cancel."""
    dk = value[1]
    problem = form_problem(dk, args[1], "dk")
    if problem:
        return problem
    total, size = dk.double().sum(dim=-2), dk.double().abs().sum(dim=-2).max()
    if (total.abs() <= FLOAT32.relative * size).all():
        return None
    return (
        f"gives gradients of the keys that sum to {show(total[0, 0])}, expected zero: the same "
        "vector added to all keys moves all of a query's scores alike, and the softmax not at all"
    )


def hidden_is_zero(args: Args, value: Any) -> str | None:
    """Nothing comes back to a key that no query sees."""
    place = (~args[3].any(dim=0)).nonzero()[0, 0].item()
    for part in (1, 2):
        problem = form_problem(value[part], args[part], NAMES[part])
        if problem:
            return problem
        found = value[part][:, :, place]
        if not (found == 0).all():
            return (
                f"gives {show(found[0, 0])} as {NAMES[part]} of key {place}, which no query sees, "
                "expected zeros"
            )
    return None


def blind_is_zero(args: Args, value: Any) -> str | None:
    """Nothing comes back from a query that sees nothing, and nothing is NaN."""
    seeing = args[3].any(dim=1)
    for part in range(3):
        problem = form_problem(value[part], args[part], NAMES[part])
        if problem:
            return problem
        if not value[part].isfinite().all():
            return f"gives NaN or infinity in {NAMES[part]} where a query sees nothing"
        quiet = value[part][:, :, ~seeing] if part == 0 else value[part]
        if (part == 0 or not seeing.any()) and not (quiet == 0).all():
            return f"gives a {NAMES[part]} that is not zero from queries that see nothing"
    return None


def extreme_is_right(args: Args, value: Any) -> str | None:
    """All finite, and dv right; dq and dk have their own checks."""
    for name, found in zip(NAMES, value, strict=True):
        if not found.isfinite().all():
            return f"gives NaN or infinity in {name}"
    return part_is_right(2, COARSE)(args, value)


def same_part(part: int) -> Any:
    """Whether two answers agree in one of the gradients."""
    return lambda a, b: same(a[part], b[part])


FORM = "returns dq, dk and dv like q, k and v; changes nothing"
SHIFT = "the gradients of all keys sum to zero"
HIDDEN = "a key that no query sees gets no gradient"
VALUES = "dv"
KEYS = "dk"
QUERIES = "dq"
BLIND = "a query that sees nothing gives no gradient"
EXTREME = "scores in the thousands"

_check = partial(Check, same=same)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, pure=True),
    _check(SHIFT, Kind.PROPERTY, 1, draw_square, keys_sum_to_zero, hint=3),
    _check(HIDDEN, Kind.PROPERTY, 1, draw_hidden, hidden_is_zero, hint=3),
    _check(VALUES, Kind.ORACLE, 2, draw_square, part_is_right(2), hint=2, same=same_part(2)),
    _check(KEYS, Kind.ORACLE, 3, draw_square, part_is_right(1), hint=4, same=same_part(1)),
    _check(QUERIES, Kind.ORACLE, 3, draw_square, part_is_right(0), hint=4, same=same_part(0)),
    _check(BLIND, Kind.ORACLE, 1, draw_blind, blind_is_zero, hint=1),
    _check(EXTREME, Kind.ORACLE, 1, draw_extreme, extreme_is_right, hint=1),
)

REFERENCE = source_of(attention_backward)
