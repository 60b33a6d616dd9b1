"""Exercise 1.2: encoding a piece by merge rank."""

import random
from collections.abc import Sequence
from itertools import pairwise

from gptbook.grading.ch01_tokenizer.training import READY_MADE, train_bpe
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

Pair = tuple[bytes, bytes]

ENCODING = "Encoding: the same merges in the same order"
BY_HAND = "Byte-pair encoding by hand"


def encode_piece(piece: bytes, merges: Sequence[Pair]) -> list[int]:
    """Merge the pair of least rank, everywhere from the left, until no pair has a rank."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ids = {bytes([byte]): byte for byte in range(256)}
    ids |= {left + right: 256 + rank for (left, right), rank in ranks.items()}
    tokens = [bytes([byte]) for byte in piece]
    while True:
        known = [pair for pair in pairwise(tokens) if pair in ranks]
        if not known:
            return [ids[token] for token in tokens]
        best = min(known, key=lambda pair: ranks[pair])
        merged, place = [], 0
        while place < len(tokens):
            if tuple(tokens[place : place + 2]) == best:
                merged.append(tokens[place] + tokens[place + 1])
                place += 2
            else:
                merged.append(tokens[place])
                place += 1
        tokens = merged


# --- inputs ---


def draw_merges(stream: random.Random, letters: bytes, n_merges: int) -> list[Pair]:
    """Merges as training learns them from pieces of a few letters."""
    pieces = {
        bytes(stream.choices(letters, k=stream.randint(3, 9))): stream.randint(1, 99)
        for _ in range(12)
    }
    return train_bpe(pieces, n_merges)


def draw_pieces(stream: random.Random, letters: bytes, low: int, high: int) -> list[Args]:
    """Random pieces of the letters, on merges learned from such pieces."""
    merges = draw_merges(stream, letters, 25)
    return [(bytes(stream.choices(letters, k=stream.randint(low, high))), merges) for _ in range(8)]


def draw_small(stream: random.Random) -> list[Args]:
    """A few small cases, one with bytes beyond ASCII."""
    merges = [(b"a", b"b"), (b"ab", b"c")]
    return [(b"abcab", merges), (bytes([stream.randrange(256)]), []), ("né".encode(), merges)]


def draw_any(stream: random.Random) -> list[Args]:
    """Pieces of three or four letters, on merges that were learned from such pieces."""
    cases = draw_pieces(stream, b"abc", 6, 14)
    letters = bytes([*stream.sample(range(128), 2), *stream.sample(range(128, 256), 2)])
    return cases + draw_pieces(stream, letters, 6, 14)


def draw_runs(stream: random.Random) -> list[Args]:
    """Runs of one byte, in which pairs overlap."""
    letter = bytes([stream.randrange(128)])
    merges = [(letter, letter), (letter * 2, letter), (letter * 2, letter * 2)]
    return [(letter * size, merges[:known]) for size in range(2, 12) for known in (1, 2, 3)]


def draw_rivals(stream: random.Random) -> list[Args]:
    """Pieces in which taking the longest token, or the first pair, gives other tokens."""
    cases: list[Args] = []
    for _ in range(6):
        a, b, c, d = (bytes([byte]) for byte in stream.sample(range(256), 4))
        merges = [(b, c), (a, b), (c, d), (bc := b + c, d), (a, bc)]
        cases += [(a + b + c + d, merges), (a + b + c + d, merges[1:3] + merges[:1])]
        cases += [(d + a + b + a + b + c, merges)]
    return cases


def draw_edges(stream: random.Random) -> list[Args]:
    """Nothing to encode, nothing to merge, and merges of which few are used."""
    x, y, z = (bytes([byte]) for byte in stream.sample(range(128), 3))
    unused = [(x, x), (z, x), (y, x), (x + x, z)]
    return [(b"", []), (b"", [(x, y)]), (x + y, []), (x, [(x, y)]), (x + y, [*unused, (x, y)])]


def legal(piece: bytes, merges: Sequence[Pair]) -> bool:
    """Whether each merge's two parts exist before it, and no two make the same bytes."""
    made = {bytes([byte]) for byte in range(256)}
    for pair in merges:
        if not all(token in made for token in pair) or b"".join(pair) in made:
            return False
        made.add(b"".join(pair))
    return True


