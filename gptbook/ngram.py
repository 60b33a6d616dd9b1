# Exported from chapters/02_language_models.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""N-gram language models of any order over the ids of tokens: smoothing, scores, samples.

Every smoothing here becomes two tables for each length of n-gram, and one recursion reads them:
p(w | context) = direct + backoff * p(w | shorter context). Losses are in nats.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptbook.arguments import checked_integer
from gptbook.ngram_counts import Floats, Ids, Level, NGramCounts, checked_ids


class Tables(NamedTuple):
    """The probabilities of one level: p(w | context) = direct + backoff * p(w | shorter context).

    The last entry of each array is what an n-gram or context with the number -1 gets.
    """

    direct: NDArray[np.float64]  # (G + 1,) by n-gram; the last is 0
    backoff: NDArray[np.float64]  # (contexts + 1,) by context; the last is 1


def is_number(value: object) -> bool:
    """Return whether value is a real number; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


class Smoothing(Protocol):
    """A way to turn counts into probabilities that are positive and sum to 1."""

    def tables(self, counts: NGramCounts, held_out: Ids | None) -> list[Tables]:
        """Return the tables of each level, the shortest n-grams first."""
        ...


def divide(numerators: Floats, denominators: Floats, otherwise: float) -> Floats:
    """Return the quotients, and `otherwise` where the denominator is zero."""
    quotients = np.full_like(denominators, otherwise)
    return np.divide(numerators, denominators, out=quotients, where=denominators > 0)


def make_tables(
    counts: NGramCounts, n: int, values: NDArray[Any], totals: Floats, backoff: Floats
) -> Tables:
    """Return the tables of level n whose direct probability is values / totals of the context."""
    contexts = counts.contexts(n)
    direct = divide(values.astype(np.float64), totals[contexts], otherwise=0.0)
    return Tables(np.append(direct, 0.0), np.append(backoff, 1.0))


class NGramModel:
    """Predicts the next token from the order - 1 tokens before it, fewer at a document's start.

    >>> model = NGramModel(order=2, vocab_size=3, smoothing=AddK(1)).fit([0, 1, 0, 1, 0, 2])
    >>> np.exp(model.log_probs([0])).round(3).tolist()  # counts 0, 2, 1; each plus 1; divided by 6
    [0.167, 0.5, 0.333]
    """

    def __init__(
        self,
        order: int,
        vocab_size: int,
        smoothing: Smoothing | None = None,
        end_of_text: int | None = None,
    ) -> None:
        """Take n as `order`, and a smoothing: modified KneserNey() if None.

        end_of_text is the id after which a new document begins. Without it an array of ids is one
        document.
        """
        self.order = checked_integer(order, "order", 1)
        self.vocab_size = checked_integer(vocab_size, "vocab_size", 1)
        self.smoothing = KneserNey() if smoothing is None else smoothing
        if end_of_text is not None:
            checked_ids([end_of_text], self.vocab_size, "end_of_text")
        self.end_of_text = end_of_text
        self._counts: NGramCounts | None = None
        self._tables: list[Tables] = []

    def fit(self, ids: ArrayLike, held_out: ArrayLike | None = None) -> Self:
        """Count ids, shape (T,), and return the model; replaces what it was fitted to before.

        held_out, shape (T2,), is other text, for a smoothing that learns from it. Raises TypeError
        or ValueError if ids are not ids, or if held_out is needed and missing.
        """
        other = None if held_out is None else checked_ids(held_out, self.vocab_size, "held_out")
        counts = NGramCounts(ids, self.order, self.vocab_size, self.end_of_text)
        self._tables = self.smoothing.tables(counts, other)
        self._counts = counts
        return self

    @property
    def counts(self) -> NGramCounts:
        """What fit counted; raises ValueError before."""
        if self._counts is None:
            raise ValueError("the model has counted nothing yet: call fit(ids) first")
        return self._counts

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that counts and probabilities take."""
        return self.counts.n_bytes + sum(a.nbytes for tables in self._tables for a in tables)

    def score(self, ids: ArrayLike) -> Floats:
        """Return the loss of each token given those before it, -log p, in nats: shape (T,).

        A loss is inf where the model gives the token probability 0.
        """
        followed = self.counts.follow(ids)
        probability: Floats | float = 1 / self.vocab_size
        for (contexts, found), tables in zip(followed, self._tables, strict=True):
            probability = tables.direct[found] + tables.backoff[contexts] * probability
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(probability))

    def log_probs(self, context: ArrayLike = ()) -> Floats:
        """Return log p(token | context) for every token, in nats: shape (vocab_size,).

        context, shape (any,), is the document so far; only its end matters, and what follows the
        last end_of_text. So log_probs(ids[:t])[ids[t]] is -score(ids)[t].
        """
        probability = np.full(self.vocab_size, 1 / self.vocab_size)
        for context_number, level, tables in self._suffixes(context):
            tokens, numbers_of = level.followers(context_number, self.vocab_size)
            probability *= tables.backoff[context_number]
            probability[tokens] += tables.direct[numbers_of]
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(probability))

    def _suffixes(self, context: ArrayLike) -> Iterator[tuple[int, Level, Tables]]:
        """Yield each suffix of the context that was counted, the empty one first."""
        ids = checked_ids(context, self.vocab_size, "context")
        if self.end_of_text is not None and self.end_of_text in ids:
            ids = ids[len(ids) - np.argmax(ids[::-1] == self.end_of_text) :]
        symbols = [self.counts.start, *ids.tolist()]
        yield 0, self.counts.levels[0], self._tables[0]
        for n in range(2, min(self.order, len(symbols) + 1) + 1):
            found = self.counts.number(symbols[len(symbols) - n + 1 :])
            if found >= 0:
                yield found, self.counts.levels[n - 1], self._tables[n - 1]

    def sample(self, n_tokens: int, seed: int, context: Sequence[int] = ()) -> list[int]:
        """Draw up to n_tokens ids that continue the context; the last may be end_of_text."""
        random = np.random.default_rng(seed)
        ids = list(context)
        for _ in range(checked_integer(n_tokens, "n_tokens", 0)):
            cumulative = np.cumsum(np.exp(self.log_probs(ids[-self.order :])))
            drawn = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")
            ids.append(int(drawn))
            if ids[-1] == self.end_of_text:
                break
        return ids[len(context) :]


