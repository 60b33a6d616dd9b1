"""Exercise 6.2: gradients shortened together, and never made longer: its checks."""

import math
import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading import compare
from gptbook.grading.ch06_training.common import (
    bits_changed,
    number_problem,
)
from gptbook.grading.compare import Tolerance, show
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import difference, normal, same


def clip_gradients(grads: tuple[Tensor | None, ...], max_norm: float) -> float:
    """Shorten gradients together, in place, to at most max_norm; return what their norm was."""
    present = [grad for grad in grads if grad is not None]
    total = 0.0
    for grad in present:
        total += grad.float().pow(2).sum().item()
    norm = math.sqrt(total)
    if math.isfinite(norm) and norm > max_norm:
        for grad in present:
            grad.mul_(max_norm / norm)
    return norm


# --- inputs: (grads,), then (max_norm,) ---

Gradients = tuple[Tensor | None, ...]


def case(grads: Gradients, max_norm: float) -> Args:
    """One call."""
    return (grads,), (max_norm,)


def gradients(stream: random.Random, norm: float) -> tuple[Tensor, ...]:
    """A matrix that is transposed, a vector that is larger, a number; of a norm, all together."""
    scales = ((3, 2), 1.0), ((4,), 5.0), ((), 1.0)
    drawn = [scale * normal(stream, *shape) for shape, scale in scales]
    drawn[0] = drawn[0].T
    return of_norm(drawn, norm)


def of_norm(items: list[Tensor], norm: float) -> tuple[Tensor, ...]:
    """Tensors scaled so that all together have a norm."""
    return tuple((item.double() * (norm / wide_norm(items))).float() for item in items)


def draw_forms(stream: random.Random) -> list[Args]:
    """Above and below the limit; one gradient."""
    return [
        case(gradients(stream, 3.0), 1.0),
        case(gradients(stream, 0.5), 1.0),
        case((normal(stream, 2, 3),), 0.5),
    ]


def draw_short(stream: random.Random) -> list[Args]:
    """Below the limit; the limit has no end."""
    limit = stream.uniform(1.0, 3.0)
    return [
        case(gradients(stream, limit * stream.uniform(0.3, 0.9)), limit),
        case(gradients(stream, 0.9 * limit), limit),
        case(gradients(stream, 100.0), math.inf),
    ]


def draw_long(stream: random.Random) -> list[Args]:
    """A little above the limit, and far above it. Limits are not 1."""
    low, high = stream.uniform(0.5, 0.8), stream.uniform(1.5, 3.0)
    return [
        case(gradients(stream, 1.5 * low), low),
        case(gradients(stream, 1.2 * high), high),
        case(gradients(stream, 1000.0 * high), high),
    ]


def draw_norms(stream: random.Random) -> list[Args]:
    """Above and below the limit."""
    return [
        case(gradients(stream, stream.uniform(2.0, 4.0)), 1.5),
        case(gradients(stream, stream.uniform(2.0, 4.0)), 10.0),
    ]


def draw_none(stream: random.Random) -> list[Args]:
    """Some without a gradient; all of them; gradients of zeros."""
    first, *others = gradients(stream, 4.0)
    return [
        case((None, first, None, *others), 1.5),
        case((None, None), 1.5),
        case((torch.zeros(2, 3), torch.zeros(2)), 1.5),
    ]


def draw_broken(stream: random.Random) -> list[Args]:
    """A norm that is infinite, and one that is NaN."""
    cases = []
    for bad in (math.inf, -math.inf, math.nan):
        first, *others = gradients(stream, 4.0)
        first = first.clone()
        first[1, 1] = bad
        cases.append(case((first, *others), 1.5))
    return cases


def draw_half(stream: random.Random) -> list[Args]:
    """float16 whose squares are infinite in float16, and bfloat16, which has three digits."""
    large = [200 + 100 * normal(stream, 3, 4).abs() for _ in range(2)]
    cases = [case(tuple(item.half() for item in large), 500.0)]
    for _ in range(2):
        small = gradients(stream, 3.0)
        cases.append(case((small[0].bfloat16(), small[1]), 1.5))
    return cases


# --- verdicts ---

BFLOAT = Tolerance(2e-2, "bfloat16 has 8 bits, times 4")


def wide_norm(items: Any) -> float:
    """The norm of tensors laid end to end, in float64."""
    return math.sqrt(sum(float(item.double().pow(2).sum()) for item in items if item is not None))


