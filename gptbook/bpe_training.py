# Exported from chapters/01_tokenizer.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Learn the merges of byte-pair encoding: exactly what counting anew at every step would learn.

A merge changes few places of a text, so almost all counts stay as they are. `PairIndex` knows where
every pair of neighboring tokens stands and how often, and brings both up to date; `PairQueue` says
which pair is next.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbook.pretokenize import (
    GPT2_PATTERN,
    SHORT_TEXT,
    PieceTable,
    compile_pattern,
    replace_surrogates,
    split_pieces,
    split_short,
    split_special,
)

Pair = tuple[int, int]
"""The ids of two tokens, the second right after the first in the same piece."""

# --- counting pieces ---


def count_pieces(
    sources: Iterable[str | Path],
    pattern: str = GPT2_PATTERN,
    special_tokens: Iterable[str] = (),
) -> dict[bytes, int]:
    """Return how often each piece occurs in texts (str) and UTF-8 files (Path).

    Special tokens cut the text where they stand, the longest first, and are not counted.

    Raises:
        TypeError: sources is a single str or Path, or holds anything else.
        ValueError: pattern is not a regular expression, or a file is not UTF-8.
        OSError: a file cannot be read; FileNotFoundError if it does not exist.
    """
    if isinstance(sources, str | Path):
        raise TypeError(f"sources must be a list of texts and paths, got one: {sources!r:.60}")
    compile_pattern(pattern)  # raises before any file is read
    specials = frozenset(special_tokens)
    table, totals, short_texts = PieceTable(), np.zeros(1024, np.int64), Counter[bytes]()
    for source in sources:
        for text in split_special(read_source(source), specials):
            if text in specials:
                continue
            if len(text) <= SHORT_TEXT:
                short_texts.update(map(str.encode, split_short(text, pattern)))
                continue
            for pieces in split_pieces(text, pattern):
                numbers = table.intern(pieces)
                if len(table) > len(totals):  # room that doubles, so that few texts copy it
                    totals = np.append(totals, np.zeros(2 * len(table) - len(totals), np.int64))
                np.add.at(totals, numbers, 1)
    piece_counts = dict(zip(table.pieces(), totals[: len(table)].tolist(), strict=True))
    for piece, count in short_texts.items():
        piece_counts[piece] = piece_counts.get(piece, 0) + count
    return piece_counts


def read_source(source: str | Path) -> str:
    """Return the text of a source, with its line ends as they are, fit for UTF-8."""
    if isinstance(source, str):
        return replace_surrogates(source)
    if not isinstance(source, Path):
        raise TypeError(
            f"sources must hold texts (str) and files (pathlib.Path), got {type(source).__name__}"
        )
    try:
        return source.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not a UTF-8 text: {error}") from error


BLANK = -1
"""Stands between two pieces, and for bytes inside a token."""

MANY = 100
"""Places of a pair from which on arrays are faster than a loop: their calls have a fixed cost."""


