"""Exercise 4.4: attention over a stream of tiles, in one pass: its checks."""

import math
import random
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch04_attention.common import COARSE, moved, some
from gptbook.grading.compare import Tolerance, show
from gptbook.grading.exercise import Args, Check, Draw, Kind, Verify, source_of
from gptbook.grading.tensors import FLOAT32, difference, form_problem, normal, same


def online_attention(
    q: Tensor, tiles: Iterable[tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return attention of q (T, D) on all tiles' keys, and each query's log-sum-exp of scores."""
    n_query, d_head = q.shape
    top = q.new_full((n_query, 1), -math.inf)
    total = q.new_zeros(n_query, 1)
    out = q.new_zeros(n_query, d_head)
    for k, v, mask in tiles:
        if len(k) == 0:
            continue
        scores = (q @ k.T / math.sqrt(d_head)).masked_fill(~mask, -math.inf)
        new = torch.maximum(top, scores.amax(dim=1, keepdim=True))
        base = new.masked_fill(new == -math.inf, 0.0)  # nothing seen so far: any number will do
        keep, weights = torch.exp(top - base), torch.exp(scores - base)
        total = total * keep + weights.sum(dim=1, keepdim=True)
        out = out * keep + weights @ v
        top = new
    lse = (top + torch.log(total))[:, 0]
    return out / total.masked_fill(total == 0, 1.0), lse


# --- inputs: q (T, D), tiles of k (n, D), v (n, D) and a mask (T, n) ---

Tile = tuple[Tensor, Tensor, Tensor]


def draw_tiles(
    stream: random.Random, n_query: int, d_head: int, sizes: Sequence[int]
) -> tuple[Tensor, list[Tile]]:
    """Tiles of given sizes in which all is seen; scores are far enough from equal."""
    q = normal(stream, n_query, d_head, scale=1.5)
    tiles = [
        (
            normal(stream, size, d_head, scale=1.5),
            normal(stream, size, d_head),
            torch.ones(n_query, size, dtype=torch.bool),
        )
        for size in sizes
    ]
    return q, tiles


def draw_ragged(stream: random.Random) -> list[Args]:
    """Tiles of unlike sizes; the largest score rises in some tile and falls in another."""
    return [
        draw_tiles(stream, 4, 4, (1, 4, 2, 3)),
        draw_tiles(stream, 3, 2, (5, 1, 1)),
        draw_tiles(stream, 1, 5, (2, 3, 2)),
        draw_tiles(stream, 5, 3, (4,)),
    ]


def draw_forms(stream: random.Random) -> list[Args]:
    """Tiles in float32 and in float64."""
    q, tiles = draw_tiles(stream, 3, 4, (2, 3))
    return [(q, tiles), (q.double(), [(k.double(), v.double(), mask) for k, v, mask in tiles])]


def draw_ones(stream: random.Random) -> list[Args]:
    """Values that are all one, so that each output is the sum of a query's weights."""
    q, tiles = draw_tiles(stream, 4, 4, (2, 3, 1, 2))
    return [(q, [(k, torch.ones_like(v), mask) for k, v, mask in tiles])]


def draw_hidden(stream: random.Random) -> list[Args]:
    """A first tile hidden from all, one hidden from some, and one hidden in part."""
    cases: list[Args] = []
    for n_query in (4, 3):
        q, tiles = draw_tiles(stream, n_query, 4, (2, 3, 2, 3, 1))
        masks = [mask.clone() for _, _, mask in tiles]
        masks[0][:] = False
        masks[1][stream.randrange(n_query)] = False
        masks[3] = some(stream, n_query, 3)
        masks[4][:] = False
        shown = [(k, v, mask) for (k, v, _), mask in zip(tiles, masks, strict=True)]
        cases.append((q, shown))
    return cases


def draw_nothing(stream: random.Random) -> list[Args]:
    """A query that sees nothing among others; only such; no tile; tiles without keys."""
    q, tiles = draw_tiles(stream, 4, 4, (2, 3))
    masks = [mask.clone() for _, _, mask in tiles]
    blind = stream.randrange(4)
    for mask in masks:
        mask[blind] = False
    some_see = [(k, v, mask) for (k, v, _), mask in zip(tiles, masks, strict=True)]
    none_see = [(k, v, torch.zeros_like(mask)) for k, v, mask in tiles]
    empty = [draw_tiles(stream, 3, 4, sizes) for sizes in ((2, 0, 3), (0, 1, 2))]
    return [*empty, (q, some_see), (q, none_see), (q, [])]


def draw_extreme(stream: random.Random) -> list[Args]:
    """Scores in the thousands, exact in float32, the best ones in the middle of the stream.

    Two keys are equal and the best, and the rest is far behind, so the scale makes no difference.
    In the first case the best scores are far above zero, in the second far below.
    """
    cases: list[Args] = []
    for best in (60.0, -60.0):
        q, tiles = draw_tiles(stream, 3, 4, (2, 3, 2, 2))
        q = (q.abs() * 8).round() + 20
        keys = [best - 20 - (k.abs() * 8).round() for k, _, _ in tiles]
        keys[3] -= 60
        keys[1][stream.randrange(3)] = keys[2][stream.randrange(2)] = best
        cases.append((q, [(k, v, mask) for k, (_, v, mask) in zip(keys, tiles, strict=True)]))
    return cases


def draw_long(stream: random.Random) -> list[Args]:
    """Many small tiles."""
    return [draw_tiles(stream, 3, 4, (2,) * N_TILES)]


N_TILES = 30


# --- verdicts, for the probe `streamed`, whose value is the function's and the largest size ---


def whole_attention(q: Tensor, tiles: list[Tile]) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp in float64, from one matrix of all scores."""
    d_head = q.shape[1]
    empty = (torch.zeros(0, d_head), torch.zeros(0, d_head), torch.ones(len(q), 0).bool())
    k, v, mask = (
        torch.cat(parts, dim=int(i == 2)) for i, parts in enumerate(zip(*tiles, empty, strict=True))
    )
    scores = (q.double() @ k.double().T / math.sqrt(d_head)).masked_fill(~mask, -math.inf)
    lse = torch.logsumexp(scores, dim=1)
    seen = lse > -math.inf
    weights = torch.exp(scores - lse.masked_fill(~seen, 0.0)[:, None])
    return weights @ v.double(), lse


def has_the_form(args: Args, value: Any) -> str | None:
    """A pair of tensors of the right shapes."""
    found, _ = value
    if not isinstance(found, list | tuple) or len(found) != 2:
        return f"gives {show(found)}, expected a pair of the output and the log-sum-exp"
    q, _ = args
    return form_problem(found[0], q, "output") or form_problem(found[1], q[:, 0], "log-sum-exp")


def _part_problem(part: int, args: Args, value: Any, tolerance: Tolerance) -> str | None:
    expected = whole_attention(*args)[part]
    problem = difference(expected, value[0][part], tolerance)
    name = ("output", "log-sum-exp")[part]
    return problem and problem.replace("gives", f"gives as {name}", 1)


def part_is_right(part: int, tolerance: Tolerance = FLOAT32) -> Verify:
    """A verdict on the output (0) or the log-sum-exp (1)."""
    return lambda args, value: _part_problem(part, args, value, tolerance)


def both_are_right(args: Args, value: Any) -> str | None:
    """A verdict on both."""
    return part_is_right(0)(args, value) or part_is_right(1)(args, value)


def sums_to_one(args: Args, value: Any) -> str | None:
    """Where all values are one, all outputs are."""
    out = value[0][0]
    problem = form_problem(out, args[0], "output")
    if problem:
        return problem
    wrong = moved(torch.ones_like(out), out)
    if not wrong.any():
        return None
    query = wrong.nonzero()[0, 0].item()
    return (
        f"gives query {query} weights that sum to {out[query, 0].item():.4g} over all tiles, "
        "expected 1 (all values are 1, so the output is their sum)"
    )


def keeps_no_keys(args: Args, value: Any) -> str | None:
    """No tensor grew with the number of keys."""
    _, tiles = args
    n_key = sum(len(k) for k, _, _ in tiles)
    if value[1] < n_key:
        return None
    return (
        f"makes a tensor of {value[1]} numbers while {n_key} keys stream by in tiles of 2: it "
        "collects keys or scores, and a tile with its scores needs no more than 12"
    )


def same_part(part: int) -> Any:
    """Whether two answers agree in the output (0) or the log-sum-exp (1)."""
    return lambda a, b: same(a[0][part], b[0][part])


def same_answer(a: Any, b: Any) -> bool:
    """Whether two answers agree in both, whatever tensors were made."""
    return same(a[0], b[0])


def same_verdict(a: Any, b: Any) -> bool:
    """Whether two functions both collected the keys, or both did not."""
    return bool((a[1] < 2 * N_TILES) == (b[1] < 2 * N_TILES))


FORM = "returns the output (T, D) and the log-sum-exp (T,); changes nothing"
SUMS = "weights that sum to one over all tiles"
RAGGED = "the output, from tiles of unlike sizes"
LSE = "the log-sum-exp"
HIDDEN = "tiles that are hidden, in part or whole"
NOTHING = "nothing to see: hidden keys, tiles without keys, no tiles"
EXTREME = "scores in the thousands"
STREAMS = "no tensor grows with the number of keys"


def _check(name: str, kind: Kind, points: int, draw: Draw, verify: Verify, **options: Any) -> Check:
    options.setdefault("same", same_answer)
    return Check(name, kind, points, draw, verify, probe="streamed", **options)


_oracle = partial(_check, kind=Kind.ORACLE)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, pure=True),
    _check(SUMS, Kind.PROPERTY, 1, draw_ones, sums_to_one, same=same_part(0), hint=2),
    _oracle(RAGGED, points=3, draw=draw_ragged, verify=part_is_right(0), same=same_part(0), hint=2),
    _oracle(LSE, points=2, draw=draw_ragged, verify=part_is_right(1), same=same_part(1), hint=4),
    _oracle(HIDDEN, points=2, draw=draw_hidden, verify=part_is_right(0), same=same_part(0), hint=3),
    _oracle(NOTHING, points=2, draw=draw_nothing, verify=both_are_right, hint=3),
    _oracle(
        EXTREME,
        points=1,
        draw=draw_extreme,
        verify=part_is_right(0, COARSE),
        same=same_part(0),
        hint=2,
    ),
    _check(
        STREAMS,
        Kind.BEHAVIOR,
        1,
        draw_long,
        keeps_no_keys,
        needs=(RAGGED,),
        same=same_verdict,
        hint=1,
    ),
)

REFERENCE = source_of(online_attention)
