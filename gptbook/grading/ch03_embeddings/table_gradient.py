"""Exercise 3.1: the gradient of an embedding's table: its checks."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gptbook.grading.ch03_embeddings.common import first_difference, is_float_tensor, near_and_alike
from gptbook.grading.compare import difference, rounding, show
from gptbook.grading.exercise import Args, Check, Draw, Kind, source_of
from gptbook.grading.tensors import FLOAT32, normal, same


def embedding_gradient(
    ids: Tensor, grad_output: Tensor, vocab_size: int, padding_idx: int | None = None
) -> Tensor:
    """Return the gradient of the table (V, C), given that of the vectors looked up (B, T, C)."""
    d_model = grad_output.shape[-1]
    table = torch.zeros(vocab_size, d_model, dtype=grad_output.dtype)
    table.index_add_(0, ids.reshape(-1), grad_output.reshape(-1, d_model))
    if padding_idx is not None:
        table[padding_idx] = 0
    return table


# --- inputs ---


def make_case(
    stream: random.Random,
    rows: Sequence[Sequence[int]],
    d_model: int = 4,
    vocab_size: int = 7,
) -> Args:
    """Arguments without padding for ids given row by row."""
    gradient = normal(stream, len(rows), len(rows[0]), d_model)
    return torch.tensor(rows), gradient, vocab_size


def deal(ids: list[int], n_rows: int) -> list[list[int]]:
    """Ids as rows of equal length."""
    length = len(ids) // n_rows
    return [ids[start : start + length] for start in range(0, length * n_rows, length)]


def draw_distinct(stream: random.Random) -> list[Args]:
    """Each id occurs at most once, and the largest one does."""
    cases = []
    for n_rows, length, vocab_size in ((2, 3, 7), (3, 3, 9), (1, 4, 6)):
        ids = stream.sample(range(vocab_size - 1), n_rows * length - 1)
        ids.insert(stream.randrange(n_rows * length), vocab_size - 1)
        cases.append(make_case(stream, deal(ids, n_rows), vocab_size=vocab_size))
    return cases


def repeated_rows(stream: random.Random, n_rows: int, length: int) -> list[list[int]]:
    """Ids of seven: one comes twice in a row, one in two rows if there are two; 6 occurs."""
    twice, shared, *others = stream.sample(range(6), 6)
    rows = [stream.choices([twice, shared, *others], k=length - 3) for _ in range(n_rows)]
    for index, row in enumerate(rows):
        row += [twice, twice, shared] if index == 0 else [shared, stream.choice(others), 6]
    if n_rows == 1:
        rows[0][0] = 6
    for row in rows:
        stream.shuffle(row)
    return rows


def draw_repeated(stream: random.Random) -> list[Args]:
    """Ids that occur several times, in a row and in several rows."""
    shapes = ((2, 4), (3, 5), (1, 6))
    return [make_case(stream, repeated_rows(stream, *shape)) for shape in shapes]


def draw_double(stream: random.Random) -> list[Args]:
    """Gradients in float64."""
    return [(ids, g.double() / 3, size) for ids, g, size in draw_distinct(stream)[:1]]


def draw_unseen(stream: random.Random) -> list[Args]:
    """The largest ids do not occur, nor do some in between."""
    cases = []
    for _ in range(3):
        seen = stream.sample(range(6), 3)
        cases.append(make_case(stream, deal(stream.choices(seen, k=8), 2), vocab_size=9))
    return cases


def draw_padding(stream: random.Random) -> list[Args]:
    """Padding on the left, on the right and in between, as 0 or another id; no other id repeats."""
    cases: list[Args] = []
    for padding in (0, 0, stream.randrange(1, 8), 8):
        rows = deal(stream.sample([token for token in range(9) if token != padding], 8), 2)
        left, right = ([padding, padding, *rows[0]], [*rows[1], padding, padding])
        right.insert(2, right.pop())
        cases.append((*make_case(stream, [left, right], d_model=10, vocab_size=9), padding))
    return cases


def draw_views(stream: random.Random) -> list[Args]:
    """Gradients and ids whose numbers do not lie in memory in this order."""
    turned: list[Args] = [
        (ids.T, gradient.transpose(0, 1), size) for ids, gradient, size in draw_distinct(stream)[:2]
    ]
    ids, _, size = draw_distinct(stream)[0]
    return [*turned, (ids, normal(stream, 2, 1, 4).expand(2, 3, 4), size)]  # of a sum over places


def legal(ids: Tensor, grad_output: Tensor, vocab_size: int, padding_idx: Any = None) -> bool:
    """Whether shapes agree and ids are rows of the table."""
    return (
        ids.ndim == 2
        and ids.shape == grad_output.shape[:-1]
        and ids.numel() > 0
        and int(ids.min()) >= 0
        and int(ids.max()) < vocab_size
        and (padding_idx is None or 0 <= padding_idx < vocab_size)
    )


# --- verdicts ---


def expected_table(
    ids: Tensor, grad_output: Tensor, vocab_size: int, padding: Any = None
) -> Tensor:
    """The gradient in float64, token by token."""
    table = torch.zeros(vocab_size, grad_output.shape[-1], dtype=torch.float64)
    for row, row_gradient in zip(ids.tolist(), grad_output.double(), strict=True):
        for token, gradient in zip(row, row_gradient, strict=True):
            if token != padding:
                table[token] += gradient
    return table


def is_a_table(args: Args, value: Any) -> str | None:
    """The form of the answer."""
    return is_float_tensor(value, (args[2], args[1].shape[-1]))


def is_double(args: Args, value: Any) -> str | None:
    """The dtype is the gradient's, and so is the precision."""
    if value.dtype != args[1].dtype:
        return f"gives {value.dtype} for a gradient of {args[1].dtype}, expected the same dtype"
    found = difference(expected_table(*args), value, rounding("float64", 20))
    return None if found is None else f"is in {value.dtype}, but rounded more than that: {found}"