def wide_clip(args: Args) -> tuple[list[Tensor | None], float]:
    """What the gradients must be afterwards, and what must be returned."""
    (grads,), (max_norm,) = args
    norm = wide_norm(grads)
    factor = max_norm / norm if math.isfinite(norm) and norm > max_norm else 1.0
    return [None if grad is None else grad.double() * factor for grad in grads], norm


def returned(args: Args, value: Any) -> str | None:
    """A number is returned."""
    return number_problem(value[0][0], "the norm as a number")


def has_the_form(args: Args, value: Any) -> str | None:
    """A number is returned, and the gradients keep shape and dtype."""
    problem = returned(args, value)
    if problem:
        return problem
    for index, (old, new) in enumerate(zip(args[0][0], value[0][1], strict=True)):
        if new.shape != old.shape or new.dtype != old.dtype:
            got, wanted = f"{tuple(new.shape)}, {new.dtype}", f"{tuple(old.shape)}, {old.dtype}"
            return f"makes gradient {index} {got}, expected {wanted}"
    return None


def keeps_bits(args: Args, value: Any) -> str | None:
    """No gradient has changed."""
    problem = returned(args, value)
    if problem:
        return problem
    (grads,), (max_norm,) = args
    for index, (old, new) in enumerate(zip(grads, value[0][1], strict=True)):
        if old is not None and bits_changed(old, new):
            norm = wide_norm(grads)
            why = f"their norm, {norm:.4g}, is not above {max_norm:.4g}"
            if not math.isfinite(norm):
                why = f"their norm is {norm}, so nothing can be made of them"
            return f"changes gradient {index} from {show(old)} to {show(new)}, but {why}"
    return None


def norm_is_right(args: Args, value: Any) -> str | None:
    """The number that is returned."""
    problem = returned(args, value)
    if problem:
        return problem
    norm = wide_clip(args)[1]
    if difference(norm, float(value[0][0])) is None:
        return None
    after = wide_norm(value[0][1])
    return f"returns {float(value[0][0]):.6g}; the norm was {norm:.6g} before and is {after:.6g}"


def gradients_are_right(args: Args, value: Any) -> str | None:
    """The gradients afterwards."""
    problem = returned(args, value)
    if problem:
        return problem
    for index, (want, have) in enumerate(zip(wide_clip(args)[0], value[0][1], strict=True)):
        narrow = have is not None and have.dtype != torch.float32
        found = want is not None and (
            compare.difference(want, have, BFLOAT) if narrow else difference(want, have)
        )
        if found:
            norm = wide_norm(value[0][1])
            return (
                f"leaves a wrong gradient {index}, and all together with norm {norm:.4g}: {found}"
            )
    return None


def all_is_right(args: Args, value: Any) -> str | None:
    """Both."""
    return norm_is_right(args, value) or gradients_are_right(args, value)


def broken_is_left(args: Args, value: Any) -> str | None:
    """Gradients of no use stay as they are, and the norm says so."""
    problem = returned(args, value)
    if problem:
        return problem
    norm, got = wide_norm(args[0][0]), float(value[0][0])
    if not (got == norm or (math.isnan(got) and math.isnan(norm))):
        return f"returns {got}, expected {norm}, by which the training loop sees what happened"
    return keeps_bits(args, value)


def same_all(a: Any, b: Any) -> bool:
    """Whether two functions returned the same and left the same gradients."""
    return same([row[:2] for row in a], [row[:2] for row in b])


FORM = "returns a number, keeps shapes and dtypes"
SHORT = "short gradients keep their bits"
NORM = "returns the norm as it was before"
LONG = "long ones are shortened by one factor, to max_norm"
NONE = "missing gradients, and gradients of zero"
BROKEN = "a norm that is infinite or NaN"
HALF = "the norm of float16 and bfloat16 in float32"

_check = partial(Check, probe="in_turn", same=same_all)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form),
    _check(SHORT, Kind.PROPERTY, 2, draw_short, keeps_bits, hint=2),
    _check(NORM, Kind.ORACLE, 2, draw_norms, norm_is_right, hint=1),
    _check(LONG, Kind.ORACLE, 3, draw_long, gradients_are_right, hint=2),
    _check(NONE, Kind.ORACLE, 2, draw_none, all_is_right, hint=1),
    _check(BROKEN, Kind.ORACLE, 1, draw_broken, broken_is_left, hint=4),
    _check(HALF, Kind.ORACLE, 1, draw_half, all_is_right, hint=3),
)

REFERENCE = source_of(clip_gradients)
