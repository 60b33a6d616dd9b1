"""Exercise 2.5: batches whose inputs do not give away their targets: its checks."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbook.grading.compare import same, show
from gptbook.grading.exercise import Args, Check, Draw, Kind, Verify, source_of

Window = tuple[tuple[int, ...], ...]
Batches = list[tuple[NDArray[np.int64], ...]]


def make_batches(
    tokens: Sequence[int], end_of_text: int, batch_size: int, context_length: int, seed: int
) -> list[tuple[NDArray[np.int64], ...]]:
    """Return inputs, targets, positions and document ids of each batch of an epoch."""
    windows = []
    for start in range(0, len(tokens) - context_length, context_length):
        rows: list[list[int]] = [[], [], [], []]
        for place in range(start, start + context_length):
            begins = tokens[place] == end_of_text
            rows[0].append(tokens[place])
            rows[1].append(tokens[place + 1])
            rows[2].append(0 if begins or place == start else rows[2][-1] + 1)
            rows[3].append(0 if place == start else rows[3][-1] + begins)
        windows.append(rows)
    random.Random(seed).shuffle(windows)
    batches = []
    for first in range(0, len(windows) - batch_size + 1, batch_size):
        group = np.array(windows[first : first + batch_size])
        batches.append(tuple(group[:, part] for part in range(4)))
    return batches


# --- inputs: tokens, end_of_text, batch_size, context_length, seed ---

END = 50_256
"""The end of text, as in GPT-2; no other token stands twice."""


def draw_tokens(stream: random.Random, size: int) -> list[int]:
    """Tokens of one document, without the end-of-text token before it."""
    return stream.sample(range(50_000), size)


def draw_one(stream: random.Random) -> list[Args]:
    """One document, whose last window is followed by a few tokens; the batches come out even."""
    cases: list[Args] = []
    for _ in range(5):
        batch_size, length = stream.randint(2, 4), stream.randint(5, 7)
        size = batch_size * stream.randint(3, 4) * length + stream.randint(3, length - 1)
        tokens = draw_tokens(stream, size)
        cases.append((tokens, END, batch_size, length, stream.randrange(1000)))
    return cases


def draw_remainders(stream: random.Random) -> list[Args]:
    """A text that ends with the last window's last target, or lacks just that."""
    cases: list[Args] = []
    for more in (0, 1):
        length = stream.randint(4, 6)
        tokens = draw_tokens(stream, 12 * length + more)
        cases.append((tokens, END, 1, length, stream.randrange(1000)))
    return cases


def draw_incomplete(stream: random.Random) -> list[Args]:
    """Windows that do not fill the last batch; fewer tokens than a window has; no tokens."""
    length, seed = stream.randint(4, 6), stream.randrange(1000)
    return [
        (draw_tokens(stream, 31 * length + 3), END, 10, length, seed),
        (draw_tokens(stream, 3 * length + 2), END, 5, length, seed),
        (draw_tokens(stream, length - 1), END, 2, length, seed),
        ([], END, 2, length, seed),
    ]


def draw_packed(stream: random.Random) -> list[Args]:
    """Documents that each begin with the end-of-text token, long and short ones and an empty one.

    The second begins with a window, and the third begins with the last token of a window.
    """
    cases: list[Args] = []
    for _ in range(4):
        length = stream.randint(5, 7)
        spans = stream.sample([3, 1, 3 * length, 2, length + 2], 5)
        spans = [2 * length, 2 * length - 1, 5, *spans]
        words = draw_tokens(stream, sum(spans) + length)
        tokens: list[int] = []
        for span in spans:
            tokens += [END, *(words.pop() for _ in range(span - 1))]
        while len(tokens) % length != 3:  # so that the end is not the question here
            tokens.append(words.pop())
        cases.append((tokens, END, 1, length, stream.randrange(1000)))
    return cases


def draw_seeds(stream: random.Random) -> list[Args]:
    """The same tokens with one seed twice, and with three others."""
    tokens = draw_tokens(stream, 24 * 4 + 2)
    first, *others = stream.sample(range(1000), 4)
    return [tuple((tokens, END, 4, 4, seed) for seed in (first, first, *others))]


def draw_order(stream: random.Random) -> list[Args]:
    """Enough windows to see whether they are shuffled."""
    return [(draw_tokens(stream, 60 * 3 + 2), END, 6, 3, stream.randrange(1000))]


def legal(
    tokens: list[int], end_of_text: int, batch_size: int, context_length: int, seed: int
) -> bool:
    """Whether no token stands twice, so that it is clear where a window comes from."""
    words = [token for token in tokens if token != end_of_text]
    positive = batch_size > 0 and context_length > 1 and seed >= 0 and end_of_text == END
    return positive and len(set(words)) == len(words)