def keeps_the_total(args: Args, value: Any) -> str | None:
    """All tokens' gradients are somewhere in the table."""
    got, expected = value.sum(0), args[1].double().sum((0, 1))
    found = difference(expected, got, FLOAT32)
    if found is None:
        return None
    return (
        f"gives rows that sum to {show(got)}, while the gradients of all tokens sum to "
        f"{show(expected)}"
    )


def leaves_others_zero(args: Args, value: Any) -> str | None:
    """Rows of ids that do not occur are zero."""
    problem = is_a_table(args, value)
    if problem:
        return problem
    seen = set(args[0].reshape(-1).tolist())
    for token in range(args[2]):
        if token not in seen and bool((value[token] != 0).any()):
            return f"gives {show(value[token])} for id {token}, which does not occur; expected 0"
    return None


def is_the_gradient(args: Args, value: Any) -> str | None:
    """The whole table."""
    expected = expected_table(*args)
    place = first_difference(expected, value, FLOAT32)
    if place is None:
        return difference(expected, value, FLOAT32)
    token, count = place[0], int((args[0] == place[0]).sum())
    times = {0: "which does not occur", 1: "which occurs once"}.get(
        count, f"which occurs {count} times"
    )
    padding = " and is the padding" if len(args) > 3 and args[3] == token else ""
    return (
        f"gives {show(value[token])} for id {token}, {times}{padding}; "
        f"expected {show(expected[token])}"
    )


FORM = "returns a (V, C) tensor"
DOUBLE = "float64 stays float64"
TOTAL = "nothing gets lost"
UNSEEN = "ids that do not occur get zero"
ONCE = "each id once"
REPEATED = "repeated ids add up"
VIEWS = "any layout in memory"
PADDING = "the padding's row stays zero"


def _check(
    name: str,
    kind: Kind,
    points: int,
    draw: Draw,
    verify: Callable[[Args, Any], str | None],
    hint: int,
    **options: Any,
) -> Check:
    needs = (FORM,) if name != FORM else ()
    return Check(
        name, kind, points, draw, verify, needs, legal=legal, hint=hint, **{"same": same, **options}
    )


CHECKS = (
    _check(FORM, Kind.CONTRACT, 1, draw_distinct, is_a_table, 1, pure=True),
    _check(DOUBLE, Kind.CONTRACT, 1, draw_double, is_double, 2, same=near_and_alike),
    _check(TOTAL, Kind.PROPERTY, 1, draw_repeated, keeps_the_total, 3),
    _check(UNSEEN, Kind.PROPERTY, 1, draw_unseen, leaves_others_zero, 1),
    _check(ONCE, Kind.ORACLE, 1, draw_distinct, is_the_gradient, 1),
    _check(REPEATED, Kind.ORACLE, 3, draw_repeated, is_the_gradient, 3),
    _check(VIEWS, Kind.ORACLE, 1, draw_views, is_the_gradient, 2),
    _check(PADDING, Kind.ORACLE, 2, draw_padding, is_the_gradient, 4, pure=True),
)

REFERENCE = source_of(embedding_gradient)