# --- verdicts ---


def is_list_of_ints(_: Args, value: object) -> str | None:
    """The form of the answer."""
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        return f"gives {show(value)}, expected a list of int"
    return None


def gives_the_bytes_back(args: Args, value: list[int]) -> str | None:
    """The tokens' bytes, joined, are the piece."""
    piece, merges = args
    vocab = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    unknown = [token for token in value if not 0 <= token < len(vocab)]
    if unknown:
        return f"gives the id {unknown[0]}, and the largest is {len(vocab) - 1}"
    joined = b"".join(vocab[token] for token in value)
    return None if joined == piece else f"gives ids that stand for {show(joined)}"


FORM = "returns a list of int"
ROUND_TRIP = "the ids stand for the piece's bytes"
EDGES = "no bytes, no merges, merges that are not used"
RUNS = "runs of one byte"
RIVALS = "the pair of least rank is first"
ANY = "equals merging step by step"

CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_small, is_list_of_ints, pure=True),
    Check(ROUND_TRIP, Kind.PROPERTY, 1, draw_any, gives_the_bytes_back, (FORM,), legal=legal),
    oracle(EDGES, 1, draw_edges, encode_piece, needs=(FORM,), legal=legal),
    oracle(RUNS, 1, draw_runs, encode_piece, needs=(FORM,), legal=legal, hint=3),
    oracle(RIVALS, 2, draw_rivals, encode_piece, needs=(FORM,), legal=legal, hint=2),
    oracle(ANY, 2, draw_any, encode_piece, needs=(FORM,), legal=legal, hint=2),
)

REFERENCE = source_of(encode_piece)

MERGE_ALL = """        merged, place = [], 0
        while place < len(tokens):
            if tuple(tokens[place : place + 2]) == best:
                merged.append(tokens[place] + tokens[place + 1])
                place += 2
            else:
                merged.append(tokens[place])
                place += 1
        tokens = merged
"""