class PairIndex:
    """All pieces as tokens, and where in them each pair of neighboring tokens stands.

    The pieces lie one after the other in one array with an element for each byte. A token's id is
    written at its first byte and at its last one, and nowhere between. So a pair is found by its
    border, the position where its right token begins: the left token's id is one position before,
    and the tokens on both sides of the pair are one step from its ends.

    A merge may take a token away from other pairs. Their borders stay listed; one whose two ids are
    no longer those of its pair is skipped.
    """

    counts: dict[Pair, int]  # a merged pair stays, with a count that means nothing

    def __init__(self, piece_counts: Mapping[bytes, int]) -> None:
        pieces = [b"", *piece_counts, b""]
        text = np.frombuffer(b"\0".join(pieces), np.uint8)  # a byte of room around each piece
        lengths = np.array([len(piece) + 1 for piece in pieces[:-1]], np.int64)
        # Single elements are faster in an array.array, many at once in numpy's view of its memory.
        self._ids = array("i", text.astype(np.intc).tobytes())
        self._ids_view = np.frombuffer(self._ids, np.intc)
        self._ids_view[np.cumsum(lengths) - 1] = BLANK
        weights = np.repeat(np.array([0, *piece_counts.values()], np.int64), lengths)
        self._weights = array("q", weights.tobytes())
        self._weights_view = np.frombuffer(self._weights, np.int64)
        self.counts = {}
        self._borders: dict[Pair, list[int]] = {}
        self._find_all_pairs()

    def _find_all_pairs(self) -> None:
        """Fill the index while every token is a single byte."""
        left, right = self._ids_view[:-1], self._ids_view[1:]
        borders = np.flatnonzero((left != BLANK) & (right != BLANK)) + 1
        codes = (left[borders - 1] << 8 | right[borders - 1]).astype(np.uint16)
        for code, count, places in group(codes, self._weights_view[borders], borders):
            pair = divmod(code, 256)
            self.counts[pair] = count
            self._borders[pair] = places

    def merge(self, pair: Pair, left_size: int, right_size: int, new: int) -> Iterable[Pair]:
        """Replace pair, from the left, by the token new; return the pairs that new is part of.

        left_size and right_size are the numbers of bytes of the pair's two tokens.
        """
        borders = self._borders.pop(pair)
        merge = self._merge_many if len(borders) >= MANY else self._merge_few
        new_borders = merge(borders, pair, left_size, right_size, new)
        self._borders.update(new_borders)
        return new_borders

    def _merge_few(
        self, borders: list[int], pair: Pair, left_size: int, right_size: int, new: int
    ) -> dict[Pair, list[int]]:
        """Merge pair at one border after the other; return the borders of the new pairs."""
        ids, weights, counts = self._ids, self._weights, self.counts
        left, right = pair
        new_borders: dict[Pair, list[int]] = {}
        for border in borders:
            if ids[border - 1] != left or ids[border] != right:
                continue
            start, end = border - left_size, border + right_size
            ids[border - 1] = ids[border] = BLANK
            ids[start] = ids[end - 1] = new
            weight = weights[border]
            before, after = ids[start - 1], ids[end]
            if before != BLANK:
                counts[before, left] -= weight
                gained = (before, new)
                if gained in new_borders:
                    counts[gained] += weight
                    new_borders[gained].append(start)
                else:
                    counts[gained], new_borders[gained] = weight, [start]
            if after != BLANK:
                counts[right, after] -= weight
                gained = (new, after)
                if gained in new_borders:
                    counts[gained] += weight
                    new_borders[gained].append(end)
                else:
                    counts[gained], new_borders[gained] = weight, [end]
        return new_borders

    def _merge_many(
        self, borders: list[int], pair: Pair, left_size: int, right_size: int, new: int
    ) -> dict[Pair, list[int]]:
        """Do what _merge_few does, at all borders at once."""
        ids, counts = self._ids_view, self.counts
        left, right = pair
        border = np.array(borders)
        border = border[(ids[border - 1] == left) & (ids[border] == right)]
        if left == right:
            border = border[every_other_in_runs(border, left_size)]
        start, end = border - left_size, border + right_size
        ids[border - 1] = ids[border] = BLANK
        ids[start] = ids[end - 1] = new
        weights = self._weights_view[border]
        new_borders: dict[Pair, list[int]] = {}
        for before, weight, places in group(ids[start - 1], weights, start):
            if before != BLANK:
                # Where two merged pairs touch, the token before was the right one of such a pair.
                counts[right if before == new else before, left] -= weight
                counts[before, new] = weight
                new_borders[before, new] = places
        for after, weight, places in group(ids[end], weights, end):
            if after not in (BLANK, new):  # where two touch is counted already
                counts[right, after] -= weight
                counts[new, after] = weight
                new_borders[new, after] = places
        return new_borders


