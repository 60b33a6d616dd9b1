"""Exercise 7.2: top-k and top-p: its checks."""

import math
import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch07_generation.common import distinct, shuffled
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import difference, form_problem, same


def keep_head(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Return the probabilities, (B, V), of what top-k and then top-p leave of logits (B, V)."""
    size = logits.shape[-1]
    falling, ids = logits.sort(dim=-1, descending=True, stable=True)
    kept = torch.arange(size).expand(falling.shape) < (size if top_k is None else top_k)
    falling = falling.masked_fill(~kept, -math.inf)
    if top_p < 1:
        probabilities = falling.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        kept = kept & (before < top_p)
        kept[..., 0] = True
    left = falling.masked_fill(~kept, -math.inf).softmax(dim=-1)
    return torch.zeros_like(left).scatter(-1, ids, left)


# --- inputs: logits (B, V), top_k, top_p ---

MARGIN = 0.002  # between top_p and every sum of probabilities


def draw_rows(stream: random.Random, n_rows: int, size: int, apart: float = 0.3) -> Tensor:
    """Rows of logits that are all different, each row in an order of its own."""
    return torch.stack([distinct(stream, size, apart) for _ in range(n_rows)])


def sums(logits: Tensor, top_k: int | None) -> Tensor:
    """The sums of the falling probabilities of what top-k leaves."""
    falling = logits.double().sort(descending=True).values[:, :top_k]
    return falling.softmax(-1).cumsum(-1)


def draw_top_p(stream: random.Random, logits: Tensor, top_k: int | None = None) -> float:
    """A top_p that is near no sum, so that rounding decides nothing."""
    while True:
        top_p = round(stream.uniform(0.3, 0.9), 3)
        if ((sums(logits, top_k) - top_p).abs() > MARGIN).all():
            return top_p


def draw_sizes(stream: random.Random) -> list[Args]:
    """Both rules, one, and none."""
    rows = draw_rows(stream, 3, 6)
    return [(rows, 4, draw_top_p(stream, rows, 4)), (rows, 2, 1.0), (rows[:1], None, 1.0)]


def draw_k(stream: random.Random) -> list[Args]:
    """Top-k alone, without ties."""
    return [(draw_rows(stream, 3, 8), k, 1.0) for k in (1, 3, 5)]


def draw_equal_k(stream: random.Random) -> list[Args]:
    """Rows in which the k-th and the next are equal."""
    tied = [2.0] * 2 + [1.0] * 4 + [0.0, -1.0]
    rows = torch.stack([shuffled(stream, torch.tensor(tied)) for _ in range(3)])
    return [(rows, stream.choice((3, 4, 5)), 1.0), (torch.zeros(2, 7), stream.randint(1, 6), 1.0)]


def draw_p(stream: random.Random) -> list[Args]:
    """Top-p alone, on rows that keep different numbers of ids."""
    cases: list[Args] = []
    while len(cases) < 3:
        rows = torch.cat([draw_rows(stream, 1, 8, apart) for apart in (0.05, 0.3, 0.9)])
        top_p = draw_top_p(stream, rows)
        n_kept = 1 + (sums(rows, None) < top_p).sum(-1)
        if len(set(n_kept.tolist())) == 3 and n_kept.max() < 8:
            cases.append((rows, None, top_p))
    return cases


def draw_equal_p(stream: random.Random) -> list[Args]:
    """Rows in which top_p is reached among equal ones."""
    cases: list[Args] = []
    for _ in range(2):
        size = stream.randint(5, 9)
        top_p = (stream.randint(1, size - 2) + 0.5) / size
        cases.append((torch.full((2, size), stream.uniform(-2, 2)), None, top_p))
    head = torch.tensor([3.0] + [1.0] * 4 + [-2.0])
    first, second = sums(head[None], None)[0, :2].tolist()
    rows = torch.stack([shuffled(stream, head) for _ in range(3)])
    cases.append((rows, None, first + stream.choice((0.5, 1.5, 2.5)) * (second - first)))
    return cases


def draw_both(stream: random.Random) -> list[Args]:
    """What top-p keeps of what top-k left is less than it would keep of all."""
    cases: list[Args] = []
    while len(cases) < 2:
        rows, top_k = draw_rows(stream, 3, 9, 0.15), stream.randint(4, 6)
        top_p = draw_top_p(stream, rows, top_k)
        of_left = 1 + (sums(rows, top_k) < top_p).sum(-1)
        of_all = 1 + (sums(rows, None) < top_p).sum(-1)
        apart = ((sums(rows, None) - top_p).abs() > MARGIN).all()
        differ = len(set(of_left.tolist())) > 1
        if apart and differ and (of_left < of_all.clamp(max=top_k)).all():
            cases.append((rows, top_k, top_p))
    return cases


def draw_zero(stream: random.Random) -> list[Args]:
    """top_p is 0, or less than the probability of the first."""
    return [(draw_rows(stream, 3, 6), None, p) for p in (0.0, 0, 1e-3)]


def draw_all(stream: random.Random) -> list[Args]:
    """top_p is 1, and the sum of the probabilities is so before the last one."""
    row = torch.cat([torch.tensor([0.0]), distinct(stream, 6, 0.4, low=-30)])
    rows = torch.stack([shuffled(stream, row) for _ in range(2)])
    return [(rows, None, 1.0), (rows, 5, 1), (draw_rows(stream, 2, 6), None, 1.0)]


def draw_many(stream: random.Random) -> list[Args]:
    """More to be kept than there is, or than is possible."""
    rows = draw_rows(stream, 3, 6)
    some = draw_rows(stream, 3, 7)
    for row in some:
        row[stream.sample(range(7), 4)] = -math.inf
    return [(rows, 6, 1.0), (rows, 50, 1.0), (some, 5, 1.0), (some, None, 1.0)]


# --- verdicts ---


def wide_head(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """The probabilities in float64, id by id."""
    result = torch.zeros(logits.shape, dtype=torch.float64)
    for row, out in zip(logits.double(), result, strict=True):
        ids = sorted(range(len(row)), key=lambda i: (-row[i].item(), i))[:top_k]
        kept: list[int] = []
        before = 0.0
        for i, share in zip(ids, row[ids].softmax(0).tolist(), strict=True):
            if not kept or before < top_p or top_p >= 1:
                kept.append(i)
            before += share
        out[kept] = row[kept].softmax(0)
    return result


def has_the_form(args: Args, value: Any) -> str | None:
    """A tensor like the logits."""
    return form_problem(value, args[0])


def is_right(args: Args, value: Any) -> str | None:
    """Which ids have a probability, and which one."""
    problem = form_problem(value, args[0])
    if problem:
        return problem
    expected = wide_head(*args)
    for row, (wanted, got) in enumerate(zip(expected, value, strict=True)):
        kept, right = _ids(got), _ids(wanted)
        if kept != right:
            return f"keeps the ids {kept} in row {row}, expected {right}"
    return difference(expected, value)


def _ids(row: Tensor) -> list[int]:
    return [i for i, share in enumerate(row.tolist()) if share != 0]


def same_head(a: Any, b: Any) -> bool:
    """Whether two answers keep the same ids with the same probabilities."""
    return bool(((a != 0) == (b != 0)).all()) and same(a, b)


FORM = "returns a tensor like the logits; changes nothing"
TOP_K = "top-k"
EQUAL_K = "exactly k, the lower ids of equal ones"
TOP_P = "top-p: the id that crosses the line is in"
EQUAL_P = "top-p: the lower ids of equal ones"
BOTH = "top-p of what top-k has left"
ZERO = "top_p = 0 keeps one"
ALL = "top_p = 1 keeps all"
MANY = "k larger than what is there"

_right = partial(Check, verify=is_right, kind=Kind.ORACLE, same=same_head)

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_sizes, has_the_form, pure=True, same=same_head),
    _right(TOP_K, points=2, draw=draw_k, hint=2),
    _right(EQUAL_K, points=2, draw=draw_equal_k, hint=2),
    _right(TOP_P, points=2, draw=draw_p, hint=3),
    _right(EQUAL_P, points=1, draw=draw_equal_p, hint=1),
    _right(BOTH, points=2, draw=draw_both, hint=4),
    _right(ZERO, points=1, draw=draw_zero, hint=3),
    _right(ALL, points=1, draw=draw_all, hint=4),
    _right(MANY, points=1, draw=draw_many, hint=2),
)

REFERENCE = source_of(keep_head)