MISTAKES = (
    Mistake(
        "Takes the longest token that fits",
        "Going from the left and taking the longest token gives other ids than training's merges "
        "do, and the model never saw those. Merge in the order in which training did.",
        ENCODING,
        5,
        """
def encode_piece(piece, merges):
    ids = {bytes([byte]): byte for byte in range(256)}
    for rank, (left, right) in enumerate(merges):
        ids[left + right] = 256 + rank
    found, start = [], 0
    while start < len(piece):
        end = max(e for e in range(start + 1, len(piece) + 1) if piece[start:e] in ids)
        found.append(ids[piece[start:end]])
        start = end
    return found
""",
        hint=2,
    ),
    Mistake(
        "Merges the first pair that has a rank",
        "You merge the leftmost pair that is known, though another one was learned earlier. Look "
        "at all pairs and take the one of least rank.",
        ENCODING,
        5,
        edited(
            REFERENCE,
            ("best = min(known, key=lambda pair: ranks[pair])", "best = known[0]"),
            (
                "merged.append(tokens[place] + tokens[place + 1])\n                place += 2\n",
                "merged += [tokens[place] + tokens[place + 1], *tokens[place + 2 :]]\n"
                "                break\n",
            ),
        ),
        hint=2,
    ),
    Mistake(
        "Merges the pair of greatest rank",
        "The latest merge is taken before the earlier ones, which is training backwards. Take the "
        "pair of least rank.",
        ENCODING,
        5,
        edited(REFERENCE, ("best = min(", "best = max(")),
        hint=2,
    ),
    Mistake(
        "Goes over the piece once",
        "After one pass you stop, so tokens made in it are never merged further. Repeat until no "
        "pair has a rank.",
        ENCODING,
        5,
        """
def encode_piece(piece, merges):
    ids = {bytes([byte]): byte for byte in range(256)}
    for rank, (left, right) in enumerate(merges):
        ids[left + right] = 256 + rank
    pairs = set(merges)
    tokens, merged = [bytes([byte]) for byte in piece], []
    while tokens:
        if tuple(tokens[:2]) in pairs:
            merged.append(tokens.pop(0) + tokens.pop(0))
        else:
            merged.append(tokens.pop(0))
    return [ids[token] for token in merged]
""",
    ),
    Mistake(
        "Each merge is applied once",
        "You go through the merges in order but join only the first occurrence of each pair. Join "
        "all of them, from the left.",
        ENCODING,
        3,
        """
def encode_piece(piece, merges):
    ids = {bytes([byte]): byte for byte in range(256)}
    for rank, (left, right) in enumerate(merges):
        ids[left + right] = 256 + rank
    tokens = [bytes([byte]) for byte in piece]
    for left, right in merges:
        for i in range(len(tokens) - 1):
            if (tokens[i], tokens[i + 1]) == (left, right):
                tokens[i : i + 2] = [left + right]
                break
    return [ids[token] for token in tokens]
""",
    ),
    Mistake(
        "Stops at the first merge that does not apply",
        "A merge whose pair is not in this piece says nothing about the ones after it. Go on to "
        "the next merge.",
        ENCODING,
        6,
        """
def encode_piece(piece, merges):
    ids = {bytes([byte]): byte for byte in range(256)}
    for rank, (left, right) in enumerate(merges):
        ids[left + right] = 256 + rank
    tokens = [bytes([byte]) for byte in piece]
    for left, right in merges:
        if (left, right) not in zip(tokens, tokens[1:]):
            break
        i = 0
        while i < len(tokens) - 1:
            if (tokens[i], tokens[i + 1]) == (left, right):
                tokens[i : i + 2] = [left + right]
            i += 1
    return [ids[token] for token in tokens]
""",
    ),
    Mistake(
        "Runs are merged from the right",
        "In a run of three equal tokens you join the last two. Training joined from the left, so "
        "encoding must too.",
        BY_HAND,
        3,
        edited(
            REFERENCE,
            ("        merged, place = [], 0\n", "        merged, place = [], len(tokens)\n"),
            ("while place < len(tokens):", "while place > 0:"),
            (
                "if tuple(tokens[place : place + 2]) == best:",
                "if tuple(tokens[max(place - 2, 0) : place]) == best:",
            ),
            (
                "merged.append(tokens[place] + tokens[place + 1])\n                place += 2\n",
                "merged.insert(0, tokens[place - 2] + tokens[place - 1])\n"
                "                place -= 2\n",
            ),
            (
                "                merged.append(tokens[place])\n                place += 1\n",
                "                merged.insert(0, tokens[place - 1])\n                place -= 1\n",
            ),
        ),
    ),
    Mistake(
        "A merged token is used twice",
        "After joining two tokens you go on by one, so the second is joined or written again. Go "
        "on by two.",
        BY_HAND,
        7,
        edited(REFERENCE, ("                place += 2\n", "                place += 1\n")),
    ),
    Mistake(
        "Never merges",
        "The answer is the piece's bytes as they are, whatever was learned. Join pairs of "
        "neighbors that have a rank, until none is left.",
        ENCODING,
        6,
        "def encode_piece(piece, merges):\n    return list(piece)\n",
    ),
    Mistake(
        "The ids of merges begin at 255",
        "There are 256 bytes, and the last of them has the id 255, so two tokens share an id. Add "
        "256 to the merge's place in the list.",
        BY_HAND,
        7,
        edited(REFERENCE, ("256 + rank for", "255 + rank for")),
        hint=3,
    ),
    Mistake(
        "The ids of merges begin at 257",
        "The bytes take the ids 0 to 255, so the first merge makes the id 256. Add 256 to the "
        "merge's place in the list.",
        BY_HAND,
        7,
        edited(REFERENCE, ("256 + rank", "257 + rank")),
        hint=3,
    ),
    Mistake(
        "Characters in place of bytes",
        "The piece is decoded to text, and its code points are taken for ids: right for ASCII, "
        "wrong for everything else. Go through the bytes.",
        "Text is already numbers",
        5,
        edited(
            REFERENCE,
            (
                "tokens = [bytes([byte]) for byte in piece]",
                "tokens = [bytes([ord(c) % 256]) for c in piece.decode('utf-8', 'replace')]",
            ),
        ),
    ),
    Mistake(
        "Empty pieces fail",
        "A piece may be empty, and then there is no first token to start from. Return an empty "
        "list.",
        ENCODING,
        1,
        edited(
            REFERENCE,
            (
                "    while True:\n",
                "    tokens[0] = tokens[0]\n    while True:\n",
            ),
        ),
    ),
)

