"""Exercise 5.3: norms before or after the branches, and the gradients along the stream: checks."""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch05_blocks.common import vectors, weights
from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, Same, Verify, source_of
from gptbook.grading.tensors import FLOAT32, difference, form_problem, normal, same


def run_stack(
    x: Tensor,
    matrices: Tensor,
    weights: Tensor,
    position: str,
    final_weight: Tensor,
    grad_out: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the output of a stack of branches, and the stream's gradients, (L + 1, ..., C)."""

    def norm(v: Tensor, weight: Tensor) -> Tensor:
        square = v.pow(2).mean(dim=-1, keepdim=True)
        return v * torch.rsqrt(square + 1e-5) * weight

    streams = [x.detach().clone().requires_grad_()]
    for matrix, weight in zip(matrices, weights, strict=True):
        stream = streams[-1]
        if position == "pre":
            stream = stream + torch.tanh(norm(stream, weight) @ matrix.T)
        else:
            stream = norm(stream + torch.tanh(stream @ matrix.T), weight)
        streams.append(stream)
    output = norm(streams[-1], final_weight) if position == "pre" else streams[-1]
    gradients = torch.autograd.grad(output, streams, grad_out)
    return output.detach(), torch.stack(gradients)


# --- inputs: x (..., C), matrices (L, C, C), weights (L, C), position, final_weight (C,),
#     grad_out like x ---


def draw_call(stream: random.Random, position: str, n_branch: int, *shape: int) -> Args:
    """Branches whose matrices are not symmetric."""
    width = shape[-1]
    return (
        vectors(stream, *shape),
        normal(stream, n_branch, width, width) / 2,
        weights(stream, n_branch, width),
        position,
        weights(stream, width),
        normal(stream, *shape),
    )


def draw_forms(stream: random.Random) -> list[Args]:
    """Both positions, no leading axis and two, and one branch."""
    return [
        draw_call(stream, "pre", 3, 2, 3, 4),
        draw_call(stream, "post", 2, 4),
        draw_call(stream, "post", 1, 2, 3),
    ]


def draw_idle(stream: random.Random) -> list[Args]:
    """Pre-norm with branches that add nothing."""
    x, matrices, *others = draw_call(stream, "pre", 3, 2, 4)
    return [(x, torch.zeros_like(matrices), *others)]


def draw_pre(stream: random.Random) -> list[Args]:
    """The norm in front of each branch."""
    return [draw_call(stream, "pre", 3, 2, 4), draw_call(stream, "pre", 2, 2, 1, 3)]


def draw_post(stream: random.Random) -> list[Args]:
    """The norm behind each sum."""
    return [draw_call(stream, "post", 3, 2, 4), draw_call(stream, "post", 2, 2, 1, 3)]


# --- verdicts ---


def wide_stack(
    x: Tensor, matrices: Tensor, scales: Tensor, position: str, final: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor]:
    """The output and the gradients in float64: each from a run of what is left of the stack."""

    def norm(v: Tensor, weight: Tensor) -> Tensor:
        return v / ((v * v).mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    def block(v: Tensor, index: int) -> Tensor:
        matrix, weight = matrices[index].double(), scales[index].double()
        if position == "pre":
            return v + torch.tanh(norm(v, weight) @ matrix.mT)
        return norm(v + torch.tanh(v @ matrix.mT), weight)

    def rest(v: Tensor, first: int) -> Tensor:
        for index in range(first, len(matrices)):
            v = block(v, index)
        return norm(v, final.double()) if position == "pre" else v * 1

    value, gradients = x.double(), []
    for index in range(len(matrices) + 1):
        start = value.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(rest(start, index), start, grad_out.double())
        gradients.append(gradient)
        value = block(value, index) if index < len(matrices) else value
    return rest(x.double(), 0), torch.stack(gradients)


def has_the_form(args: Args, value: Any) -> str | None:
    """The output like x, and L + 1 gradients like it."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return f"gives {show(value)}, expected two tensors: output, gradients"
    x, matrices = args[:2]
    like = x.expand(len(matrices) + 1, *x.shape)
    return form_problem(value[0], x, "output") or form_problem(value[1], like, "gradients")


def stream_carries_all(args: Args, value: Any) -> str | None:
    """Where branches add nothing, the gradient is the same along the whole stream."""
    gradients = value[1]
    x, matrices = args[:2]
    problem = form_problem(gradients, x.expand(len(matrices) + 1, *x.shape), "gradients")
    if problem:
        return problem
    problem = difference(wide_stack(*args)[1][-1], gradients[-1])
    if problem:
        return problem.replace("gives", "gives as the last gradient", 1)
    for index, gradient in enumerate(gradients):
        if difference(gradients[-1], gradient):
            return (
                f"gives {show(gradient[0])} in front of branch {index} and "
                f"{show(gradients[-1][0])} behind the last, though no branch adds anything: "
                "expected the same"
            )
    return None


def output_is_right(args: Args, value: Any) -> str | None:
    """The output."""
    problem = difference(wide_stack(*args)[0], value[0])
    return problem and problem.replace("gives", "gives as output", 1)


def gradients_are_right(args: Args, value: Any) -> str | None:
    """The gradients, the last one first, as errors travel backwards."""
    expected, got = wide_stack(*args)[1], value[1]
    problem = form_problem(got, expected.float(), "gradients")
    if problem:
        return problem
    for index in reversed(range(len(expected))):
        problem = difference(expected[index], got[index], FLOAT32)
        if problem:
            place = f"in front of branch {index}" if index < len(args[1]) else "behind the last one"
            return problem.replace("gives", f"gives as the gradient {place}", 1)
    return None


def same_part(part: int) -> Same:
    """Whether two answers agree in the output, or in the gradients."""
    return lambda a, b: same(a[part], b[part])


FORM = "returns the output and L + 1 gradients; changes nothing"
IDLE = "pre: branches that add nothing let the gradient pass"
PRE_OUTPUT = "pre: output"
POST_OUTPUT = "post: output"
PRE_GRADIENTS = "pre: gradients"
POST_GRADIENTS = "post: gradients"

OUTPUT: Verify = output_is_right
GRADIENTS: Verify = gradients_are_right

_check = partial(Check, same=same)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, pure=True),
    _check(IDLE, Kind.PROPERTY, 1, draw_idle, stream_carries_all, hint=4, same=same_part(1)),
    _check(PRE_OUTPUT, Kind.ORACLE, 2, draw_pre, OUTPUT, hint=1, same=same_part(0)),
    _check(POST_OUTPUT, Kind.ORACLE, 2, draw_post, OUTPUT, hint=1, same=same_part(0)),
    _check(PRE_GRADIENTS, Kind.ORACLE, 3, draw_pre, GRADIENTS, hint=3, same=same_part(1)),
    _check(POST_GRADIENTS, Kind.ORACLE, 2, draw_post, GRADIENTS, hint=3, same=same_part(1)),
)

REFERENCE = source_of(run_stack)