@dataclass(frozen=True)
class AddK:
    """Add k to every count: p(w | h) = (count(h w) + k) / (count(h) + k V).

    Only the longest contexts count. With k = 0 this is the maximum likelihood estimate, which gives
    probability 0 to what it has not seen; after a context never seen it is uniform, which is the
    limit for small k. (Laplace's rule has k = 1.)
    """

    k: float = 1.0

    def __post_init__(self) -> None:
        if not (is_number(self.k) and self.k >= 0 and math.isfinite(self.k)):
            raise ValueError(f"k must be a number from 0 on, got {self.k!r}")

    def tables(self, counts: NGramCounts, held_out: Ids | None = None) -> list[Tables]:
        """Return the tables: adding k is a mixture with the uniform distribution."""
        made = []
        for n, level in enumerate(counts.levels, start=1):
            uses = level.counts if n == counts.order else np.where(level.starts, level.counts, 0)
            totals = counts.sum_by_context(n, uses)
            added = np.where(totals > 0, float(self.k) * counts.vocab_size, 0.0)
            backoff = divide(added, totals + added, otherwise=1.0)
            made.append(make_tables(counts, n, uses, totals + added, backoff))
        return made


MAX_ROUNDS, TOLERANCE = 200, 1e-4
"""EM ends after so many rounds, or when no weight moved by more."""