# --- reading the answer ---

PARTS = ("inputs", "targets", "positions", "document ids")


def windows_of(value: Any) -> list[Window]:
    """All rows of all batches, in order, each with its four parts."""
    return [
        tuple(tuple(int(item) for item in part[row]) for part in batch)
        for batch in value
        for row in range(len(batch[0]))
    ]


def starts_of(args: Args, value: Any) -> list[int]:
    """Where each window's first token stands in the text; -1 where that cannot be said."""
    tokens, end_of_text, *_ = args
    place = {token: index for index, token in enumerate(tokens) if token != end_of_text}
    starts = []
    for inputs, *_ in windows_of(value):
        known = [place[token] - index for index, token in enumerate(inputs) if token in place]
        starts.append(known[0] if known else -1)
    return starts


# --- verdicts ---


def has_the_form(args: Args, value: Any) -> str | None:
    """A list of batches of four arrays of one shape."""
    _, _, batch_size, length, _ = args
    if not isinstance(value, list | tuple):
        return f"gives {show(value)}, expected a list of batches"
    for number, batch in enumerate(value):
        if not isinstance(batch, list | tuple) or len(batch) != 4:
            return f"gives {show(batch)} as batch {number}, expected a tuple of four arrays"
        for name, part in zip(PARTS, batch, strict=True):
            array = np.asarray(part)
            if array.dtype.kind not in "iu":
                return f"gives {name} of dtype {array.dtype} in batch {number}, expected integers"
            if array.ndim != 2 or array.shape[1] != length or not 0 < len(array) <= batch_size:
                return (
                    f"gives {name} of shape {array.shape} in batch {number}, "
                    f"expected at most {batch_size} rows of {length}"
                )
            if array.shape != np.asarray(batch[0]).shape:
                return f"gives {name} and inputs of different shape in batch {number}"
    return None


def part_is_right(part: int) -> Verify:
    """A verdict on one part of every row whose inputs are a piece of the text, wherever it is."""

    def verify(args: Args, value: Any) -> str | None:
        tokens, end_of_text, _, length, _ = args
        for start, window in zip(starts_of(args, value), windows_of(value), strict=True):
            piece = tokens[start : start + length + 1] if start >= 0 else []
            if len(piece) <= length or window[0] != tuple(piece[:-1]):
                continue  # not a window of the text, which has a check of its own
            right = windows_of(make_batches(piece, end_of_text, 1, length, 0))[0]
            if window[part] != right[part]:
                return (
                    f"gives the {PARTS[part]} {show(list(window[part]))} for the inputs "
                    f"{show(list(window[0]))}, expected {show(list(right[part]))}"
                )
        return None if value or not make_batches(*args) else "gives no batch"

    return verify


def follows(args: Args, value: Any) -> str | None:
    """Every target is the token after its input."""
    after = dict(pairwise(args[0]))
    for inputs, targets, *_ in windows_of(value):
        for token, target in zip(inputs, targets, strict=True):
            if token in after and target != after[token]:
                return f"gives the target {target} for {token}, expected {after[token]}"
    return None if value or not make_batches(*args) else "gives no batch"


