"""Exercise 7.3: reading with a cache: its checks."""

import math
import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.compare import show
from gptbook.grading.exercise import Args, Check, Kind, source_of
from gptbook.grading.tensors import difference, form_problem, normal, same


def read(
    model: dict[str, Tensor], cache: dict[str, Tensor] | None, new: list[list[int]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Read new ids of each row; return the logits (B, V) behind them, and the cache."""
    n_layer, width, _ = model["query"].shape
    context = len(model["positions"])
    if cache is None:
        empty = torch.zeros(n_layer, len(new), context, width)
        lengths = torch.zeros(len(new), dtype=torch.int64)
        cache = {"keys": empty, "values": empty.clone(), "lengths": lengths}
    lengths = cache["lengths"]
    counts = torch.tensor([len(ids) for ids in new])
    longest = int(counts.max())
    padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in new])
    rows, columns = (torch.arange(longest) < counts[:, None]).nonzero(as_tuple=True)
    places = lengths[:, None] + torch.arange(longest)
    places = places.clamp(max=context - 1)
    x = model["tokens"][padded] + model["positions"][places]
    seen = torch.arange(context) <= places[:, :, None]
    for layer in range(n_layer):
        keys, values = cache["keys"][layer], cache["values"][layer]
        at = rows, places[rows, columns]
        keys[at] = (x @ model["key"][layer].T)[rows, columns]
        values[at] = (x @ model["value"][layer].T)[rows, columns]
        scores = x @ model["query"][layer].T @ keys.mT / math.sqrt(width)
        weights = scores.masked_fill(~seen, -math.inf).softmax(dim=-1)
        x = x + weights @ values @ model["output"][layer].T
    cache["lengths"] = lengths + counts
    last = x[torch.arange(len(new)), counts - 1]
    return last @ model["tokens"].T, cache


# --- inputs: a model, and what is read in one call after another: B rows of ids each time ---

VOCAB, CONTEXT, WIDTH, LAYERS = 7, 24, 4, 2

Reading = list[list[int]]


def draw_model(stream: random.Random) -> dict[str, Tensor]:
    """Two layers whose attention is neither even nor hard."""
    model = {"tokens": normal(stream, VOCAB, WIDTH), "positions": normal(stream, CONTEXT, WIDTH)}
    for name in ("query", "key", "value", "output"):
        model[name] = normal(stream, LAYERS, WIDTH, WIDTH) / 2
    return model


def ids(stream: random.Random, *lengths: int) -> Reading:
    """Rows of ids of these lengths."""
    return [[stream.randrange(VOCAB) for _ in range(length)] for length in lengths]


def draw_forms(stream: random.Random) -> list[Args]:
    """A batch of rows of one length, read at once and continued."""
    return [(draw_model(stream), [ids(stream, 3, 3), ids(stream, 1, 1)])]


def draw_prompt(stream: random.Random) -> list[Args]:
    """One prompt, of one token or of more."""
    return [(draw_model(stream), [ids(stream, length)]) for length in (1, 2, 6)]


def draw_ragged(stream: random.Random) -> list[Args]:
    """Prompts of different lengths side by side; the longest is not the last one, or is."""
    return [(draw_model(stream), [ids(stream, *lengths)]) for lengths in ((2, 5, 3), (1, 4))]


def draw_decode(stream: random.Random) -> list[Args]:
    """A prompt, and then one token at a time."""
    lengths = ([3, 1, 1, 1], [1, 1, 1])
    return [(draw_model(stream), [ids(stream, n) for n in calls]) for calls in lengths]


def draw_pieces(stream: random.Random) -> list[Args]:
    """Several tokens at once behind what was read."""
    lengths = ([3, 2, 3], [1, 4, 1])
    return [(draw_model(stream), [ids(stream, n) for n in calls]) for calls in lengths]


def draw_together(stream: random.Random) -> list[Args]:
    """Rows of different lengths that go on together."""
    calls = [ids(stream, 2, 5, 3), ids(stream, 1, 1, 1), ids(stream, 1, 1, 1)]
    pieces = [ids(stream, 4, 1), ids(stream, 1, 3), ids(stream, 2, 1), ids(stream, 1, 1)]
    return [(draw_model(stream), calls), (draw_model(stream), pieces)]


LONG = 16


def draw_long(stream: random.Random) -> list[Args]:
    """A long prompt, and then one token at a time."""
    return [(draw_model(stream), [ids(stream, LONG), *(ids(stream, 1) for _ in range(3))])]


# --- verdicts ---


def wide_logits(model: dict[str, Tensor], row: list[int]) -> Tensor:
    """The logits behind a row in float64, all of it read at once, without a cache."""
    wide = {name: tensor.double() for name, tensor in model.items()}
    x = wide["tokens"][row] + wide["positions"][: len(row)]
    for query, key, value, output in zip(
        wide["query"], wide["key"], wide["value"], wide["output"], strict=True
    ):
        scores = (x @ query.T) @ (x @ key.T).T / math.sqrt(x.shape[-1])
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        x = x + scores.masked_fill(later, -math.inf).softmax(-1) @ (x @ value.T) @ output.T
    return x[-1] @ wide["tokens"].T


def expected_logits(args: Args) -> list[Tensor]:
    """The logits of each call, each row on its own."""
    model, calls = args
    rows: Reading = [[] for _ in calls[0]]
    found = []
    for new in calls:
        rows = [[*row, *more] for row, more in zip(rows, new, strict=True)]
        found.append(torch.stack([wide_logits(model, row) for row in rows]))
    return found


def has_the_form(args: Args, value: Any) -> str | None:
    """A tensor (B, V) from each call."""
    outputs, _ = value
    for call, (new, logits) in enumerate(zip(args[1], outputs, strict=True)):
        problem = form_problem(logits, torch.empty(len(new), VOCAB))
        if problem:
            return f"{problem} (call {call})"
    return None


def is_right(args: Args, value: Any) -> str | None:
    """The logits of each call."""
    problem = has_the_form(args, value)
    if problem:
        return problem
    calls = args[1]
    for call, (wanted, got) in enumerate(zip(expected_logits(args), value[0], strict=True)):
        for row in range(len(wanted)):
            if difference(wanted[row], got[row]):
                lengths = ", ".join(str(len(new[row])) for new in calls[: call + 1])
                others = f" (row {row} of {len(wanted)})" if len(wanted) > 1 else ""
                return (
                    f"gives the logits {show(got[row])} for a row that was read in calls of "
                    f"{lengths} ids{others}, expected {show(wanted[row])}"
                )
    return None


def reads_once(args: Args, value: Any) -> str | None:
    """A token costs little in comparison with a long prompt."""
    first, *others = value[1]
    if 3 * max(others) <= first:
        return None
    return (
        f"computes {first} numbers for the {LONG} ids of a prompt and then {max(others)} for a "
        "single one: what was read is read again"
    )


def same_outputs(a: Any, b: Any) -> bool:
    """Whether two functions give the same logits."""
    return same(list(a[0]), list(b[0]))


def same_cost(a: Any, b: Any) -> bool:
    """Whether both read all again, or both do not."""
    return bool(reads_once((), a)) == bool(reads_once((), b))


FORM = "returns logits (B, V) and a cache; the model stays as it is"
PROMPT = "a prompt of any length"
RAGGED = "prompts of different lengths together"
DECODE = "a prompt, then one token at a time"
PIECES = "several tokens behind what was read"
TOGETHER = "rows of different lengths go on together"
ONCE = "each token is read once"

_check = partial(Check, probe="carry", same=same_outputs)
_right = partial(_check, verify=is_right, kind=Kind.ORACLE)

CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_forms, has_the_form, pure=True),
    _right(PROMPT, points=2, draw=draw_prompt, hint=1),
    _right(RAGGED, points=2, draw=draw_ragged, hint=3),
    _right(DECODE, points=3, draw=draw_decode, hint=2),
    _right(PIECES, points=2, draw=draw_pieces, hint=2),
    _right(TOGETHER, points=3, draw=draw_together, hint=4),
    Check(ONCE, Kind.BEHAVIOR, 3, draw_long, reads_once, probe="carry", same=same_cost, hint=2),
)

REFERENCE = source_of(read)
