"""Exercise 6.4: gradients of a batch in parts, equal to those of the whole: its checks."""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gptbook.grading.ch06_training.common import (
    batch_of,
    number_problem,
    tensors_problem,
)
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import difference, normal, same

IGNORE = -100


def logits_of(parameters: tuple[Tensor, Tensor], ids: Tensor) -> Tensor:
    """Return the logits (B, T, V) of a small model for ids (B, T)."""
    table, weight = parameters
    return torch.tanh(table[ids]) @ weight.T


def accumulate(
    parameters: tuple[Tensor, Tensor], micro_batches: list[tuple[Tensor, Tensor]]
) -> float:
    """Set the gradients of the mean loss over all targets that count; return that loss."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    n_tokens = sum(int((targets != IGNORE).sum()) for _, targets in micro_batches)
    total = 0.0
    for ids, targets in micro_batches:
        logits = logits_of(parameters, ids)
        nats = cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        loss = nats / max(n_tokens, 1)
        loss.backward()
        total += loss.item()
    return total


# --- inputs: (parameters,), then (micro_batches,) of each call ---

V, C = 5, 3
Batch = tuple[Tensor, Tensor]


def model(stream: random.Random) -> tuple[Tensor, Tensor]:
    """Two matrices that need a gradient. The weights are large, so that losses differ."""
    table, weight = normal(stream, V, C), 2 * normal(stream, V, C)
    return table.requires_grad_(), weight.requires_grad_()


def full(stream: random.Random, rows: int, length: int) -> Batch:
    """A micro-batch in which all targets count, 0 among them."""
    ids, targets = batch_of(stream, V, rows, length), batch_of(stream, V, rows, length)
    targets[0, 0] = 0
    return ids, targets


def masked(stream: random.Random, rows: int, length: int, n_tokens: int) -> Batch:
    """A micro-batch in which some targets count."""
    ids, targets = full(stream, rows, length)
    places = stream.sample(range(rows * length), n_tokens)
    kept = torch.full_like(targets, IGNORE)
    kept.view(-1)[places] = targets.view(-1)[places]
    return ids, kept


def draw_forms(stream: random.Random) -> list[Args]:
    """One micro-batch."""
    return [((model(stream),), ([full(stream, 2, 3)],))]


def draw_even(stream: random.Random) -> list[Args]:
    """Micro-batches of one shape in which all targets count."""
    return [((model(stream),), ([full(stream, 2, 3) for _ in range(3)],))]


def uneven(stream: random.Random) -> list[Batch]:
    """Micro-batches of several shapes, in which 1 to 10 targets count."""
    parts = [masked(stream, 2, 5, 7), masked(stream, 1, 4, 1), full(stream, 3, 3)]
    stream.shuffle(parts)
    return [*parts, masked(stream, 2, 3, 2)]


def draw_uneven(stream: random.Random) -> list[Args]:
    """Two models, each with uneven micro-batches."""
    return [((model(stream),), (uneven(stream),)) for _ in range(2)]


def draw_twice(stream: random.Random) -> list[Args]:
    """Two calls in turn, the second of which finds gradients of the first."""
    first, second = ([full(stream, 2, 3) for _ in range(2)] for _ in range(2))
    return [((model(stream),), (first,), (second,))]


def draw_empty(stream: random.Random) -> list[Args]:
    """Micro-batches without a target that counts, first and last; a step without one."""
    empty = masked(stream, 2, 3, 0), masked(stream, 1, 3, 0)
    return [
        ((model(stream),), ([empty[0], full(stream, 2, 3), empty[1]],)),
        ((model(stream),), (list(empty),)),
    ]


N_PARTS = 12


def draw_many(stream: random.Random) -> list[Args]:
    """Many micro-batches of one shape."""
    return [(model(stream), [full(stream, 2, 4) for _ in range(N_PARTS)])]


# --- verdicts ---


def whole_batch(
    parameters: tuple[Tensor, Tensor], micro_batches: list[Batch]
) -> tuple[float, list[Tensor]]:
    """The mean loss over all tokens laid end to end, and its gradients, in float64."""
    table, weight = (item.detach().double().requires_grad_() for item in parameters)
    ids = torch.cat([ids.flatten() for ids, _ in micro_batches])
    targets = torch.cat([targets.flatten() for _, targets in micro_batches])
    ids, targets = ids[targets != IGNORE], targets[targets != IGNORE]
    if not len(ids):
        return 0.0, [torch.zeros_like(table), torch.zeros_like(weight)]
    chosen = torch.log_softmax(torch.tanh(table[ids]) @ weight.T, dim=-1)
    loss = -chosen[torch.arange(len(ids)), targets].mean()
    return loss.item(), list(torch.autograd.grad(loss, (table, weight)))


def has_the_form(args: Args, value: Any) -> str | None:
    """A number, a gradient for each parameter, and nothing else changed."""
    (parameters,), *_ = args
    for got, after, grads, changed in value:
        problem = number_problem(got, "the mean loss as a number")
        if problem:
            return problem
        if changed:
            return "changes the micro-batches, which are its caller's"
        for index, (old, new, grad) in enumerate(zip(parameters, after, grads, strict=True)):
            if not torch.equal(old, new):
                return f"changes parameter {index}: only its gradient is asked for"
            if grad is None or grad.shape != old.shape:
                return f"leaves no gradient of shape {tuple(old.shape)} for parameter {index}"
    return None


def gradients_are_right(args: Args, value: Any) -> str | None:
    """The gradients after each call."""
    (parameters,), *calls = args
    for number, ((micro_batches,), row) in enumerate(zip(calls, value, strict=True), start=1):
        problem = number_problem(row[0], "the mean loss as a number")
        if problem:
            return problem
        _, expected = whole_batch(parameters, micro_batches)
        after = f" after call {number}" if len(calls) > 1 else ""
        grads = row[2]
        if all(not want.any() for want in expected):  # None says the same
            grads = [torch.zeros(V, C) if grad is None else grad for grad in grads]
        problem = tensors_problem(expected, grads, "gradient", after)
        if problem:
            return problem
    return None


def loss_is_right(args: Args, value: Any) -> str | None:
    """The number that is returned."""
    (parameters,), *calls = args
    for (micro_batches,), row in zip(calls, value, strict=True):
        expected, _ = whole_batch(parameters, micro_batches)
        problem = number_problem(row[0], "the mean loss as a number")
        if problem:
            return problem
        if difference(expected, float(row[0])):
            return f"returns {float(row[0]):.6g}, expected {expected:.6g}"
    return None


def all_is_right(args: Args, value: Any) -> str | None:
    """Both."""
    return loss_is_right(args, value) or gradients_are_right(args, value)


ALLOWED = 3 * (2 * 4 * (4 * C + 4 * V) + 2 * V * C)
"""Numbers that a plain forward pass of one micro-batch of 2 rows of 4 keeps, three times."""


def is_small(args: Args, value: Any) -> str | None:
    """What was kept for backward at one time is what one micro-batch needs, and not all."""
    got, peak = value
    problem = number_problem(got, "the mean loss as a number")
    if problem:
        return problem
    if peak <= ALLOWED:
        return None
    return (
        f"keeps {peak} numbers for backward at one time; {ALLOWED} are more than one of the "
        f"{N_PARTS} micro-batches needs, so several graphs were held"
    )


def same_calls(a: Any, b: Any) -> bool:
    """Whether two functions returned the same and left the same gradients."""
    return same([(row[0], *row[2]) for row in a], [(row[0], *row[2]) for row in b])


def same_losses(a: Any, b: Any) -> bool:
    """Whether two functions returned the same."""
    return same([row[0] for row in a], [row[0] for row in b])


def same_gradients(a: Any, b: Any) -> bool:
    """Whether two functions left the same gradients."""
    return same([row[2] for row in a], [row[2] for row in b])


def same_peak(a: Any, b: Any) -> bool:
    """Whether two functions returned the same, and both keep little, or both much."""
    return same(a[0], b[0]) and (a[1] <= ALLOWED) == (b[1] <= ALLOWED)


FORM = "returns a number, leaves gradients, changes nothing else"
LOSS = "returns the mean loss over all targets"
EVEN = "gradients of micro-batches that are all alike"
UNEVEN = "every target weighs the same, wherever it is"
TWICE = "old gradients are gone"
EMPTY = "a micro-batch, and a step, in which nothing counts"
MANY = "one graph at a time"

_check = partial(Check, probe="in_turn", same=same_calls)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form),
    _check(LOSS, Kind.ORACLE, 2, draw_uneven, loss_is_right, hint=4, same=same_losses),
    _check(EVEN, Kind.ORACLE, 2, draw_even, gradients_are_right, hint=1, same=same_gradients),
    _check(UNEVEN, Kind.ORACLE, 4, draw_uneven, gradients_are_right, hint=2, same=same_gradients),
    _check(TWICE, Kind.ORACLE, 1, draw_twice, gradients_are_right, hint=1, same=same_gradients),
    _check(EMPTY, Kind.ORACLE, 2, draw_empty, all_is_right, hint=3),
    _check(MANY, Kind.BEHAVIOR, 1, draw_many, is_small, hint=4, probe="peak_saved", same=same_peak),
)

REFERENCE = source_of(accumulate)
