"""Exercise 1.1: byte-pair training with its tie-break."""

import random
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from gptbook.grading.compare import show
from gptbook.grading.exercise import (
    Args,
    Check,
    Kind,
    Mistake,
    Part,
    edited,
    oracle,
    source_of,
)
from gptbook.grading.shortcuts import Forbidden

Pair = tuple[bytes, bytes]
PieceCounts = dict[bytes, int]

READY_MADE = Forbidden(
    modules=(
        "gptbook.tokenizer",
        "gptbook.bpe_training",
        "gptbook.bpe_encoding",
        "tokenizers",
        "tiktoken",
        "sentencepiece",
        "rustbpe",
        "transformers",
    )
)
BY_HAND = "Byte-pair encoding by hand"
CUTS = "Cut first, then merge"
ON_TEXT = "Training on real text"


def train_bpe(piece_counts: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Learn merges by counting all pairs anew at each step."""
    pieces = [([bytes([byte]) for byte in piece], n) for piece, n in piece_counts.items()]
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts: Counter[Pair] = Counter()
        for tokens, count in pieces:
            for pair in pairwise(tokens):
                counts[pair] += count
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        pieces = [(merge_pair(tokens, best), count) for tokens, count in pieces]
    return merges


def merge_pair(tokens: list[bytes], pair: Pair) -> list[bytes]:
    """Replace each occurrence of a pair, from the left, by the joined token."""
    merged, place = [], 0
    while place < len(tokens):
        if tuple(tokens[place : place + 2]) == pair:
            merged.append(tokens[place] + tokens[place + 1])
            place += 2
        else:
            merged.append(tokens[place])
            place += 1
    return merged


def first_tie(piece_counts: PieceCounts, n_merges: int) -> int:
    """How many merges are learned before two pairs are equally frequent."""
    pieces = [([bytes([byte]) for byte in piece], n) for piece, n in piece_counts.items()]
    for step in range(n_merges):
        counts: Counter[Pair] = Counter()
        for tokens, count in pieces:
            for pair in pairwise(tokens):
                counts[pair] += count
        if not counts or list(counts.values()).count(max(counts.values())) > 1:
            return step
        best = max(counts, key=lambda pair: counts[pair])
        pieces = [(merge_pair(tokens, best), count) for tokens, count in pieces]
    return n_merges


# --- inputs ---


def draw_small(stream: random.Random) -> list[Args]:
    """A few small cases, one with bytes beyond ASCII."""
    return [({b"abc": 3, b"bc": 2, b"cab": 4}, 3), ({"né👋".encode(): 2}, stream.randint(2, 5))]


def draw_any(stream: random.Random) -> list[Args]:
    """Pieces of a few letters, so that pairs repeat, with more pairs than merges."""
    cases: list[Args] = []
    while len(cases) < 10:
        letters = stream.choice([b"ab", b"abc", bytes(stream.sample(range(256), 5))])
        pieces = {
            bytes(stream.choices(letters, k=stream.randint(2, 7))): stream.randint(2, 40)
            for _ in range(stream.randint(3, 7))
        }
        n_merges = stream.randint(3, 9)
        if len(train_bpe(pieces, n_merges)) == n_merges:
            cases.append((pieces, n_merges))
    return cases


def draw_without_ties(stream: random.Random) -> list[Args]:
    """Pieces in which no byte repeats, with counts so different that no two pairs tie."""
    cases: list[Args] = []
    while len(cases) < 10:
        letters = stream.sample(range(256), 6)
        pieces = {
            bytes(stream.sample(letters, stream.randint(2, 5))): stream.randint(1, 10**4)
            for _ in range(8)
        }
        steps = first_tie(pieces, 6)
        if steps >= 4 and any(len(left + right) > 2 for left, right in train_bpe(pieces, steps)):
            cases.append((pieces, steps))
    return cases


def draw_ties(stream: random.Random) -> list[Args]:
    """Pieces that all occur twice: ties between bytes, and between a byte and a longer token."""
    cases: list[Args] = []
    while len(cases) < 24:
        letters = stream.sample(range(256), 3)
        pieces = {bytes(stream.sample(letters * 2, stream.randint(2, 5))): 2 for _ in range(6)}
        n_merges = len(train_bpe(pieces, 99)) - 1
        if not any(_has_repeat(piece) for piece in pieces) and n_merges >= 3:
            cases.append((pieces, n_merges))
    return cases


def _has_repeat(piece: bytes) -> bool:
    """Whether a pair occurs twice in a piece; those have a check of their own."""
    pairs = list(pairwise(piece))
    return len(set(pairs)) < len(pairs)


def draw_repeats(stream: random.Random) -> list[Args]:
    """Runs of one byte, and pairs that occur twice in a piece, without ties."""
    a, b, c = (bytes([byte]) for byte in stream.sample(range(256), 3))
    cases: list[Args] = [({a * 3: stream.randint(20, 60), b + c: stream.randint(1, 9)}, 3)]
    while len(cases) < 12:
        a, b, c = (bytes([byte]) for byte in stream.sample(range(256), 3))
        n = stream.randint(3, 7)
        pieces = {
            a * n: stream.randint(20, 60),
            a * (n + 2) + b: stream.randint(20, 60),
            (a + b) * 2 + c: stream.randint(20, 90),
            c + (a + b) * 3: stream.randint(20, 90),
            b + c: stream.randint(20, 200),
        }
        steps = first_tie(pieces, 6)
        if steps >= 4:
            cases.append((pieces, steps))
    return cases


def draw_ends(stream: random.Random) -> list[Args]:
    """More merges asked for than there are pairs, none, and no text; no order is in doubt."""
    a, b, c = (bytes([byte]) for byte in sorted(stream.sample(range(256), 3), reverse=True))
    return [
        ({}, 5),
        ({a: 3, b: 4}, 5),
        ({a + b: 3}, 0),
        ({a + b: 3}, stream.randint(2, 9)),
        ({a + b: 5, b + c: 3, c: 1}, stream.randint(3, 9)),
        ({a + b: 4, c + b: 1}, stream.randint(3, 9)),
    ]


def legal(piece_counts: PieceCounts, n_merges: int) -> bool:
    """Whether pieces are not empty and occur."""
    return n_merges >= 0 and all(piece and n > 0 for piece, n in piece_counts.items())


# --- verdicts ---


def is_list_of_pairs(_: Args, value: object) -> str | None:
    """The form of the answer."""
    if not isinstance(value, list):
        return f"gives {show(value)}, expected a list"
    for index, pair in enumerate(value):
        is_pair = isinstance(pair, tuple) and len(pair) == 2
        if not is_pair or not all(isinstance(token, bytes) for token in pair):
            return f"gives a list whose item {index} is {show(pair)}, expected a pair of bytes"
    return None


def joins_what_exists(args: Args, value: list[Pair]) -> str | None:
    """Each merge joins tokens that exist by then, into bytes that stand in some piece."""
    pieces: PieceCounts = args[0]
    tokens = {bytes([byte]) for byte in range(256)}
    for index, (left, right) in enumerate(value):
        if left not in tokens or right not in tokens:
            return f"merge {index} is {(left, right)}, of which one is no token yet"
        if not any(left + right in piece for piece in pieces):
            return f"merge {index} is {(left, right)}, but {left + right!r} is in no piece"
        tokens.add(left + right)
    return None


FORM = "returns a list of pairs of bytes"
EXISTS = "each merge joins two tokens that stand side by side"
COUNTS = "the most frequent pair is next"
REPEATS = "a pair that repeats in a piece"
TIES = "ties go to the greater pair"
ENDS = "ends when no pair is left"

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_small, is_list_of_pairs, pure=True),
    Check(EXISTS, Kind.PROPERTY, 1, draw_any, joins_what_exists, (FORM,), legal=legal),
    oracle(COUNTS, 2, draw_without_ties, train_bpe, needs=(FORM,), hint=2),
    oracle(REPEATS, 2, draw_repeats, train_bpe, needs=(FORM,), hint=3),
    oracle(TIES, 3, draw_ties, train_bpe, needs=(FORM,), legal=legal, hint=4),
    oracle(ENDS, 1, draw_ends, train_bpe, needs=(FORM,), legal=legal, hint=2),
)

REFERENCE = source_of(train_bpe)

BEST = "max(counts, key=lambda pair: (counts[pair], pair))"

MISTAKES = (
    Mistake(
        "Ties go to the first pair seen",
        "`max` over the counts alone keeps the first of equally frequent pairs, so the result "
        "depends on the order of the text. Compare `(count, pair)`.",
        BY_HAND,
        3,
        edited(REFERENCE, (BEST, "max(counts, key=lambda pair: counts[pair])")),
    ),
    Mistake(
        "Ties go to the smaller pair",
        "Of equally frequent pairs you take the one whose bytes are least, as sorting by "
        "(-count, pair) does. The rule of this book takes the greatest.",
        BY_HAND,
        3,
        edited(REFERENCE, (BEST, "min(counts, key=lambda pair: (-counts[pair], pair))")),
    ),
    Mistake(
        "Ties are decided by ids",
        "A merged token's id is above every byte's, whatever its bytes are, so comparing ids "
        "prefers younger tokens. Compare the tokens' bytes.",
        BY_HAND,
        3,
        edited(
            REFERENCE,
            (
                BEST,
                "max(counts, key=lambda pair: (counts[pair], [ids(merges, t) for t in pair]))",
            ),
        )
        + "\n\ndef ids(merges, token):\n"
        "    made = [left + right for left, right in merges]\n"
        "    return token[0] if len(token) == 1 else 256 + made.index(token)\n",
    ),
    Mistake(
        "Ties are decided by the joined bytes",
        "Two pairs may join to the same bytes, or to bytes in another order than their own. "
        "Compare the left tokens first, then the right ones.",
        BY_HAND,
        3,
        edited(
            REFERENCE, (BEST, "max(counts, key=lambda pair: (counts[pair], pair[0] + pair[1]))")
        ),
    ),
    Mistake(
        "Every piece counts once",
        "The pairs of a piece are counted once, however often the piece occurs in the text. Add "
        "the piece's count.",
        ON_TEXT,
        4,
        edited(REFERENCE, ("counts[pair] += count", "counts[pair] += 1")),
    ),
    Mistake(
        "Pairs in a run are counted without overlap",
        "`aaa` has the pair (a, a) twice, at its first and at its second byte, and you count one. "
        "Count every pair of neighbors, and leave overlaps to merging.",
        BY_HAND,
        2,
        edited(
            REFERENCE,
            (
                "            for pair in pairwise(tokens):\n"
                "                counts[pair] += count\n",
                "            last = None\n"
                "            for place, pair in enumerate(pairwise(tokens)):\n"
                "                if pair == last:\n"
                "                    last = None\n"
                "                    continue\n"
                "                counts[pair] += count\n"
                "                last = pair\n",
            ),
        ),
    ),
    Mistake(
        "Only the first occurrence in a piece is merged",
        "After one merge in a piece you go on to the next piece, and the pair stays where it "
        "occurs again. Go on to the end of the piece.",
        BY_HAND,
        2,
        edited(
            REFERENCE,
            (
                "            merged.append(tokens[place] + tokens[place + 1])\n"
                "            place += 2\n",
                "            return tokens[:place] + [pair[0] + pair[1]] + tokens[place + 2 :]\n",
            ),
        ),
    ),
    Mistake(
        "Runs are merged from the right",
        "In a run of three equal tokens you join the last two. Go through each piece from the "
        "left, so that the first two are joined.",
        BY_HAND,
        2,
        edited(
            REFERENCE,
            (
                "(merge_pair(tokens, best), count)",
                "(merge_pair(tokens[::-1], best[::-1])[::-1], count)",
            ),
            (
                "merged.append(tokens[place] + tokens[place + 1])",
                "merged.append(tokens[place + 1] + tokens[place])",
            ),
        ),
    ),
    Mistake(
        "Pairs are counted once and for all",
        "You take the most frequent pairs of the bytes and never count again, so no merge builds "
        "on an earlier one. Count after every merge.",
        BY_HAND,
        7,
        edited(
            REFERENCE,
            (
                "(merge_pair(tokens, best), count)",
                "(tokens, count)",
            ),
            (
                "            for pair in pairwise(tokens):\n",
                "            for pair in set(pairwise(tokens)) - set(merges):\n",
            ),
        ),
    ),
    Mistake(
        "Merges cross from one piece into the next",
        "You join all pieces into one text before counting, so a token may hold the end of a word "
        "and the start of another. Count and merge inside each piece.",
        CUTS,
        9,
        edited(
            REFERENCE,
            (
                "    pieces = [([bytes([byte]) for byte in piece], n) "
                "for piece, n in piece_counts.items()]\n",
                "    whole = b''.join(piece * min(n, 50) for piece, n in piece_counts.items())\n"
                "    pieces = [([bytes([byte]) for byte in whole], 1)]\n",
            ),
        ),
    ),
    Mistake(
        "Stops one merge too early",
        "The loop runs `n_merges - 1` times, so the last merge is missing. Count the merges that "
        "you have, and stop at `n_merges` of them.",
        BY_HAND,
        7,
        edited(REFERENCE, ("while len(merges) < n_merges:", "while len(merges) < n_merges - 1:")),
    ),
    Mistake(
        "Fails when no pair is left",
        "A text has only so many pairs, and `max` of nothing raises ValueError. Stop as soon as "
        "there is nothing to count.",
        ON_TEXT,
        1,
        edited(REFERENCE, ("        if not counts:\n            break\n", "")),
    ),
    Mistake(
        "Pairs that occur once are not merged",
        "You stop when the best pair occurs only once, though more merges were asked for. Stop "
        "when no pair is left.",
        BY_HAND,
        1,
        edited(REFERENCE, ("if not counts:", "if not counts or max(counts.values()) < 2:")),
    ),
)

STYLES = {
    "ids in a dictionary": """
import collections


def train_bpe(piece_counts, n_merges):
    vocab = {i: bytes([i]) for i in range(256)}
    words = {piece: list(piece) for piece in piece_counts}
    merges = []
    for new in range(256, 256 + n_merges):
        stats = collections.defaultdict(int)
        for piece, ids in words.items():
            for i in range(len(ids) - 1):
                stats[ids[i], ids[i + 1]] += piece_counts[piece]
        if len(stats) == 0:
            return merges
        top = max(stats.values())
        tied = [pair for pair in stats if stats[pair] == top]
        a, b = sorted(tied, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))[-1]
        vocab[new] = vocab[a] + vocab[b]
        merges.append((vocab[a], vocab[b]))
        for piece, ids in words.items():
            i = 0
            while i < len(ids) - 1:
                if ids[i] == a and ids[i + 1] == b:
                    ids[i : i + 2] = [new]
                i += 1
    return merges