STYLES = {
    "merges in order": """
def encode_piece(piece, merges):
    ids = list(piece)
    number = {bytes([i]): i for i in range(256)}
    for new, (left, right) in enumerate(merges, start=256):
        a, b = number[left], number[right]
        number[left + right] = new
        i = 0
        while i < len(ids) - 1:
            if ids[i] == a and ids[i + 1] == b:
                ids[i : i + 2] = [new]
            i += 1
    return ids
""",
    "recursive": """
def encode_piece(piece, merges):
    rank = {left + right: i for i, (left, right) in enumerate(merges)}

    def token_id(token):
        return token[0] if len(token) == 1 else 256 + rank[token]

    def reduce(tokens):
        places = [i for i in range(len(tokens) - 1) if tokens[i] + tokens[i + 1] in rank
                  and merges[rank[tokens[i] + tokens[i + 1]]] == (tokens[i], tokens[i + 1])]
        if not places:
            return tokens
        i = min(places, key=lambda i: (rank[tokens[i] + tokens[i + 1]], i))
        return reduce(tokens[:i] + [tokens[i] + tokens[i + 1]] + tokens[i + 2 :])

    return [token_id(token) for token in reduce([bytes([b]) for b in piece])]
""",
    "heap": """
import heapq


def encode_piece(piece, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    token = {i: bytes([b]) for i, b in enumerate(piece)}
    after = {i: i + 1 for i in token}
    before = {i: i - 1 for i in token}
    heap = []

    def push(i):
        j = after.get(i)
        if i in token and j in token and (token[i], token[j]) in rank:
            heapq.heappush(heap, (rank[token[i], token[j]], i, token[i], token[j]))

    for i in list(token):
        push(i)
    while heap:
        _, i, left, right = heapq.heappop(heap)
        j = after.get(i)
        if token.get(i) != left or token.get(j) != right:
            continue
        token[i] = left + right
        del token[j]
        after[i] = after[j]
        before[after[j]] = i
        push(i)
        push(before[i])
    ids = {left + right: 256 + i for (left, right), i in rank.items()}
    return [t[0] if len(t) == 1 else ids[t] for _, t in sorted(token.items())]
""",
    "numpy": """
import numpy as np


def encode_piece(piece, merges):
    ids = np.frombuffer(piece, np.uint8).astype(np.int64)
    number = {bytes([i]): i for i in range(256)}
    for new, (left, right) in enumerate(merges, start=256):
        number[left + right] = new
        hits = np.flatnonzero((ids[:-1] == number[left]) & (ids[1:] == number[right]))
        keep, last = np.ones(len(ids), bool), -2
        for hit in hits:
            if hit > last + 1:
                ids[hit], keep[hit + 1], last = new, False, hit
        ids = ids[keep]
    return [int(i) for i in ids]
""",
}

PART = Part("encode_piece", CHECKS, REFERENCE, MISTAKES, STYLES, READY_MADE)