def group(
    keys: NDArray[np.integer], weights: NDArray[np.int64], places: NDArray[np.int64]
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield each distinct key with the sum of its weights and the list of its places.

    All three arrays have shape (n,). Equal keys keep their places in order.
    """
    order = np.argsort(keys, kind="stable")
    keys, weights, all_places = keys[order], weights[order], places[order].tolist()
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    totals = np.add.reduceat(weights, starts).tolist()
    bounds = [*starts.tolist(), len(keys)]
    for i, key in enumerate(keys[starts].tolist()):
        yield key, totals[i], all_places[bounds[i] : bounds[i + 1]]


def every_other_in_runs(borders: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return which borders merge where a token of that size repeats: of "aaaa" the outer two.

    borders, shape (n,), ascends; those of a run are size apart. The first of a run merges.
    """
    numbers = np.arange(len(borders))
    begins_run = np.diff(borders, prepend=BLANK - size) != size
    run_starts = np.maximum.accumulate(np.where(begins_run, numbers, 0))
    return np.equal((numbers - run_starts) % 2, 0)


# --- merging ---


def learn_merges(piece_counts: Mapping[bytes, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Return the merges, first to last, that n_merges steps of byte-pair encoding learn.

    Each step merges the pair of tokens that are neighbors most often; of equally frequent pairs,
    the one whose (left bytes, right bytes) are greatest. Each place where the two are neighbors
    counts, so "aaa" has ("a", "a") twice. There are fewer merges if no pair is left.

    No two merges make the same bytes: wherever these bytes stand and no token crosses their ends,
    the same merges happen inside, so that all become one token in the same step.
    """
    index = PairIndex(piece_counts)
    queue = PairQueue(index.counts)
    tokens = [bytes([byte]) for byte in range(256)]
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n_merges and (pair := queue.pop()) is not None:
        left, right = tokens[pair[0]], tokens[pair[1]]
        new_pairs = index.merge(pair, len(left), len(right), new=len(tokens))
        tokens.append(left + right)
        merges.append((left, right))
        queue.add_token(pair)
        queue.add(new_pairs)
    return merges


class PairQueue:
    """Hands out pairs: the most frequent first, and of equals that with the greatest bytes.

    The pairs wait in buckets, one for each count. Counts only fall, and a new pair counts at most
    as much as the pair whose merge made it; so the largest count, too, only falls. A pair may
    wait in the bucket of a count that it no longer has: it is moved when that bucket is opened.

    counts is not copied: `PairIndex.merge` changes it while the pairs wait.
    """

    def __init__(self, counts: dict[Pair, int]) -> None:
        self._counts = counts
        # A token's text is its bytes as characters, each one up to make room for the end mark
        # "\0": a pair of texts, joined, then sorts exactly as a pair of bytes, and faster.
        self._texts = [chr(byte + 1) + "\0" for byte in range(256)]
        self._buckets: dict[int, list[Pair]] = {}
        self._waiting: list[int] = []  # a heap of the buckets' counts, negated
        self._count = 0  # of the bucket that is open
        self._open: list[Pair] = []  # ascending by bytes
        self.add(counts)

    def add_token(self, pair: Pair) -> None:
        """Give the next id to the token that pair has been merged into."""
        left, right = pair
        self._texts.append(self._texts[left][:-1] + self._texts[right])

    def _key(self, pair: Pair) -> str:
        return self._texts[pair[0]] + self._texts[pair[1]]

    def add(self, pairs: Iterable[Pair]) -> None:
        """Let pairs that do not wait yet wait in the buckets of their counts; drop the empty."""
        counts, buckets = self._counts, self._buckets
        for pair in pairs:
            count = counts[pair]
            if count == 0:
                continue
            if count in buckets:
                buckets[count].append(pair)
            elif count == self._count:
                insort(self._open, pair, key=self._key)
            else:
                buckets[count] = [pair]
                heappush(self._waiting, -count)

    def pop(self) -> Pair | None:
        """Remove the next pair and return it; None if no pair is left."""
        while True:
            while self._open:
                pair = self._open.pop()
                if self._counts[pair] == self._count:
                    return pair
                self.add([pair])
            if not self._waiting:
                return None
            self._open_next_bucket()

    def _open_next_bucket(self) -> None:
        counts, self._count = self._counts, -heappop(self._waiting)
        pairs = self._buckets.pop(self._count)
        self._open = [pair for pair in pairs if counts[pair] == self._count]
        self._open.sort(key=self._key)
        self.add([pair for pair in pairs if counts[pair] != self._count])
