"""Exercise 5.2: RMSNorm with eps inside of the root: its checks."""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading import compare
from gptbook.grading.ch05_blocks.common import vectors, weights
from gptbook.grading.compare import Tolerance, rounding, show
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import FLOAT32, difference, form_problem, normal, same


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return each vector of x divided by the root of its mean square, times weight."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean_square = wide.pow(2).mean(dim=-1, keepdim=True)
    normalized = wide * torch.rsqrt(mean_square + eps)
    return (normalized * weight).to(x.dtype)


# --- inputs: x (..., C), weight (C,), eps ---

NO_EPS = 1e-8  # so small that where it stands does not matter; one check is about eps


def draw_plain(stream: random.Random) -> list[Args]:
    """No leading axis, one and two; vectors with a mean."""
    shapes = ((5,), (3, 4), (2, 3, 4))
    return [(vectors(stream, *shape), weights(stream, shape[-1]), NO_EPS) for shape in shapes]


def draw_dtypes(stream: random.Random) -> list[Args]:
    """Half types with weights of the same type and of float32; float64."""
    x, weight = vectors(stream, 2, 4), weights(stream, 4)
    return [
        (x.bfloat16(), weight.bfloat16(), NO_EPS),
        (x.half(), weight, NO_EPS),
        (normal(stream, 2, 4, dtype=torch.float64) / 3, weight.double(), 0.0),
    ]


def draw_rows(stream: random.Random) -> list[Args]:
    """A batch, and the same batch with one vector replaced by a larger one."""
    x, weight = vectors(stream, 2, 3, 4), weights(stream, 4)
    other = x.clone()
    other[1, 2] = 5 * other[1, 2] + 1
    return [((x, weight, NO_EPS), (other, weight, NO_EPS))]


def draw_eps(stream: random.Random) -> list[Args]:
    """Mean squares about as large as eps, far smaller, and zero."""
    x, weight = vectors(stream, 3, 5), weights(stream, 5)
    small = x / 1024
    small[1] = 0
    return [
        (x, weight, stream.uniform(0.3, 0.9)),
        (small, weight, 1e-6),
        (x * 1e-18, weight, 1e-6),
    ]


def draw_half(stream: random.Random) -> list[Args]:
    """float16 whose squares are above 65,504, and whose squares are below 6e-8."""
    x, weight = vectors(stream, 2, 6), weights(stream, 6).half().float()
    large = x / x.abs().amax(-1, keepdim=True) * torch.tensor([[900.0], [60000.0]])
    return [
        (large.half(), weight, 1e-6),
        (large.half(), weight.half(), 1e-6),
        ((x * 1e-4).half(), weight, 1e-12),
    ]


def draw_gradients(stream: random.Random) -> list[Args]:
    """Inputs that need a gradient."""
    x, weight, eps = draw_plain(stream)[1]
    return [(x.requires_grad_(), weight.requires_grad_(), eps)]


# --- verdicts ---

HALF = Tolerance(4e-3, "float16 has 11 bits, and there are two roundings, times 4")


def wide_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in float64."""
    x, weight = x.double(), weight.double()
    return x / ((x * x).mean(-1, keepdim=True) + eps).sqrt() * weight


def has_the_form(args: Args, value: Any) -> str | None:
    """A tensor like x."""
    return form_problem(value, args[0])


def keeps_the_dtype(args: Args, value: Any) -> str | None:
    """The dtype is that of x; float64 is not rounded to float32 on the way."""
    problem = form_problem(value, args[0])
    if problem or args[0].dtype != torch.float64:
        return problem
    expected = wide_norm(*args)
    off = compare.difference(expected, value, rounding("float64", 50))
    if off is None or difference(expected, value):
        return None  # a wrong value is another check's matter
    return f"is in float64, but rounded more than that: {off}"


def each_on_its_own(args: Args, value: Any) -> str | None:
    """A vector's result does not depend on its neighbors."""
    before, after = value
    problem = form_problem(before, args[0][0]) or form_problem(after, args[1][0])
    if problem:
        return problem
    moved = (before.double() - after.double()).abs()
    moved[1, 2] = 0
    if (moved <= FLOAT32.allowed(before.numpy())).all():
        return None
    place = [int(i) for i in (moved > FLOAT32.allowed(before.numpy())).nonzero()[0][:2]]
    return (
        f"gives {show(after[tuple(place)])} for the vector {place} where it gave "
        f"{show(before[tuple(place)])} before another vector, [1, 2], was changed"
    )


def is_right(args: Args, value: Any) -> str | None:
    """The values."""
    return difference(wide_norm(*args), value)


def half_is_right(args: Args, value: Any) -> str | None:
    """The values, rounded."""
    if isinstance(value, Tensor) and not value.isfinite().all():
        return f"gives NaN or infinity for {args[0].dtype}: {show(value)}"
    return difference(wide_norm(*args), value, HALF)


def gradients_are_right(args: Args, value: Any) -> str | None:
    """The gradients of x and weight, against torch's own in float64."""
    x, weight = (item.detach().double().requires_grad_() for item in args[:2])
    out = wide_norm(x, weight, args[2])
    factors = torch.cos(torch.arange(out.numel(), dtype=torch.float64)).reshape(out.shape)
    expected = torch.autograd.grad(out, (x, weight), factors)
    for name, want, got in zip(("x", "weight"), expected, value[1], strict=True):
        if got is None:
            return f"gives a value from which no gradient comes back to {name}"
        problem = difference(want, got)
        if problem:
            return problem.replace("gives", f"gives as the gradient of {name}", 1)
    return None


def same_and_alike(a: Any, b: Any) -> bool:
    """Whether two answers are the same, and of one dtype."""
    if getattr(a, "dtype", None) != getattr(b, "dtype", None):
        return False
    tolerance = rounding("float64", 50) if a.dtype == torch.float64 else HALF
    return same(a, b, tolerance)


def same_half(a: Any, b: Any) -> bool:
    """Whether two answers are the same but for the rounding of float16."""
    return same(a, b, HALF)


FORM = "returns a tensor like x; changes nothing"
DTYPE = "the dtype of x, whatever the weight's"
ROWS = "each vector on its own"
VALUES = "divided by the root of the mean square"
EPS = "eps inside of the root"
HALVES = "float16 whose squares float16 does not have"
GRADIENT = "gradients of x and weight"

_check = partial(Check, same=same)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_plain, has_the_form, pure=True),
    _check(DTYPE, Kind.CONTRACT, 1, draw_dtypes, keeps_the_dtype, hint=4, same=same_and_alike),
    _check(ROWS, Kind.PROPERTY, 1, draw_rows, each_on_its_own, probe="call_each"),
    _check(VALUES, Kind.ORACLE, 2, draw_plain, is_right, hint=1),
    _check(EPS, Kind.ORACLE, 2, draw_eps, is_right, hint=2),
    _check(HALVES, Kind.ORACLE, 2, draw_half, half_is_right, hint=3, same=same_half),
    _check(GRADIENT, Kind.ORACLE, 1, draw_gradients, gradients_are_right, probe="gradients"),
)

REFERENCE = source_of(rms_norm)
