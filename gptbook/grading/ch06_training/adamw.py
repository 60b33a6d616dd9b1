"""Exercise 6.1: a step of AdamW, by hand: its checks."""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch06_training.common import tensors_problem
from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import normal, same


def adamw_step(
    parameters: tuple[Tensor, ...],
    states: list[dict[str, Any]],
    grads: list[Tensor | None],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Take one step of AdamW in place, keeping in states what the next step needs."""
    beta1, beta2 = betas
    for parameter, state, grad in zip(parameters, states, grads, strict=True):
        if grad is None:
            continue
        if not state:
            state.update(step=0, mean=torch.zeros_like(grad), square=torch.zeros_like(grad))
        state["step"] += 1
        state["mean"] = beta1 * state["mean"] + (1 - beta1) * grad
        state["square"] = beta2 * state["square"] + (1 - beta2) * grad**2
        mean = state["mean"] / (1 - beta1 ** state["step"])
        square = state["square"] / (1 - beta2 ** state["step"])
        with torch.no_grad():
            if parameter.ndim >= 2:
                parameter.mul_(1 - lr * weight_decay)
            parameter.sub_(lr * mean / (square.sqrt() + eps))


# --- inputs: (parameters, states), then the arguments of each step ---

BETAS = (0.9, 0.95)
NO_EPS = 1e-12  # so small that where it stands does not matter; one check is about eps

Shape = tuple[int, ...]
Step = tuple[Any, ...]


def far(stream: random.Random, *shape: int) -> Tensor:
    """Numbers of which none is near zero."""
    drawn = normal(stream, *shape)
    return drawn + 0.5 * torch.where(drawn < 0, -1.0, 1.0)


def start(stream: random.Random, *shapes: Shape) -> tuple[tuple[Tensor, ...], list[Any]]:
    """Parameters that need a gradient, and a state for each, still empty."""
    return tuple(far(stream, *shape).requires_grad_() for shape in shapes), [{} for _ in shapes]


def gradients(stream: random.Random, *shapes: Shape, scale: float = 1.0) -> list[Any]:
    """A gradient for each, whose numbers are all far from zero."""
    return [scale * far(stream, *shape) for shape in shapes]


def draw_forms(stream: random.Random) -> list[Args]:
    """Parameters of several shapes; float64 once."""
    shapes: tuple[Shape, ...] = ((3, 4), (5,), (2, 3, 2))
    rest = (0.1, BETAS, 1e-8, 0.1)
    wide = tuple(far(stream, 2, 3).double().requires_grad_() for _ in range(2))
    wide_grads: list[Any] = [normal(stream, 2, 3, dtype=torch.float64) for _ in range(2)]
    return [
        (start(stream, *shapes), (gradients(stream, *shapes), *rest)),
        ((wide, [{}, {}]), (wide_grads, *rest)),
    ]


def draw_first(stream: random.Random) -> list[Args]:
    """One step without decay, gradients of very different sizes."""
    shape = (3, 4)
    parameters, states = start(stream, shape, shape, shape)
    grads = [gradients(stream, shape, scale=scale)[0] for scale in (1e-3, 1.0, 1e3)]
    return [((parameters, states), (grads, stream.uniform(0.05, 0.2), BETAS, NO_EPS, 0.0))]


def draw_steps(stream: random.Random) -> list[Args]:
    """Four steps without decay; the rate changes."""
    shapes: tuple[Shape, ...] = ((2, 3), (4,))
    steps: list[Step] = [
        (gradients(stream, *shapes), stream.uniform(0.05, 0.2), BETAS, NO_EPS, 0.0)
        for _ in range(4)
    ]
    return [(start(stream, *shapes), *steps)]


def draw_eps(stream: random.Random) -> list[Args]:
    """Two steps whose eps is of the gradients' size."""
    steps: list[Step] = [
        (gradients(stream, (3, 4)), 0.2, BETAS, stream.uniform(0.3, 0.9), 0.0) for _ in range(2)
    ]
    return [(start(stream, (3, 4)), *steps)]


def draw_decay(stream: random.Random) -> list[Args]:
    """Three steps of matrices with a strong decay: one of one row, a stack."""
    shapes: tuple[Shape, ...] = ((1, 3), (2, 1, 2))
    decay = stream.uniform(1.0, 2.0)
    steps: list[Step] = [
        (gradients(stream, *shapes), stream.uniform(0.05, 0.2), BETAS, NO_EPS, decay)
        for _ in range(3)
    ]
    return [(start(stream, *shapes), *steps)]


def draw_vectors(stream: random.Random) -> list[Args]:
    """Two steps with decay of vectors, which do not decay."""
    shapes: tuple[Shape, ...] = ((4,), (1,))
    steps: list[Step] = [
        (gradients(stream, *shapes), 0.1, BETAS, NO_EPS, stream.uniform(1.0, 2.0)) for _ in range(2)
    ]
    return [(start(stream, *shapes), *steps)]


def draw_none(stream: random.Random) -> list[Args]:
    """Three steps: a matrix has no gradient in the first, which decays, a vector in the second."""
    shapes: tuple[Shape, ...] = ((3,), (3, 2))
    steps: list[Step] = []
    for without, decay in ((1, 1.0), (0, 0.0), (None, 0.0)):
        grads = gradients(stream, *shapes)
        if without is not None:
            grads[without] = None
        steps.append((grads, 0.1, BETAS, NO_EPS, decay))
    return [(start(stream, *shapes), *steps)]


# --- verdicts ---


def weighted_mean(items: list[Tensor], beta: float) -> Tensor:
    """A mean in which each item weighs 1 / beta times as much as the one before it."""
    factors = [beta ** (len(items) - 1 - place) for place in range(len(items))]
    total = sum((f * item for f, item in zip(factors, items, strict=True)), torch.zeros(()))
    return total / sum(factors)


def wide_steps(args: Args) -> list[list[Tensor]]:
    """All parameters after each step, in float64, from all gradients that there were so far."""
    (parameters, _), *steps = args
    now = [parameter.detach().double() for parameter in parameters]
    seen: list[list[Tensor]] = [[] for _ in now]
    results = []
    for grads, lr, betas, eps, weight_decay in steps:
        for place, grad in enumerate(grads):
            if grad is None:
                continue
            seen[place].append(grad.double())
            mean = weighted_mean(seen[place], betas[0])
            square = weighted_mean([item**2 for item in seen[place]], betas[1])
            decay = weight_decay * now[place] if now[place].ndim >= 2 else 0.0
            now[place] = now[place] - lr * (mean / (square.sqrt() + eps) + decay)
        results.append(list(now))
    return results


def has_the_form(args: Args, value: Any) -> str | None:
    """The parameters themselves have moved, and the gradients have not."""
    (parameters, _), *_ = args
    for _, after, _, changed in value:
        if changed:
            return "changes the gradients or another argument, which are its caller's"
        for index, (old, new) in enumerate(zip(parameters, after, strict=True)):
            if new.shape != old.shape or new.dtype != old.dtype:
                got, wanted = f"{tuple(new.shape)}, {new.dtype}", f"{tuple(old.shape)}, {old.dtype}"
                return f"makes parameter {index} {got}, expected {wanted}"
            if torch.equal(new, old):
                return f"leaves parameter {index} as it was: change the tensor itself, in place"
    return None


def moves_by_lr(args: Args, value: Any) -> str | None:
    """The first step is as long as the rate, whatever the size of the gradients."""
    (parameters, _), (grads, lr, *_) = args
    after = value[0][1]
    expected = [p.detach() - lr * g.sign() for p, g in zip(parameters, grads, strict=True)]
    problem = tensors_problem(expected, after, "parameter")
    if problem is None:
        return None
    pairs = zip(parameters, after, strict=True)
    moves = [show((new - old.detach()).abs().mean().item()) for old, new in pairs]
    return (
        f"moves numbers by {', '.join(moves)} in the first step, on average, where the gradients "
        f"are near 0.001, 1 and 1000; expected {lr:.4g}, the rate, for all"
    )


def is_right(args: Args, value: Any) -> str | None:
    """The parameters after each step."""
    for step, (expected, row) in enumerate(zip(wide_steps(args), value, strict=True), start=1):
        problem = tensors_problem(expected, row[1], "parameter", f" after step {step}")
        if problem:
            return problem
    return None


def same_steps(a: Any, b: Any) -> bool:
    """Whether two functions gave the same parameters after each step."""
    return same([(row[1], row[3]) for row in a], [(row[1], row[3]) for row in b])


FORM = "changes the parameters in place, and nothing of its caller's"
FIRST = "the first step is as long as the rate"
STEPS = "both means over several steps"
EPS = "eps outside of the root"
DECAY = "decay apart from the gradient, times the rate"
VECTORS = "vectors do not decay"
NONE = "what has no gradient stays as it is"

_check = partial(Check, probe="in_turn", same=same_steps)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form),
    _check(FIRST, Kind.PROPERTY, 2, draw_first, moves_by_lr, hint=2),
    _check(STEPS, Kind.ORACLE, 3, draw_steps, is_right, hint=2),
    _check(EPS, Kind.ORACLE, 1, draw_eps, is_right, hint=3),
    _check(DECAY, Kind.ORACLE, 3, draw_decay, is_right, hint=4),
    _check(VECTORS, Kind.ORACLE, 1, draw_vectors, is_right, hint=4),
    _check(NONE, Kind.ORACLE, 1, draw_none, is_right, hint=1),
)

REFERENCE = source_of(adamw_step)
