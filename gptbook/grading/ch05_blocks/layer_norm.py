"""Exercise 5.1: the backward pass of LayerNorm, by hand: its checks."""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch05_blocks.common import vectors, weights
from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, Same, Verify, source_of
from gptbook.grading.tensors import FLOAT32, difference, form_problem, normal, same

NAMES = ("grad_x", "grad_weight", "grad_bias")


def layer_norm_backward(
    x: Tensor, weight: Tensor, grad_out: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a loss for x, weight and bias, from its gradient for the output."""
    width = x.shape[-1]
    centered = x - x.mean(dim=-1, keepdim=True)
    variance = (centered**2).mean(dim=-1, keepdim=True)
    root = torch.sqrt(variance + eps)
    normalized = centered / root
    d_normalized = grad_out * weight
    mean = d_normalized.mean(dim=-1, keepdim=True)
    along = (d_normalized * normalized).mean(dim=-1, keepdim=True)
    grad_x = (d_normalized - mean - normalized * along) / root
    grad_weight = (grad_out * normalized).reshape(-1, width).sum(dim=0)
    grad_bias = grad_out.reshape(-1, width).sum(dim=0)
    return grad_x, grad_weight, grad_bias


# --- inputs: x (..., C), weight (C,), grad_out like x, eps ---

NO_EPS = 1e-8  # so small that where it stands does not matter; one check is about eps


def draw_call(stream: random.Random, *shape: int, eps: float = NO_EPS) -> Args:
    """Vectors with a mean, and weights that are not 1."""
    return vectors(stream, *shape), weights(stream, shape[-1]), normal(stream, *shape), eps


def draw_forms(stream: random.Random) -> list[Args]:
    """No leading axis, one, two and three; float64 once."""
    x, weight, grad_out, eps = draw_call(stream, 3, 4)
    wide = (x.double(), weight.double(), grad_out.double(), eps)
    shapes = ((5,), (2, 3, 4), (2, 1, 2, 3))
    return [*(draw_call(stream, *shape) for shape in shapes), wide]


def draw_plain(stream: random.Random) -> list[Args]:
    """Two shapes whose leading axes are not 1."""
    return [draw_call(stream, 3, 5), draw_call(stream, 2, 3, 4)]


def draw_eps(stream: random.Random) -> list[Args]:
    """An eps of the variance's size; vectors that are nearly or exactly constant."""
    usual = draw_call(stream, 3, 4, eps=stream.uniform(0.2, 0.8))
    x, weight, grad_out, _ = draw_call(stream, 3, 5)
    tiny = x / 256
    tiny[1] = 0.25
    return [usual, (tiny, weight, grad_out, 1e-5)]


def draw_views(stream: random.Random) -> list[Args]:
    """An x that is transposed; the gradient of a sum, which is one number expanded."""
    x, weight, grad_out, eps = draw_call(stream, 2, 3, 4)
    expanded = normal(stream, 1, 1, 1).expand(2, 3, 4)
    return [
        (x.transpose(0, 1), weight, grad_out.transpose(0, 1), eps),
        (x, weight, expanded, eps),
    ]


# --- verdicts ---


def wide_backward(x: Tensor, weight: Tensor, grad_out: Tensor, eps: float) -> tuple[Tensor, ...]:
    """The three gradients in float64, by torch's own differentiation of a plain forward pass."""
    x, weight = (item.detach().double().requires_grad_() for item in (x, weight))
    bias = torch.zeros_like(weight).requires_grad_()
    centered = x - x.mean(-1, keepdim=True)
    out = centered / ((centered**2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias
    return torch.autograd.grad(out, (x, weight, bias), grad_out.double())


def has_the_form(args: Args, value: Any) -> str | None:
    """Three tensors of the shapes of x, weight and bias."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return f"gives {show(value)}, expected three tensors: grad_x, grad_weight, grad_bias"
    like = (args[0], args[1], args[1])
    problems = (form_problem(a, b, n) for a, b, n in zip(value, like, NAMES, strict=True))
    return next(filter(None, problems), None)


def sums_to_zero(args: Args, value: Any) -> str | None:
    """The same number added to all of a vector changes nothing, so its gradients cancel."""
    problem = form_problem(value[0], args[0], "grad_x")
    if problem:
        return problem
    grad_x = value[0].double()
    total = grad_x.sum(-1)
    if (total.abs() <= FLOAT32.relative * grad_x.abs().sum(-1).max()).all():
        return None
    return (
        f"gives a grad_x whose vectors sum to {show(total.reshape(-1))}, expected zero: the same "
        "number added to all of a vector does not change what is normalized"
    )


def part_is_right(part: int) -> Verify:
    """A verdict on one of the three gradients."""

    def verify(args: Args, value: Any) -> str | None:
        problem = difference(wide_backward(*args)[part], value[part])
        return problem and problem.replace("gives", f"gives as {NAMES[part]}", 1)

    return verify


def all_is_right(args: Args, value: Any) -> str | None:
    """A verdict on all three."""
    problems = (part_is_right(part)(args, value) for part in range(3))
    return next(filter(None, problems), None)


def same_part(part: int) -> Same:
    """Whether two answers agree in one of the gradients."""
    return lambda a, b: same(a[part], b[part])


FORM = "returns grad_x, grad_weight and grad_bias; changes nothing"
SHIFT = "each vector of grad_x sums to zero"
BIAS = "grad_bias"
WEIGHT = "grad_weight"
INPUT = "grad_x"
EPS = "eps inside the root, and vectors that are constant"
VIEWS = "any layout in memory"

_check = partial(Check, same=same)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, pure=True),
    _check(SHIFT, Kind.PROPERTY, 1, draw_plain, sums_to_zero, hint=3, same=same_part(0)),
    _check(BIAS, Kind.ORACLE, 1, draw_plain, part_is_right(2), hint=2, same=same_part(2)),
    _check(WEIGHT, Kind.ORACLE, 2, draw_plain, part_is_right(1), hint=2, same=same_part(1)),
    _check(INPUT, Kind.ORACLE, 4, draw_plain, part_is_right(0), hint=4, same=same_part(0)),
    _check(EPS, Kind.ORACLE, 2, draw_eps, all_is_right, hint=1),
    _check(VIEWS, Kind.ORACLE, 1, draw_views, all_is_right, hint=2),
)

REFERENCE = source_of(layer_norm_backward)
