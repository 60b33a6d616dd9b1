# Exported from chapters/01_tokenizer.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Byte-pair encoding: from pieces of text to the ids of tokens, thousands of pieces at once."""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gptbook.pretokenize import (
    GPT2_PATTERN,
    SHORT_TEXT,
    KeyTable,
    PieceTable,
    compile_pattern,
    replace_surrogates,
    split_pieces,
    split_short,
)

Ids = NDArray[np.int64]
NO_TOKEN = -1
"""Stands where a token has been merged into the one before it, or where a piece has ended."""

NO_RANK = 2**31 - 1
"""The rank of a pair that does not merge: it comes after all others."""


class PairTable:
    """The ranks of pairs of tokens: many at a time by `find`, one at a time by `ranks`."""

    def __init__(self, pairs: Ids, ranks: Ids, made: Ids) -> None:
        """Take distinct pairs of ids, shape (2, n), their ranks, and by rank the id they become."""
        self._numbers = KeyTable(len(ranks))
        self._numbers.add(pairs.view(np.uint64))
        self._ranks = np.append(ranks, NO_RANK)  # the last is what a pair without number, -1, gets
        self.made = made

    def find(self, left: Ids, right: Ids) -> Ids:
        """Return the rank of each pair, or NO_RANK."""
        numbers = self._numbers.find(np.stack([left, right]).view(np.uint64))
        return self._ranks[numbers]

    @functools.cached_property
    def ranks(self) -> dict[int, int]:
        """The ranks as a dict, for single pieces; the key of a pair is left << 32 | right."""
        left, right = self._numbers.keys
        keys = (left << np.uint64(32) | right).tolist()
        return dict(zip(keys, self._ranks.tolist(), strict=False))


def merge_plainly(ids: Iterable[int], pairs: PairTable) -> list[int]:
    """Apply all merges to the ids of a piece's bytes as they are defined, in time O(n^2).

    Of all neighbors that merge, those of the lowest rank do so first, and of equal ones the
    leftmost. The two other ways must equal this one, which is the fastest for one short piece.
    """
    rank_of = pairs.ranks.get
    tokens = list(ids)
    ranks = [rank_of(left << 32 | right, NO_RANK) for left, right in itertools.pairwise(tokens)]
    while (rank := min(ranks, default=NO_RANK)) < NO_RANK:
        i = ranks.index(rank)
        tokens[i : i + 2] = [pairs.made.item(rank)]
        first = max(i - 1, 0)  # the pairs before, at, and after the merge become two
        ranks[first : i + 2] = [
            rank_of(left << 32 | right, NO_RANK)
            for left, right in itertools.pairwise(tokens[first : i + 2])
        ]
    return tokens


def merge_by_heap(ids: Iterable[int], pairs: PairTable, limit: int = NO_RANK) -> list[int]:
    """Apply all merges of rank < limit to the ids of a piece's bytes, in time O(n log n).

    The tokens are a linked list, so that a merge moves nothing, and the pairs that may merge wait
    in a heap. One that has meanwhile lost a token to another merge is dropped when it comes up.
    """
    tokens = [*ids, NO_TOKEN]
    before, after = list(range(-1, len(tokens) - 1)), list(range(1, len(tokens) + 1))
    ranks = pairs.ranks

    def candidate(place: int) -> tuple[int, int]:
        return ranks.get(tokens[place] << 32 | tokens[after[place]], NO_RANK), place

    heap = [found for found in map(candidate, range(len(tokens) - 1)) if found[0] < limit]
    heapq.heapify(heap)
    while heap:
        rank, place = heapq.heappop(heap)
        if tokens[place] == NO_TOKEN or candidate(place)[0] != rank:
            continue
        gone = after[place]
        tokens[place], tokens[gone] = pairs.made.item(rank), NO_TOKEN
        after[place] = after[gone]
        before[after[place]] = place
        for neighbor in (before[place], place):
            if neighbor >= 0 and (found := candidate(neighbor))[0] < limit:
                heapq.heappush(heap, found)
    return [token for token in tokens if token != NO_TOKEN]


def token_columns(pieces: Sequence[bytes], byte_ids: Sequence[int]) -> Ids:
    """Return the ids of the bytes of each piece, one piece a column, filled up with NO_TOKEN.

    The last row is NO_TOKEN all over: the shape is (length of the longest + 1, n_pieces).
    """
    lengths = np.array([len(piece) for piece in pieces])
    height = int(lengths.max()) + 1
    data = b"".join([piece.ljust(height) for piece in pieces])
    tokens: Ids = np.array(byte_ids).take(np.frombuffer(data, np.uint8).reshape(-1, height).T)
    tokens[np.arange(height)[:, None] >= lengths] = NO_TOKEN
    return tokens