""",
    "recursive": """
def train_bpe(piece_counts, n_merges):
    words = [(tuple(bytes([b]) for b in piece), n) for piece, n in piece_counts.items()]
    return list(learn(words, n_merges))


def learn(words, left):
    counts = {}
    for tokens, n in words:
        for pair in zip(tokens, tokens[1:]):
            counts[pair] = counts.get(pair, 0) + n
    if left == 0 or not counts:
        return ()
    _, best = max((n, pair) for pair, n in counts.items())
    return (best, *learn([(join(tokens, best), n) for tokens, n in words], left - 1))


def join(tokens, pair):
    if len(tokens) < 2:
        return tokens
    if tokens[:2] == pair:
        return (pair[0] + pair[1], *join(tokens[2:], pair))
    return (tokens[0], *join(tokens[1:], pair))
""",
    "numpy": """
import numpy as np


def train_bpe(piece_counts, n_merges):
    tokens = [bytes([i]) for i in range(256)]
    words = [np.frombuffer(piece, np.uint8).astype(np.int64) for piece in piece_counts]
    weights = np.array(list(piece_counts.values()), np.int64)
    merges = []
    for _ in range(n_merges):
        left = np.concatenate([w[:-1] for w in words] or [np.zeros(0, np.int64)])
        right = np.concatenate([w[1:] for w in words] or [np.zeros(0, np.int64)])
        if len(left) == 0:
            break
        owner = np.repeat(weights, [max(len(w) - 1, 0) for w in words])
        codes, where = np.unique(left << 32 | right, return_inverse=True)
        counts = np.bincount(where, weights=owner).astype(np.int64)
        best = codes[counts == counts.max()]
        a, b = max(((int(c) >> 32, int(c) & (1 << 32) - 1) for c in best),
                   key=lambda p: (tokens[p[0]], tokens[p[1]]))
        merges.append((tokens[a], tokens[b]))
        tokens.append(tokens[a] + tokens[b])
        words = [replace(w, a, b, len(tokens) - 1) for w in words]
    return merges


def replace(word, a, b, new):
    out, i = [], 0
    while i < len(word):
        hit = i + 1 < len(word) and word[i] == a and word[i + 1] == b
        out.append(new if hit else word[i])
        i += 2 if hit else 1
    return np.array(out, np.int64)
""",
}

PART = Part("train_bpe", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
