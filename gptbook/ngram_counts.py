# Exported from chapters/02_language_models.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Count the n-grams of every length up to an order in a sequence of documents, and look them up.

An n-gram is n tokens in a row; its *context* is all but the last. Every document begins with the
symbol START, which stands in contexts and is never predicted, so a context never reaches into the
document before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptbook.arguments import checked_integer

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def checked_ids(ids: ArrayLike, vocab_size: int, name: str = "ids") -> Ids:
    """Return ids as an array, shape (T,), or raise if one is no integer from 0 to vocab_size - 1.

    Raises:
        TypeError: the values are not integers.
        ValueError: the array is not one-dimensional, or an id is out of range.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.min() < 0 or array.max() >= vocab_size:
        wrong = array[(array < 0) | (array >= vocab_size)][0]
        raise ValueError(
            f"{name} holds {wrong}, but ids go from 0 to vocab_size - 1 = {vocab_size - 1}"
        )
    return array.astype(np.int64)


class Level(NamedTuple):
    """The n-grams of one length n that occur, sorted; the i-th has the number i on its level.

    Level 1 holds every token, seen or not, and START: there a number is the symbol itself.
    """

    keys: NDArray[np.int64]  # (G,) growing: context, by its number, * vocab_size + token
    counts: NDArray[np.int64]  # (G,) how often each occurs
    suffixes: NDArray[np.int64]  # (G,) its number without its first symbol, on the level below
    starts: NDArray[np.bool_]  # (G,) whether its first symbol is START

    def find(self, contexts: Ids, tokens: Ids, vocab_size: int) -> Ids:
        """Return the number of each n-gram, shape (T,), or -1 for one that is not here.

        A context may be -1. Keys are looked up in sorted order: neighbors then share the
        processor's cache.
        """
        wanted = np.where(contexts < 0, -1, contexts * vocab_size + tokens)
        order = np.argsort(wanted)
        places = np.empty_like(wanted)
        places[order] = np.searchsorted(self.keys, wanted[order])
        places[places == len(self.keys)] = -1
        if len(self.keys):
            places[self.keys[places] != wanted] = -1
        return places

    def followers(self, context: int, vocab_size: int) -> tuple[Ids, slice]:
        """Return the tokens seen after a context, and the slice of the numbers of their n-grams."""
        first, last = np.searchsorted(self.keys, [context * vocab_size, (context + 1) * vocab_size])
        return self.keys[first:last] - context * vocab_size, slice(int(first), int(last))


class NGramCounts:
    """How often each n-gram of each length up to `order` occurs in a sequence of documents."""

    def __init__(
        self, ids: ArrayLike, order: int, vocab_size: int, end_of_text: int | None = None
    ) -> None:
        """Count ids, shape (T,). A document ends after each id `end_of_text` and with the array.

        Takes O(order * T log T) time: one sort of T integers for each length above 1.

        Raises:
            TypeError, ValueError: order or vocab_size is below 1, end_of_text is no id, or ids are
                not ids or are empty.
        """
        self.order = checked_integer(order, "order", 1)
        self.vocab_size = checked_integer(vocab_size, "vocab_size", 1)
        self.start = self.vocab_size
        if end_of_text is not None:
            checked_ids([end_of_text], self.vocab_size, "end_of_text")
        self.end_of_text = end_of_text
        symbols = self._with_starts(checked_ids(ids, self.vocab_size))
        if len(symbols) == 0:
            raise ValueError("ids are empty: there is nothing to count")
        self.levels = [self._tokens(symbols)]
        found = symbols
        for _ in range(1, self.order):
            level, found = self._longer(symbols, found)
            self.levels.append(level)

    def _with_starts(self, ids: Ids) -> Ids:
        """Return ids with START before each document."""
        if self.end_of_text is None:
            firsts = np.zeros(min(len(ids), 1), np.int64)
        else:
            ends = np.flatnonzero(ids[:-1] == self.end_of_text) + 1
            firsts = np.concatenate([np.zeros(min(len(ids), 1), np.int64), ends])
        return np.insert(ids, firsts, self.start)

    def _tokens(self, symbols: Ids) -> Level:
        """Return level 1."""
        counts = np.bincount(symbols, minlength=self.vocab_size + 1)
        counts[self.start] = 0
        keys = np.arange(self.vocab_size + 1)
        return Level(keys, counts, np.zeros_like(keys), keys == self.start)

    def _longer(self, symbols: Ids, below: Ids) -> tuple[Level, Ids]:
        """Count the n-grams that end at each symbol, given the number of the (n-1)-gram there.

        Returns the level, and the numbers of its n-grams at each symbol: -1 where there is none
        because the document began less than n symbols ago.
        """
        contexts = before(below)
        places = np.flatnonzero((contexts >= 0) & (symbols != self.start))
        keys = contexts[places] * self.vocab_size + symbols[places]
        order = np.argsort(keys)
        keys, places = keys[order], places[order]
        is_new = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
        firsts = np.flatnonzero(is_new)
        numbers_here = np.full(len(symbols), -1, np.int64)
        numbers_here[places] = np.cumsum(is_new) - 1
        keys = keys[firsts]
        starts = self.levels[-1].starts[keys // self.vocab_size]
        counts = np.diff(firsts, append=len(places))
        return Level(keys, counts, below[places[firsts]], starts), numbers_here

    def follow(self, ids: ArrayLike) -> Iterator[tuple[Ids, Ids]]:
        """Yield for each length n the numbers of the contexts and of the n-grams, shape (T,) each.

        Position t stands for the n-gram that ends with ids[t]. A number is -1 if that context or
        n-gram was not counted, or if the document began too late for one of length n.
        """
        symbols = self._with_starts(checked_ids(ids, self.vocab_size))
        is_token = symbols != self.start
        contexts = np.zeros_like(symbols)
        for level in self.levels:
            if level is self.levels[0]:
                found = symbols
            else:
                found = level.find(contexts, symbols, self.vocab_size)
                found[~is_token] = -1
            yield contexts[is_token], found[is_token]
            contexts = before(found)

    def number(self, ngram: Sequence[int]) -> int:
        """Return the number of an n-gram on level len(ngram), or -1 if it does not occur.

        Raises:
            TypeError, ValueError: a symbol is no id (the first may be START), or the length was not
                counted.
        """
        if not 1 <= len(ngram) <= self.order:
            raise ValueError(f"ngram has {len(ngram)} symbols, but 1 to {self.order} were counted")
        n_starts = int(ngram[0] == self.start)
        ids = checked_ids(ngram[n_starts:], self.vocab_size, "ngram").tolist()
        found = 0
        for level, symbol in zip(self.levels, [self.start] * n_starts + ids, strict=False):
            key = found * self.vocab_size + symbol
            found = int(np.searchsorted(level.keys, key))
            if found == len(level.keys) or level.keys[found] != key:
                return -1
        return found

    def count(self, ngram: Sequence[int]) -> int:
        """Return how often an n-gram occurs; START may be its first symbol, as `counts.start`."""
        found = self.number(ngram)
        return int(self.levels[len(ngram) - 1].counts[found]) if found >= 0 else 0

    def _level(self, n: int) -> Level:
        if not 1 <= n <= self.order:
            raise ValueError(f"n must be from 1 to order = {self.order}, got {n}")
        return self.levels[n - 1]

    def ngrams(self, n: int) -> Ids:
        """Return all n-grams on level n in the order of their numbers, shape (G, n)."""
        found = np.arange(len(self._level(n).keys))
        symbols = np.empty((len(found), n), np.int64)
        for column in range(n - 1, 0, -1):
            keys = self.levels[column].keys[found]
            found, symbols[:, column] = np.divmod(keys, self.vocab_size)
        symbols[:, 0] = found
        return symbols

    def continuation_counts(self, n: int) -> Ids:
        """Return after how many different symbols each n-gram occurs, shape (G,); n < order.

        Nothing can stand before START, so an n-gram that begins with it keeps its count. (KenLM
        and SRILM do so, too.)
        """
        if not 1 <= n < self.order:
            raise ValueError(f"n must be from 1 to order - 1 = {self.order - 1}, got {n}")
        level = self.levels[n - 1]
        distinct = np.bincount(self.levels[n].suffixes, minlength=len(level.keys))
        return np.where(level.starts, level.counts, distinct)

    @property
    def lengths(self) -> range:
        """The lengths of n-gram that were counted: 1, 2, ..., order."""
        return range(1, self.order + 1)

    def contexts(self, n: int) -> Ids:
        """Return the number of the context of each n-gram on level n, shape (G,)."""
        return self._level(n).keys // self.vocab_size

    def sum_by_context(self, n: int, values: NDArray[Any]) -> Floats:
        """Sum values, one for each n-gram on level n, over the n-grams of each context."""
        contexts = self.contexts(n)
        n_contexts = len(self.levels[n - 2].keys) if n > 1 else 2  # START is no token: see Level
        return np.bincount(contexts, values, n_contexts).astype(np.float64)

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that the counts take."""
        return sum(array.nbytes for level in self.levels for array in level)


def before(found: Ids) -> Ids:
    """Return for each position what was found one position earlier, and -1 for the first."""
    contexts = np.empty_like(found)
    contexts[:1] = -1
    contexts[1:] = found[:-1]
    return contexts