@dataclass(frozen=True)
class Interpolated:
    """Mix the relative frequencies of all lengths (Jelinek and Mercer 1980).

    p(w | h) = weight * count(h w) / count(h) + (1 - weight) * p(w | shorter h), down to 1 / V. The
    weight depends on n and on the bucket of count(h): bucket b holds counts from 2**(b - 1) to
    2**b - 1, and the last one all above. Weights are found by expectation-maximization on held-out
    text, or given: one for each n, for all buckets.
    """

    weights: tuple[float, ...] | None = None
    n_buckets: int = 12

    def __post_init__(self) -> None:
        checked_integer(self.n_buckets, "n_buckets", 1)
        if self.weights is None:
            return
        if not isinstance(self.weights, Sequence) or len(self.weights) == 0:
            raise ValueError(f"weights must be one or more numbers, got {self.weights!r}")
        if not all(is_number(weight) and 0 <= weight <= 1 for weight in self.weights):
            raise ValueError(f"weights must be from 0 to 1, got {self.weights!r}")

    def tables(self, counts: NGramCounts, held_out: Ids | None = None) -> list[Tables]:
        """Return the tables, with weights fitted to held_out unless they were given."""
        totals = [counts.sum_by_context(n, counts.levels[n - 1].counts) for n in counts.lengths]
        buckets = [self._bucket(total) for total in totals]
        weights = self._weights(counts, totals, buckets, held_out)
        made = []
        for n, total, bucket, weight in zip(counts.lengths, totals, buckets, weights, strict=True):
            share = np.where(total > 0, weight[bucket], 0.0)
            plain = make_tables(counts, n, counts.levels[n - 1].counts, total, 1 - share)
            contexts = counts.contexts(n)
            made.append(Tables(plain.direct * np.append(share[contexts], 0.0), plain.backoff))
        return made

    def _bucket(self, totals: Floats) -> Ids:
        """Return the bucket of each context, from 1 on; 0 for a context that nothing follows."""
        exponents = np.frexp(totals)[1].astype(np.int64)  # 1 for 1, 2 for 2 and 3, 3 for 4 to 7
        return np.where(totals > 0, np.minimum(exponents, self.n_buckets), 0)

    def _weights(
        self, counts: NGramCounts, totals: list[Floats], buckets: list[Ids], held_out: Ids | None
    ) -> Floats:
        """Return the weight of each length and bucket, shape (order, n_buckets + 1)."""
        if self.weights is not None:
            if len(self.weights) != counts.order:
                raise ValueError(
                    f"weights has {len(self.weights)} values, but order is {counts.order}: give "
                    "one for each length of n-gram, the shortest first"
                )
            return np.repeat(np.array(self.weights, float)[:, None], self.n_buckets + 1, axis=1)
        if held_out is None or len(held_out) == 0:
            raise ValueError(
                "Interpolated() learns its weights from held-out text: call "
                "fit(ids, held_out=...), or give weights"
            )
        probabilities = [np.full(len(held_out), 1 / counts.vocab_size)]
        met = []
        for n, (contexts, found) in zip(counts.lengths, counts.follow(held_out), strict=True):
            plain = make_tables(
                counts, n, counts.levels[n - 1].counts, totals[n - 1], totals[n - 1]
            )
            probabilities.append(plain.direct[found])
            met.append(np.append(buckets[n - 1], 0)[contexts])
        return fit_weights(np.stack(probabilities), np.stack(met), self.n_buckets + 1)


def fit_weights(probabilities: Floats, buckets: Ids, n_buckets: int) -> Floats:
    """Find by expectation-maximization the weights that give held-out text its least loss.

    probabilities, shape (order + 1, T): of each held-out token, from each length alone, 0 the
    uniform one. buckets, shape (order, T): 0 where the context was never seen, so its weight is 0.
    Returns weights, shape (order, n_buckets). Each is a share of the tokens that met its bucket,
    with one token more on either side, so that none is 0 or 1; one that met no token is 0.5.
    """
    order = len(buckets)
    weights = np.full((order, n_buckets), 0.5)
    weights[:, 0] = 0.0
    for _ in range(MAX_ROUNDS):
        picked = np.take_along_axis(weights, buckets, axis=1)
        stops = np.concatenate([np.ones_like(picked[:1]), picked])
        goes_on = np.concatenate([1 - picked, np.ones_like(picked[:1])])
        joint = probabilities * stops * np.cumprod(goes_on[::-1], axis=0)[::-1]
        posterior = joint / joint.sum(axis=0)  # how likely the token came from each length
        arrived = np.cumsum(posterior, axis=0)  # ... from this length or a shorter one
        last = weights.copy()
        for row, bucket in enumerate(buckets):
            chosen = np.bincount(bucket, posterior[row + 1], n_buckets)
            met = np.bincount(bucket, arrived[row + 1], n_buckets)
            weights[row] = (chosen + 1) / (met + 2)
        weights[:, 0] = 0.0
        if np.abs(weights - last).max() < TOLERANCE:
            break
    return weights