def merge_columns(columns: Ids, pairs: PairTable, limits: Ids) -> None:
    """Apply all merges of rank < limits[j] to each column j, in place.

    In every round each column merges one pair, the one of the lowest score: rank * 2**32 + place,
    so that of equal ranks the leftmost wins. A place is an index into the flat array. As in
    merge_by_heap tokens are linked, and only the two pairs beside a merge are looked up again.
    Pieces are columns, not rows, so that the search for the minimum runs along memory.
    """
    tokens, places = columns.reshape(-1), np.arange(columns.size)
    before, after = np.roll(places, columns.shape[1]), np.roll(places, -columns.shape[1])
    scores = np.full(columns.shape, NO_RANK << 32)

    def update(where: Ids) -> None:
        ranks = pairs.find(tokens[where], tokens[after[where]])
        scores.reshape(-1)[where] = (ranks << 32) + where

    update(np.flatnonzero(tokens != NO_TOKEN))
    while True:
        best = scores.min(axis=0)
        best = best[best < limits << 32]
        if len(best) == 0:
            return
        rank, place = best >> 32, best & 0xFFFFFFFF
        gone = after[place]
        tokens[place], tokens[gone] = pairs.made[rank], NO_TOKEN
        after[place] = after[gone]
        before[after[place]] = place
        scores.reshape(-1)[gone] = NO_RANK << 32
        update(np.concatenate([before[place], place]))


FEW_PIECES = 256
"""New pieces below which merging one by one is faster than merging in columns."""

LONG_PIECE = 128
"""Bytes up to which pieces are merged in columns; longer ones are merged one by one."""

BATCH = 2048
"""Pieces merged at a time, so that their tokens, links and scores stay in the cache."""


def merge_pieces(
    pieces: Sequence[bytes], byte_ids: Sequence[int], pairs: PairTable, limits: Ids | None = None
) -> tuple[Ids, Ids, Ids]:
    """Apply all merges (to pieces[j] only those of rank < limits[j]).

    Returns the ids of all pieces, and for each piece where in them its own begin, and how many.
    """
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    limits = np.full_like(lengths, NO_RANK) if limits is None else limits
    order = np.argsort(lengths, kind="stable")  # so that pieces merged together are equally long
    n_short = np.count_nonzero(lengths <= LONG_PIECE)
    counts, ids = np.empty_like(lengths), [np.zeros(0, np.int64)]
    for first in range(0, n_short, BATCH):
        batch = order[first : min(first + BATCH, n_short)]
        columns = token_columns([pieces[i] for i in batch.tolist()], byte_ids)
        merge_columns(columns, pairs, limits[batch])
        kept = columns.T != NO_TOKEN
        counts[batch] = kept.sum(axis=1)
        ids.append(columns.T[kept])
    for i in order[n_short:].tolist():
        merged = merge_by_heap([byte_ids[byte] for byte in pieces[i]], pairs, int(limits[i]))
        counts[i] = len(merged)
        ids.append(np.array(merged))
    starts = np.empty_like(counts)
    starts[order] = np.cumsum(counts[order]) - counts[order]
    return np.concatenate(ids), starts, counts


