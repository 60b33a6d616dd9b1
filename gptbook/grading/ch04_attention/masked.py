"""Exercise 4.1: attention under a mask, also for queries that may see nothing: its checks."""

import math
import random
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch04_attention.common import COARSE, like_argument, moved, some, whole
from gptbook.grading.compare import Tolerance
from gptbook.grading.exercise import Args, Check, Kind, oracle, source_of
from gptbook.grading.probes import gradients
from gptbook.grading.tensors import FLOAT32, difference, form_problem, normal, same


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return for each query the values' mean, weighted by the softmax of its scaled scores."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).transpose(-2, -1) / math.sqrt(q.shape[-1])
    # The lowest finite number and not minus infinity: a row of those has no softmax.
    scores = scores.masked_fill(~mask, torch.finfo(wide).min)
    weights = torch.softmax(scores, dim=-1).masked_fill(~mask, 0.0)
    return (weights @ v.to(wide)).to(q.dtype)


# --- inputs: q (B, H, T, D), k and v (B, H, S, D), mask that broadcasts to (B, H, T, S) ---


def draw_qkv(
    stream: random.Random, n_batch: int, n_head: int, n_query: int, n_key: int, d_head: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys large enough that weights are far from equal."""
    q = normal(stream, n_batch, n_head, n_query, d_head, scale=1.5)
    k = normal(stream, n_batch, n_head, n_key, d_head, scale=1.5)
    return q, k, normal(stream, n_batch, n_head, n_key, d_head)


def draw_forms(stream: random.Random) -> list[Args]:
    """Every dtype, and masks of every shape; what comes out does not matter here."""
    masks = (some(stream, 3, 5), some(stream, 2, 1, 1, 5), some(stream, 2, 2, 3, 5))
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    cases: list[Args] = []
    for dtype, mask in zip(dtypes, masks, strict=True):
        q, k, v = draw_qkv(stream, 2, 2, 3, 5, 4)
        cases.append((q.to(dtype), k.to(dtype), v.to(dtype), mask))
    return cases


def draw_plain(stream: random.Random) -> list[Args]:
    """Queries that all see something, of all shapes: one query, one key, more keys, fewer."""
    return [
        (*draw_qkv(stream, 2, 3, 4, 5, 4), some(stream, 2, 3, 4, 5)),
        (*draw_qkv(stream, 1, 2, 6, 3, 8), some(stream, 6, 3)),
        (*draw_qkv(stream, 2, 1, 1, 7, 3), some(stream, 2, 1, 1, 7)),
        (*draw_qkv(stream, 3, 2, 4, 1, 5), some(stream, 1, 1, 4, 1)),
        (*draw_qkv(stream, 1, 1, 4, 4, 1), torch.ones(4, 4, dtype=torch.bool).tril()),
    ]


def draw_ones(stream: random.Random) -> list[Args]:
    """Values that are all one, so that each output is the sum of a query's weights."""
    cases: list[Args] = []
    for n_query, n_key in ((4, 6), (3, 3)):
        q, k, v = draw_qkv(stream, 2, 2, n_query, n_key, 4)
        cases.append((q, k, torch.ones_like(v), some(stream, 2, 2, n_query, n_key)))
    return cases


def draw_hidden(stream: random.Random) -> list[Args]:
    """The same call twice, with other keys and values at a place that no query sees."""
    cases: list[Args] = []
    for _ in range(2):
        q, k, v = draw_qkv(stream, 2, 2, 4, 5, 4)
        mask = some(stream, 4, 5)
        place, other = stream.sample(range(5), 2)
        mask[:, other] = True
        mask[:, place] = False
        new_k, new_v = k.clone(), v.clone()
        new_k[:, :, place] = normal(stream, 2, 2, 4)
        new_v[:, :, place] += 3
        cases.append(((q, k, v, mask), (q, new_k, new_v, mask)))
    return cases


def draw_strided(stream: random.Random) -> list[Args]:
    """Tensors whose memory is not in order: heads split from rows, every other key, shared ones."""
    q = normal(stream, 2, 3, 2, 4).transpose(1, 2)
    k = normal(stream, 2, 2, 10, 4)[:, :, ::2]
    v = normal(stream, 2, 1, 5, 4).expand(2, 2, 5, 4)
    return [(q, k, v, some(stream, 5, 3).T | torch.eye(3, 5, dtype=torch.bool))]


def draw_blind(stream: random.Random) -> list[Args]:
    """Queries that see nothing among others, and only such; all three ask for gradients."""
    mask = some(stream, 2, 1, 4, 5)
    for row in range(2):
        mask[row, :, stream.randrange(4)] = False
    cases: list[Args] = []
    for shape in (mask, torch.zeros(3, 2, dtype=torch.bool)):
        n_query, n_key = shape.shape[-2:]
        q, k, v = draw_qkv(stream, 2, 2, n_query, n_key, 4)
        cases.append((*(item.requires_grad_() for item in (q, k, v)), shape))
    return cases


def draw_extreme(stream: random.Random) -> list[Args]:
    """Scores in the thousands, exact in float32; hidden ones are the largest by far.

    In the first case the visible scores are far above zero, in the second far below. Two visible
    keys are equal and the best, and the rest is far behind, so the scale makes no difference.
    """
    cases: list[Args] = []
    for low, high in ((20, 40), (-70, -50)):
        q, k = whole(stream, 20, 40, 1, 2, 4, 4), whole(stream, low, high, 1, 2, 5, 4)
        first, second, hidden, *_ = stream.sample(range(5), 5)
        k[:, :, first] = k[:, :, second] = high + 5
        k[:, :, hidden] = 80
        mask = some(stream, 4, 5)
        mask[:, first] = mask[0, second] = True
        mask[:, hidden] = False
        cases.append((q, k, normal(stream, 1, 2, 5, 4), mask))
    return cases


def draw_half(stream: random.Random) -> list[Args]:
    """Scores near 64 that differ by little: half the bits cannot tell them apart.

    All numbers are multiples of 1/8, so float32 has no rounding before the softmax.
    """
    cases: list[Args] = []
    for dtype in (torch.float16, torch.bfloat16):
        q, k = (whole(stream, -16, 16, 1, 2, n, 16) / 8 for n in (6, 5))
        q[..., 0] = k[..., 0] = 16.0
        v = normal(stream, 1, 2, 5, 16).to(dtype)
        cases.append((q.to(dtype), k.to(dtype), v, some(stream, 6, 5)))
    return cases


# --- verdicts ---


def wide_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The reference in float64."""
    return attention(q.double(), k.double(), v.double(), mask)


def wide_gradients(*args: Any) -> tuple[Any, list[Any]]:
    """The reference's value and gradients in float64, as the probe `gradients` gives them."""
    q, k, v = (item.detach().double().requires_grad_() for item in args[:3])
    return gradients(attention, q, k, v, args[3])


def sums_to_one(args: Args, value: Any) -> str | None:
    """Where all values are one, all outputs are."""
    problem = form_problem(value, args[0])
    if problem:
        return problem
    wrong = moved(torch.ones_like(value), value)
    if not wrong.any():
        return None
    place = wrong.nonzero()[0].tolist()
    total = value[tuple(place)].item()
    return (
        f"gives query {place[:3]} weights that sum to {total:.4g}, expected 1 "
        "(all values are 1, so the output is their sum)"
    )


def is_unmoved(args: Args, value: Any) -> str | None:
    """For the probe `call_each`: what no query sees makes no difference."""
    before, after = value
    problem = form_problem(before, args[0][0])
    if problem:
        return problem
    if not moved(before, after).any():
        return None
    place = (args[0][1] != args[1][1]).any(-1).nonzero()[0, -1].item()
    by = (after.double() - before.double()).abs().max().item()
    return f"moves by {by:.2g} when key and value {place} change, which no query may see"


def gradients_are_right(args: Args, value: Any) -> str | None:
    """For the probe `gradients`: the value's and the gradients' verdict, in words of their own."""
    out, found = value
    wanted, expected = wide_gradients(*args)
    problem = difference(wanted, out)
    if problem:
        return problem
    for name, right, got in zip("qkv", expected, found, strict=True):
        if got is None and not right.any():
            continue  # a result that does not depend on it, and says so
        if got is None:
            return f"gives a result from which no gradient comes back to {name}"
        problem = difference(right, got)
        if problem:
            return problem.replace("gives", f"leads to a gradient of {name} that has", 1)
    return None


def half_is_right(args: Args, value: Any) -> str | None:
    """As right as one rounding, at the end, lets it be."""
    return difference(wide_attention(*args), value, half_tolerance(args[0]))


def half_tolerance(like: Tensor) -> Tolerance:
    """Two units in the last place: one rounding of the result, and room for one of the weights."""
    return Tolerance(2 * torch.finfo(like.dtype).eps, "one rounding to half precision, times 4")


def same_half(a: Any, b: Any) -> bool:
    """Whether two answers are the same but for a rounding to half precision."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return same(a, b)
    both_nan = torch.equal(a.isnan(), b.isnan())
    return (
        both_nan and difference(a, b, half_tolerance(torch.ones((), dtype=torch.float16))) is None
    )


FORM = "returns (B, H, T, D) in the dtype of q; changes nothing"
SUMS = "weights that sum to one"
HIDDEN = "what is hidden makes no difference"
PLAIN = "queries that see something"
STRIDED = "tensors that are not contiguous"
BLIND = "a query that sees nothing: zeros, and zero gradients"
EXTREME = "scores in the thousands"
HALF = "half precision"

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_forms, like_argument(0), pure=True, same=same),
    Check(SUMS, Kind.PROPERTY, 1, draw_ones, sums_to_one, same=same, hint=1),
    Check(HIDDEN, Kind.PROPERTY, 1, draw_hidden, is_unmoved, probe="call_each", same=same, hint=2),
    oracle(PLAIN, 3, draw_plain, wide_attention, FLOAT32, hint=1),
    oracle(STRIDED, 1, draw_strided, wide_attention, FLOAT32, hint=1),
    Check(
        BLIND,
        Kind.ORACLE,
        3,
        draw_blind,
        gradients_are_right,
        probe="gradients",
        same=same,
        hint=3,
    ),
    oracle(EXTREME, 1, draw_extreme, wide_attention, COARSE, hint=2),
    Check(HALF, Kind.ORACLE, 1, draw_half, half_is_right, same=same_half, hint=4),
)

REFERENCE = source_of(attention)
