"""Exercise 2.3: a smoothed trigram model: its checks."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbook.grading.compare import difference, rounding, show
from gptbook.grading.exercise import Args, Check, Draw, Kind, growth, source_of
from gptbook.grading.limits import Limits


def trigram_probs(
    documents: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[int]],
    vocab_size: int,
    strength: float,
) -> list[list[float]]:
    """Return the next token's probabilities after each context, each level on the one below."""
    counts: Counter[tuple[int | None, ...]] = Counter()
    totals: Counter[tuple[int | None, ...]] = Counter()
    for document in documents:
        padded = [None, None, *document]
        for place in range(2, len(padded)):
            for length in (0, 1, 2):
                history = tuple(padded[place - length : place])
                counts[*history, padded[place]] += 1
                totals[history] += 1
    rows = []
    for context in contexts:
        last_two = (None, None, *context)[-2:]
        row = [1 / vocab_size] * vocab_size
        for history in ((), last_two[1:], last_two):
            scale = totals[history] + strength
            row = [
                (counts[*history, token] + strength * below) / scale
                for token, below in enumerate(row)
            ]
        rows.append(row)
    return rows


# --- inputs: documents, contexts, vocab_size, strength ---


def draw_strength(stream: random.Random) -> float:
    """Pseudo-counts, none of which makes a wrong formula right."""
    return stream.choice([0.3, 0.7, 1.5, 2.5, 4.0])


def draw_ids(stream: random.Random, size: int, low: int, high: int) -> list[int]:
    """Ids in a range, the ends included; small ones are frequent."""
    weights = [1 / (1 + rank) for rank in range(high - low + 1)]
    return stream.choices(range(low, high + 1), weights, k=size)


def draw_inside(stream: random.Random) -> list[Args]:
    """One document, and contexts inside of it; its first two ids and its last stand nowhere else.

    So neither a document's beginning nor its end has anything to do with these contexts. No id is
    the first or the last of the vocabulary, with which wrong padding would be confused.
    """
    cases: list[Args] = []
    for _ in range(4):
        middle = draw_ids(stream, 40, 2, 6)
        document = [8, 9, *middle, 10]
        places = stream.sample(range(5, 40), 5)
        contexts = [document[place - stream.choice((2, 3, 5)) : place] for place in places]
        contexts = [[2, *context] for context in contexts if tuple(context[-2:]) != (8, 9)]
        cases.append(([document], contexts, 12, draw_strength(stream)))
    return cases


def draw_starts(stream: random.Random) -> list[Args]:
    """Several documents, and contexts of no token and of one; each document ends in its own id."""
    cases: list[Args] = []
    for _ in range(4):
        documents = [[*draw_ids(stream, 5, 2, 5), 6 + number] for number in range(5)]
        contexts = [[], [documents[0][0]], [documents[1][0]]]
        cases.append((documents, contexts, 13, draw_strength(stream)))
    return cases


def draw_ends(stream: random.Random) -> list[Args]:
    """Contexts that end some documents and stand inside of others."""
    cases: list[Args] = []
    for _ in range(4):
        one, other = draw_ids(stream, 6, 2, 6), draw_ids(stream, 9, 2, 6)
        pair = stream.sample(range(2, 7), 2)
        documents = [one + pair, [*pair, 4, *other, *pair], other + pair]
        contexts = [pair, [*other, *pair]]
        cases.append((documents, contexts, 8, draw_strength(stream)))
    return cases


def draw_unseen(stream: random.Random) -> list[Args]:
    """Contexts that never occur, wholly or in part, in a vocabulary of which little is used."""
    cases: list[Args] = []
    for _ in range(4):
        document = [9, 10, *draw_ids(stream, 20, 2, 4), 11]
        seen, other = stream.sample([2, 3, 4], 2)
        document[5:7] = [seen, other]
        contexts = [[5, 6], [5, seen], [seen, 6], [6, 5, other]]
        cases.append(([document], contexts, 14, draw_strength(stream)))
    return cases


def draw_any(stream: random.Random) -> list[Args]:
    """Everything at once; the last token of the vocabulary never occurs."""
    cases: list[Args] = []
    for _ in range(4):
        vocab_size = stream.randint(3, 9)
        documents = [draw_ids(stream, size, 0, vocab_size - 2) for size in (1, 4, 9, 20)]
        contexts = [documents[3][:size] for size in (0, 1, 2, 7)]
        contexts += [documents[3], draw_ids(stream, 2, 0, vocab_size - 2), [0, vocab_size - 1]]
        cases.append((documents, contexts, vocab_size, draw_strength(stream)))
    return cases


def draw_edges(stream: random.Random) -> list[Args]:
    """The first and the last id of a vocabulary in contexts, too."""
    cases: list[Args] = []
    for _ in range(4):
        documents = [draw_ids(stream, 6, 0, 2) for _ in range(3)]
        documents += [[0, 0, *draw_ids(stream, 4, 0, 2)], [2, 2, *draw_ids(stream, 4, 0, 2)]]
        cases.append((documents, [[0], [2], [0, 0], [2, 2], []], 3, draw_strength(stream)))
    return cases