def merges_from_ranks(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return, in order, the merges that make the tokens of a tiktoken vocabulary.

    tiktoken keeps a rank for each token, and merges any two neighbors that together are a token of
    the lowest rank. So a token's own merge is of the two parts that its bytes become under the
    lower ranks. Raises ValueError for a token that does not become two parts.
    """
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"ranks lacks the byte {bytes(missing[:1])!r}")
    byte_ids = [ranks[bytes([byte])] for byte in range(256)]
    tokens = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    splits = [
        (ranks[token[:cut]], ranks[token[cut:]], ranks[token])
        for token in tokens
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    left, right, made = np.array(splits, np.int64).reshape(-1, 3).T
    pairs = PairTable(np.stack([left, right]), made, made=np.arange(max(ranks.values()) + 1))
    own_ranks = np.array([ranks[token] for token in tokens], np.int64)
    ids, starts, counts = merge_pieces(tokens, byte_ids, pairs, own_ranks)
    if (counts != 2).any():
        token = tokens[int(np.argmax(counts != 2))]
        raise ValueError(f"token {token!r} is not made of two others by merges of lower rank")
    token_of = {rank: token for token, rank in ranks.items()}
    parts = zip(ids[starts].tolist(), ids[starts + 1].tolist(), strict=True)
    return [(token_of[left_id], token_of[right_id]) for left_id, right_id in parts]


# The encoder

BLOCK = 1 << 21
"""Bytes of text whose new pieces are merged together."""

MAX_PIECES, MAX_LONG_BYTES = 1 << 18, 1 << 24
"""A cache of more pieces, or of more bytes in long ones, is dropped at the end of a block."""

MAX_SHORT_PIECES = 1 << 16
"""The most pieces of short texts that are remembered, in a dict."""


class PieceCache(dict[str, list[int]]):
    """The ids of each piece that was asked for, found the first time."""

    def __init__(self, find_ids: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._find_ids = find_ids

    def __missing__(self, piece: str) -> list[int]:
        if len(piece) > LONG_PIECE:  # a few such could fill the memory
            return self._find_ids(piece)
        if len(self) >= MAX_SHORT_PIECES:
            self.clear()
        self[piece] = ids = self._find_ids(piece)
        return ids


class GrowingArray:
    """An array that takes more values at its end; its room doubles, so that few calls copy it."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._room: NDArray[Any] = np.zeros(1024, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def extend(self, values: NDArray[Any]) -> None:
        """Add values, shape (n,), at the end."""
        end = self._size + len(values)
        if end > len(self._room):
            room = np.zeros(2 * end, self._room.dtype)
            room[: self._size] = self._room[: self._size]
            self._room = room
        self._room[self._size : end] = values
        self._size = end

    def take(self, places: NDArray[np.integer]) -> NDArray[Any]:
        """Return the values at these places."""
        return self._room.take(places)


class Encoder:
    """Encodes text with given merges, and remembers the ids of the pieces that it has met.

    Several threads may use it at once.
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        pattern: str = GPT2_PATTERN,
    ) -> None:
        """Take the bytes of each id, and the pairs of tokens that merge, lowest rank first.

        Raises ValueError if vocab lacks a byte, or a token that a merge names or makes, if a merge
        comes twice, or if the pattern does not compile.
        """
        compile_pattern(pattern)  # raises here rather than at the first text
        self._pattern = pattern
        ids = {token: token_id for token_id, token in vocab.items()}
        merges = [(left, right) for left, right in merges]
        if len(set(merges)) < len(merges):
            raise ValueError("merges holds a pair twice")
        try:
            self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
            pairs = [[ids[left] for left, _ in merges], [ids[right] for _, right in merges]]
            made = [ids[left + right] for left, right in merges]
        except KeyError as error:
            raise ValueError(
                f"vocab lacks the token {error.args[0]!r}, a byte or what a merge names or makes"
            ) from None
        self._pairs = PairTable(
            np.array(pairs, np.int64), np.arange(len(made)), np.array(made, np.int64)
        )
        self._short = PieceCache(lambda piece: self._merge_one(piece.encode()))
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Empty the cache."""
        self._table = PieceTable()
        self._ids = GrowingArray(object)  # of all pieces: Python's ints, which lists share
        self._counts = GrowingArray(np.int64)  # by the number of a piece, how many ids it has,
        self._starts = GrowingArray(np.int64)  # and where they start

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of text, in which no token is special."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; the new pieces of many texts are merged together."""
        ids: list[list[int]] = [[] for _ in texts]
        block, block_bytes = [], 0
        with self._lock, self._forgetting_if_interrupted():
            for number, text in enumerate(map(replace_surrogates, texts)):
                if len(text) <= SHORT_TEXT:
                    pieces = split_short(text, self._pattern)
                    ids[number].extend(
                        itertools.chain.from_iterable(map(self._short.__getitem__, pieces))
                    )
                    continue
                for chunk in split_pieces(text, self._pattern):
                    block.append((ids[number], self._table.intern(chunk)))
                    block_bytes += len(chunk.buffer)
                    if block_bytes >= BLOCK:
                        self._encode_block(block)
                        block, block_bytes = [], 0
            if block:
                self._encode_block(block)
        return ids

    def _encode_block(self, block: list[tuple[list[int], NDArray[np.int32]]]) -> None:
        """Extend each list with the ids of the pieces that have these numbers."""
        self._merge_new()
        for ids, numbers in block:
            ids.extend(self._recall(numbers))
        if len(self._table) > MAX_PIECES or self._table.n_long_bytes > MAX_LONG_BYTES:
            self._forget()

    @contextmanager
    def _forgetting_if_interrupted(self) -> Iterator[None]:
        """Empty the cache if the body raises, which may leave it half changed."""
        try:
            yield
        except BaseException:
            self._forget()
            raise

    def _merge_one(self, piece: bytes) -> list[int]:
        ids = [self._byte_ids[byte] for byte in piece]
        merge = merge_plainly if len(ids) <= LONG_PIECE else merge_by_heap
        return merge(ids, self._pairs)

    def _merge_new(self) -> None:
        """Find the ids of the pieces that the table has and the cache has not."""
        pieces = self._table.pieces(len(self._starts))
        if len(pieces) < FEW_PIECES:
            merged = [self._merge_one(piece) for piece in pieces]
            counts = np.array([len(ids) for ids in merged], np.int64)
            starts = np.cumsum(counts) - counts
            ids = np.array(list(itertools.chain.from_iterable(merged)), object)
        else:
            ids, starts, counts = merge_pieces(pieces, self._byte_ids, self._pairs)
        self._counts.extend(counts)
        self._starts.extend(starts + len(self._ids))
        self._ids.extend(ids.astype(object))

    def _recall(self, numbers: NDArray[np.int32]) -> list[int]:
        """Return the ids of the pieces with these numbers, one piece's after the other's."""
        starts, counts = self._starts.take(numbers), self._counts.take(numbers)
        ends = np.cumsum(counts)
        places = np.repeat(starts - (ends - counts), counts)
        places += np.arange(len(places))
        ids: list[int] = self._ids.take(places).tolist()
        return ids
