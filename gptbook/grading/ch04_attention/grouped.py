"""Exercise 4.3: grouped-query attention with a sliding window: its checks."""

import math
import random
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch04_attention.common import like_argument, moved
from gptbook.grading.exercise import Args, Check, Kind, oracle, source_of
from gptbook.grading.tensors import FLOAT32, form_problem, normal, same


def grouped_query_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Return attention of q (B, H, T, D) on the last keys of k and v (B, K, S, D)."""
    n_query, n_key = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    back = torch.arange(n_key - n_query, n_key)[:, None] - torch.arange(n_key)
    seen = (back >= 0) & (back < window)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1) @ v


# --- inputs: q (B, H, T, D), k and v (B, K, S, D), window ---


def draw_call(
    stream: random.Random, n_query_head: int, n_key_head: int, n_query: int, n_key: int, window: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Normal numbers for two rows of a batch, with heads of four numbers."""
    q = normal(stream, 2, n_query_head, n_query, 4, scale=1.5)
    k = normal(stream, 2, n_key_head, n_key, 4)
    return q, k, normal(stream, 2, n_key_head, n_key, 4), window


def draw_forms(stream: random.Random) -> list[Args]:
    """All that varies, varied; float64 once."""
    q, k, v, window = draw_call(stream, 4, 2, 3, 5, 2)
    return [draw_call(stream, 6, 3, 4, 4, 9), (q.double(), k.double(), v.double(), window)]


def draw_grouped(stream: random.Random) -> list[Args]:
    """Fewer key heads than query heads; as many queries as keys, and a window that hides nothing.

    Six heads on two and on three, so that dividing by the one is not dividing by the other.
    """
    return [draw_call(stream, 6, n, 4, 4, stream.randint(6, 9)) for n in (3, 2, 1)]


def draw_windows(stream: random.Random) -> list[Args]:
    """A window that hides something; a key head for each query head, as many queries as keys."""
    return [draw_call(stream, 2, 2, 7, 7, window) for window in (3, 2, 5)]


def draw_late(stream: random.Random) -> list[Args]:
    """Fewer queries than keys, as in decoding: the queries are the last places."""
    return [
        draw_call(stream, 2, 2, n_query, n_key, window)
        for n_query, n_key, window in ((3, 7, 3), (1, 6, 4), (2, 5, 9))
    ]


def draw_all(stream: random.Random) -> list[Args]:
    """Everything at once; a window of one; one key; tensors that are not contiguous."""
    q = normal(stream, 2, 3, 4, 5).transpose(1, 2)
    k, v = (normal(stream, 2, 2, 5, 12)[..., 1:11:2] for _ in range(2))
    return [
        draw_call(stream, 6, 2, 3, 7, 4),
        draw_call(stream, 4, 1, 4, 6, 1),
        draw_call(stream, 3, 3, 1, 1, 2),
        (q, k, v, 2),
    ]


def draw_other_heads(stream: random.Random) -> list[Args]:
    """A call, and the same with another key head changed in each."""
    cases: list[Args] = []
    for n_key_head in (3, 2):
        q, k, v, window = draw_call(stream, 6, n_key_head, 3, 3, 5)
        calls = [(q, k, v, window)]
        for head in range(n_key_head):
            new_k, new_v = k.clone(), v.clone()
            new_k[:, head] += normal(stream, 3, 4)
            new_v[:, head] += 1
            calls.append((q, new_k, new_v, window))
        cases.append(tuple(calls))
    return cases


def draw_other_places(stream: random.Random) -> list[Args]:
    """A call, and the same with the key and value of another place changed in each."""
    q, k, v, window = draw_call(stream, 1, 1, 6, 6, stream.randint(2, 4))
    calls = [(q, k, v, window)]
    for place in range(6):
        new_k, new_v = k.clone(), v.clone()
        new_k[:, :, place] *= 0.5
        new_v[:, :, place] += 1
        calls.append((q, new_k, new_v, window))
    return [tuple(calls)]


# --- verdicts ---


def wide(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The reference in float64."""
    return grouped_query_attention(q.double(), k.double(), v.double(), window)


def _moved_along(axis: int, args: Args, value: Any) -> list[list[int]]:
    """For each call but the first, the indices along an axis at which its output is another one."""
    kept = [other for other in range(4) if other != axis]
    return [
        moved(value[0], other)
        .any(dim=kept[0])
        .any(dim=kept[1] - 1)
        .any(dim=kept[2] - 2)
        .nonzero()[:, 0]
        .tolist()
        for other in value[1:]
    ]


def reads_its_group(args: Args, value: Any) -> str | None:
    """For the probe `call_each`: a key head matters to the query heads of its group alone."""
    problem = form_problem(value[0], args[0][0])
    if problem:
        return problem
    group = args[0][0].shape[1] // args[0][1].shape[1]
    for head, found in enumerate(_moved_along(1, args, value)):
        expected = list(range(head * group, (head + 1) * group))
        if found != expected:
            return (
                f"moves the query heads {found} when key head {head} changes, "
                f"expected the heads {expected}"
            )
    return None


def keeps_to_the_window(args: Args, value: Any) -> str | None:
    """For the probe `call_each`: a key matters to the queries whose window it is in."""
    problem = form_problem(value[0], args[0][0])
    if problem:
        return problem
    if not value[0].isfinite().all():
        return "gives NaN or infinity: a query sees no key, though it always sees itself"
    window, n_query = args[0][3], args[0][0].shape[2]
    for place, found in enumerate(_moved_along(2, args, value)):
        expected = list(range(place, min(place + window, n_query)))
        if found != expected:
            return (
                f"moves the queries {found} when the key and value at place {place} change and "
                f"the window is {window}, expected the queries {expected}"
            )
    return None


FORM = "returns (B, H, T, D); changes nothing"
OWN_GROUP = "a key head matters to its own query heads"
OWN_WINDOW = "a key matters to the queries that see it"
GROUPED = "fewer key heads than query heads"
WINDOW = "a window that hides something"
LATE = "fewer queries than keys"
ALL = "all of it at once"

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_forms, like_argument(0), pure=True, same=same),
    Check(
        OWN_GROUP,
        Kind.PROPERTY,
        1,
        draw_other_heads,
        reads_its_group,
        probe="call_each",
        same=same,
        hint=1,
    ),
    Check(
        OWN_WINDOW,
        Kind.PROPERTY,
        1,
        draw_other_places,
        keeps_to_the_window,
        probe="call_each",
        same=same,
        hint=3,
    ),
    oracle(GROUPED, 3, draw_grouped, wide, FLOAT32, hint=2),
    oracle(WINDOW, 2, draw_windows, wide, FLOAT32, hint=3),
    oracle(LATE, 2, draw_late, wide, FLOAT32, hint=4),
    oracle(ALL, 2, draw_all, wide, FLOAT32, hint=4),
)

REFERENCE = source_of(grouped_query_attention)