def covers(args: Args, value: Any) -> str | None:
    """All batches are full, and no window stands in them twice or at another place."""
    tokens, _, batch_size, length, _ = args
    starts = range(0, len(tokens) - length, length)
    got = Counter(starts_of(args, value))
    for start in sorted(got):
        if start not in starts:
            return f"gives a window that begins at token {start}, where none is to begin"
        if got[start] > 1:
            return f"gives the window that begins at token {start} {got[start]} times"
    missing = [start for start in starts if start not in got]
    if missing and len(starts) % batch_size == 0:
        return f"gives no window that begins at token {missing[0]}"
    sizes, wanted = [len(batch[0]) for batch in value], [batch_size] * (len(starts) // batch_size)
    return None if sizes == wanted else f"gives batches of {sizes} rows, expected {wanted}"


def obeys_the_seed(args: Args, value: list[Any]) -> str | None:
    """For the probe `call_each`: one seed gives one order, and other seeds give others."""
    orders = [starts_of(one, answer) for one, answer in zip(args, value, strict=True)]
    if orders[0] != orders[1]:
        return f"gives another order each time for the seed {args[0][4]}"
    if all(order == orders[0] for order in orders):
        return f"gives the same order for the seeds {[one[4] for one in args[1:]]}"
    return None


def is_shuffled(args: Args, value: Any) -> str | None:
    """Windows that follow each other in the text are seldom neighbors in a batch."""
    starts = starts_of(args, value)
    pairs = list(pairwise(starts))
    ordered = sum(after == before + args[3] for before, after in pairs)
    # Of 59 neighbors about one is in order by chance, and 15 or more once in 10**13 times.
    if ordered < 15:
        return None
    return f"gives windows of which {ordered} of {len(pairs)} stand beside the one before them"


# --- whether two wrong answers are wrong in the same way, whatever their shuffling ---


def plainly(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Make a comparison of answers one that stands answers of any form."""

    def compare_any(a: Any, b: Any) -> bool:
        try:
            return compare(a, b)
        except (TypeError, ValueError, IndexError, AttributeError):
            return same(a, b)

    return compare_any


@plainly
def same_rows(a: Any, b: Any) -> bool:
    """Whether all rows are the same in some order; rows put together at random are all alike."""
    one, other = windows_of(a), windows_of(b)
    if sorted(one) == sorted(other):
        return True
    return (
        all(sorted(w[i] for w in one) == sorted(w[i] for w in other) for i in range(4))
        and _mixes(one)
        and _mixes(other)
    )


def _mixes(windows: list[Window]) -> bool:
    """Whether the second and third target are elsewhere than the inputs."""
    return any(not set(window[0]) & set(window[1]) for window in windows)


@plainly
def same_starts(a: Any, b: Any) -> bool:
    """Whether the same windows are there, in batches of the same sizes, or both repeat some."""
    one, other = windows_of(a), windows_of(b)
    if [len(batch[0]) for batch in a] != [len(batch[0]) for batch in b]:
        return False
    return _repeats(a) == _repeats(b) and (
        _repeats(a) != "" or sorted(w[0] for w in one) == sorted(w[0] for w in other)
    )


def _repeats(value: Any) -> str:
    """How windows repeat: whole batches, single windows, or not at all."""
    batches = [np.asarray(batch[0]).tolist() for batch in value]
    if len(batches) > 1 and all(batch == batches[0] for batch in batches):
        return "batches"
    rows = [tuple(row) for batch in batches for row in batch]
    return "windows" if len(set(rows)) < len(rows) else ""


@plainly
def same_orders(a: Any, b: Any) -> bool:
    """Whether two answers obey the seed to the same degree."""
    return _obedience(a) == _obedience(b)


def _obedience(value: list[Any]) -> tuple[bool, ...]:
    orders = [[window[0] for window in windows_of(answer)] for answer in value]
    return orders[0] == orders[1], all(order == orders[0] for order in orders)


@plainly
def same_order(a: Any, b: Any) -> bool:
    """Whether windows stand in the same order, or both in order within batches."""
    return [_inner(batch) for batch in a] == [_inner(batch) for batch in b] or (
        sorted(map(_inner, a)) == sorted(map(_inner, b))
    )


def _inner(batch: Any) -> list[Any]:
    rows: list[Any] = np.asarray(batch[0]).tolist()
    return rows


FORM = "returns batches of four arrays"
SHIFT = "each target is the next token"
ONCE = "every window comes once"
LAST = "the last window is there if its last target is"
INCOMPLETE = "full batches only, too few tokens"
PACKED = "windows go on from document to document"
ENDS = "the end of text is predicted"
POSITIONS = "positions begin at zero in window and document"
IDS = "document ids count from zero in each window"
SEED = "the seed alone decides the order"
SHUFFLED = "windows are shuffled one by one"


def _check(name: str, kind: Kind, points: int, draw: Draw, verify: Verify, **options: Any) -> Check:
    return Check(name, kind, points, draw, verify, needs=(FORM,), **options)


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_one, has_the_form, pure=True, same=same_rows),
    _check(SHIFT, Kind.PROPERTY, 2, draw_one, follows, same=same_rows, hint=2, legal=legal),
    _check(ONCE, Kind.PROPERTY, 2, draw_one, covers, same=same_starts, hint=1, legal=legal),
    _check(LAST, Kind.ORACLE, 1, draw_remainders, covers, same=same_starts, hint=2),
    _check(INCOMPLETE, Kind.ORACLE, 1, draw_incomplete, covers, same=same_starts, hint=4),
    _check(PACKED, Kind.ORACLE, 1, draw_packed, covers, same=same_starts, hint=1),
    _check(ENDS, Kind.ORACLE, 1, draw_packed, part_is_right(1), same=same_rows, hint=3),
    _check(POSITIONS, Kind.ORACLE, 1, draw_packed, part_is_right(2), same=same_rows, hint=3),
    _check(IDS, Kind.ORACLE, 1, draw_packed, part_is_right(3), same=same_rows, hint=3),
    _check(
        SEED,
        Kind.BEHAVIOR,
        1,
        draw_seeds,
        obeys_the_seed,
        probe="call_each",
        same=same_orders,
        hint=4,
    ),
    _check(SHUFFLED, Kind.BEHAVIOR, 1, draw_order, is_shuffled, same=same_order, hint=4),
)

REFERENCE = source_of(make_batches)