def draw_little(stream: random.Random) -> list[Args]:
    """No documents, empty ones, documents of a token, one token in the vocabulary."""
    strength = draw_strength(stream)
    return [
        ([], [[], [1], [0, 1]], 3, strength),
        ([[], []], [[], [1, 1]], 4, strength),
        ([[1], [], [1]], [[]], 4, strength),
        ([[0, 0, 0]], [[0], [0, 0]], 1, strength),
        ([[0, 1]], [], 2, strength),
    ]


def draw_size(stream: random.Random, size: int) -> Args:
    """So many tokens, and a context for every four of them."""
    documents = [draw_ids(stream, 20, 0, 7) for _ in range(size // 20)]
    return documents, [draw_ids(stream, 2, 0, 7) for _ in range(size // 4)], 8, 1.5


def legal(documents: Any, contexts: Any, vocab_size: int, strength: float) -> bool:
    """Whether all ids are in the vocabulary, and smoothing is positive."""
    ids = [token for item in (*documents, *contexts) for token in item]
    return vocab_size > 0 and strength > 0 and all(0 <= token < vocab_size for token in ids)


# --- verdicts ---

CLOSE = rounding("float32", 30)


def table(value: Any) -> NDArray[np.float64]:
    """A list of rows or an array, as an array.

    Raises:
        ValueError: the rows differ in length.
        TypeError: something in them is no number.
    """
    rows = [np.asarray(row, dtype=np.float64) for row in value]
    return np.stack(rows) if rows else np.zeros((0, 0))


def is_a_table(args: Args, value: Any) -> str | None:
    """The form of the answer: a row for each context, a number for each token."""
    _, contexts, vocab_size, _ = args
    if not isinstance(value, list | tuple | np.ndarray):
        return f"gives {show(value)}, expected a list of rows or an array"
    shape, expected = table(value).shape, (len(contexts), vocab_size)
    return None if shape == expected else f"gives the shape {shape}, expected {expected}"


def is_distribution(args: Args, value: Any) -> str | None:
    """Every row is positive and sums to one."""
    for context, row in zip(args[1], table(value), strict=True):
        if not (row > 0).all():
            return f"gives {show(row.min())} to some token after {context}, expected more than zero"
        if abs(row.sum() - 1) > 1e-5:  # float32 is fine; a wrong sum is off by more
            return f"gives probabilities that sum to {row.sum():.6g} after {context}, expected 1"
    return None


def is_expected(args: Args, value: Any) -> str | None:
    """Every probability is the reference's."""
    expected, got = np.array(trigram_probs(*args)), table(value)
    for context, right, row in zip(args[1], expected, got, strict=True):
        for token, (wanted, is_given) in enumerate(zip(right, row, strict=True)):
            if difference(float(wanted), float(is_given), CLOSE):
                return f"gives {is_given:.6g} to {token} after {context}, expected {wanted:.6g}"
    return None


def same_table(a: Any, b: Any) -> bool:
    """Whether two answers are the same, as lists or arrays."""
    try:
        return difference(table(a), table(b), CLOSE) is None
    except (TypeError, ValueError):
        return bool(type(a) is type(b))


FORM = "returns a row for each context"
SUMS = "every row sums to one, and nothing is impossible"
INSIDE = "contexts inside a document"
STARTS = "where documents begin"
ENDS = "where documents end"
UNSEEN = "contexts that never occurred"
EDGES = "the first and last id of the vocabulary"
LITTLE = "no documents, or hardly any"
TIME = "time follows the text, not text times contexts"


def _oracle(name: str, points: int, draw: Draw, hint: int) -> Check:
    return Check(
        name,
        Kind.ORACLE,
        points,
        draw,
        is_expected,
        needs=(FORM,),
        legal=legal,
        same=same_table,
        hint=hint,
    )


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_inside, is_a_table, pure=True, same=same_table),
    Check(
        SUMS,
        Kind.PROPERTY,
        2,
        draw_any,
        is_distribution,
        needs=(FORM,),
        legal=legal,
        same=same_table,
        hint=3,
    ),
    _oracle(INSIDE, 2, draw_inside, 2),
    _oracle(STARTS, 2, draw_starts, 4),
    _oracle(ENDS, 2, draw_ends, 4),
    _oracle(UNSEEN, 2, draw_unseen, 3),
    _oracle(EDGES, 1, draw_edges, 5),
    _oracle(LITTLE, 1, draw_little, 5),
    # Measured: one pass over the text took time like size to the 0.9 to 1.1, and a pass for each
    # context 1.8 to 2.0.
    growth(
        TIME,
        1,
        draw_size,
        (250, 500, 1000, 2000),
        1.5,
        needs=(INSIDE,),
        limits=Limits(cpu_seconds=15, wall_seconds=60.0),
        hint=1,
    ),
)

REFERENCE = source_of(trigram_probs)