Discounts = tuple[float, float, float]
FALLBACK_DISCOUNTS: Discounts = (0.5, 1.0, 1.5)
"""For a length whose counts are too few or too even to estimate discounts from, as in KenLM."""


def estimate_discounts(values: Ids) -> Discounts:
    """Return what to take off a count of 1, of 2, and of 3 or more (Chen and Goodman 1999).

    With n_i the number of n-grams that occur i times and Y = n_1 / (n_1 + 2 n_2), the discount of
    i is i - (i + 1) Y n_(i+1) / n_i. Where an n_i is zero or a discount is not between 0 and i,
    returns FALLBACK_DISCOUNTS.
    """
    n = np.bincount(np.minimum(values, 5), minlength=6).astype(float)
    if not n[1:5].all():
        return FALLBACK_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    one, two, three = (float(i - (i + 1) * y * n[i + 1] / n[i]) for i in (1, 2, 3))
    if not (0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3):
        return FALLBACK_DISCOUNTS
    return one, two, three


def checked_discounts(discounts: float | Discounts | None) -> Discounts | None:
    """Return three discounts, or None for none; a number stands for three equal ones."""
    if discounts is None:
        return None
    three = tuple(discounts) if isinstance(discounts, Iterable) else (discounts,) * 3
    in_range = (is_number(d) and 0 <= d <= i for i, d in enumerate(three, start=1))
    if len(three) != 3 or not all(in_range):
        raise ValueError(
            f"discounts must be a number from 0 to 1, or three, for counts of 1, 2, and 3 or more, "
            f"none larger than its count; got {discounts!r}"
        )
    return float(three[0]), float(three[1]), float(three[2])


def discounted_tables(
    counts: NGramCounts, values_of_level: Sequence[Ids], discounts: Discounts | None
) -> list[Tables]:
    """Take a discount off every count, and give what was taken to the shorter context.

    p(w | h) = (c(h w) - D(c(h w))) / c(h) + backoff(h) p(w | shorter h), where c are the values of
    a level and backoff(h) is the sum of the discounts taken in h, divided by c(h).
    """
    made = []
    for n, values in enumerate(values_of_level, start=1):
        by_count = np.array([0.0, *(discounts or estimate_discounts(values))])
        taken = by_count[np.minimum(values, 3)]
        totals = counts.sum_by_context(n, values)
        backoff = divide(counts.sum_by_context(n, taken), totals, otherwise=1.0)
        made.append(make_tables(counts, n, values - taken, totals, backoff))
    return made


@dataclass(frozen=True)
class AbsoluteDiscount:
    """Interpolated absolute discounting (Ney, Essen and Kneser 1994): KneserNey with plain counts.

    discounts: one number for all counts, three for counts of 1, 2, and 3 or more, or None to
    estimate three for each length.
    """

    discounts: float | Discounts | None = None

    def __post_init__(self) -> None:
        checked_discounts(self.discounts)

    def tables(self, counts: NGramCounts, held_out: Ids | None = None) -> list[Tables]:
        """Return the tables."""
        values = [level.counts for level in counts.levels]
        return discounted_tables(counts, values, checked_discounts(self.discounts))


@dataclass(frozen=True)
class KneserNey:
    """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; modified: Chen and Goodman 1999).

    The longest n-grams are discounted as in AbsoluteDiscount. A shorter one counts not how often it
    occurs but after how many different symbols, see NGramCounts.continuation_counts.

    discounts: None for the three of modified Kneser-Ney, estimated for each length; a number for
    the original, with one; or three.
    """

    discounts: float | Discounts | None = None

    def __post_init__(self) -> None:
        checked_discounts(self.discounts)

    def tables(self, counts: NGramCounts, held_out: Ids | None = None) -> list[Tables]:
        """Return the tables."""
        values = [counts.continuation_counts(n) for n in range(1, counts.order)]
        values.append(counts.levels[-1].counts)
        return discounted_tables(counts, values, checked_discounts(self.discounts))
