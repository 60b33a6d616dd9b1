"""N-gram models: against a slow twin, against NLTK, and what every language model satisfies."""

import doctest
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

import gptbook.ngram
from gptbook.ngram import (
    FALLBACK_DISCOUNTS,
    AbsoluteDiscount,
    AddK,
    Interpolated,
    KneserNey,
    NGramModel,
    Smoothing,
    Tables,
    estimate_discounts,
    fit_weights,
)
from gptbook.ngram_counts import Ids, NGramCounts

START = -1
Ngram = tuple[int, ...]


# --- The slow twin: dictionaries, and the formulas as the papers write them -----------------------


def split_documents(ids: list[int], end_of_text: int | None) -> list[list[int]]:
    documents: list[list[int]] = [[]]
    for token in ids:
        documents[-1].append(token)
        if token == end_of_text:
            documents.append([])
    return [document for document in documents if document]


class Slow:
    """Counts of n-grams in a Counter for each length, and each smoothing's probability."""

    def __init__(self, ids: list[int], order: int, vocab_size: int, end_of_text: int | None):
        self.order, self.vocab_size = order, vocab_size
        self.counts: list[Counter[Ngram]] = [Counter() for _ in range(order + 1)]
        for document in split_documents(ids, end_of_text):
            symbols = [START, *document]
            for end in range(2, len(symbols) + 1):
                for n in range(1, min(order, end) + 1):
                    self.counts[n][tuple(symbols[end - n : end])] += 1

    def followers(self, values: Callable[[Ngram], int], context: Ngram) -> list[int]:
        return [values((*context, token)) for token in range(self.vocab_size)]

    def count(self, ngram: Ngram) -> int:
        return self.counts[len(ngram)][ngram]

    def continuation(self, ngram: Ngram) -> int:
        if len(ngram) == self.order or ngram[0] == START:
            return self.count(ngram)
        return sum(self.count((first, *ngram)) > 0 for first in [START, *range(self.vocab_size)])

    def add_k(self, k: float, token: int, context: Ngram) -> float:
        total = sum(self.followers(self.count, context))
        if total + k == 0:
            return 1 / self.vocab_size
        return (self.count((*context, token)) + k) / (total + k * self.vocab_size)

    def interpolated(self, weights: tuple[float, ...], token: int, context: Ngram | None) -> float:
        if context is None:
            return 1 / self.vocab_size
        shorter = self.interpolated(weights, token, context[1:] if context else None)
        total = sum(self.followers(self.count, context))
        if total == 0:
            return shorter
        weight = weights[len(context)]
        return weight * self.count((*context, token)) / total + (1 - weight) * shorter

    def discounts(self, values: Callable[[Ngram], int], n: int) -> tuple[float, float, float]:
        n1, n2, n3, n4 = (sum(values(g) == i for g in self.counts[n]) for i in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return FALLBACK_DISCOUNTS
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        valid = all(0 < d <= i for i, d in enumerate(found, start=1))
        return found if valid else FALLBACK_DISCOUNTS

    def discounted(
        self,
        values: Callable[[Ngram], int],
        given: tuple[float, float, float] | None,
        token: int,
        context: Ngram | None,
    ) -> float:
        if context is None:
            return 1 / self.vocab_size
        shorter = self.discounted(values, given, token, context[1:] if context else None)
        followers = self.followers(values, context)
        if sum(followers) == 0:
            return shorter
        d = (0.0, *(given or self.discounts(values, len(context) + 1)))
        kept = followers[token] - d[min(followers[token], 3)]
        taken = sum(d[min(value, 3)] for value in followers)
        return (kept + taken * shorter) / sum(followers)


def slow_probability(slow: Slow, smoothing: Smoothing, token: int, context: Ngram) -> float:
    match smoothing:
        case AddK(k):
            return slow.add_k(k, token, context)
        case Interpolated(weights) if weights is not None:
            return slow.interpolated(weights, token, context)
        case AbsoluteDiscount(discounts) | KneserNey(discounts):
            given = (discounts,) * 3 if isinstance(discounts, float) else discounts
            is_plain = isinstance(smoothing, AbsoluteDiscount)
            values = slow.count if is_plain else slow.continuation
            return slow.discounted(values, given, token, context)
        case _:
            raise TypeError(smoothing)


WEIGHTS = (0.9, 0.7, 0.4, 0.2, 0.6)
SMOOTHINGS: list[Callable[[int], Smoothing]] = [
    lambda order: AddK(0.0),
    lambda order: AddK(0.3),
    lambda order: Interpolated(WEIGHTS[:order]),
    lambda order: AbsoluteDiscount(),
    lambda order: AbsoluteDiscount(0.75),
    lambda order: KneserNey(),
    lambda order: KneserNey(0.6),
    lambda order: KneserNey((0.4, 1.1, 2.9)),
]
TWINS = pytest.mark.parametrize("make", SMOOTHINGS, ids=lambda make: repr(make(2)))


def random_ids(rng: random.Random, length: int, vocab_size: int) -> list[int]:
    """Ids of which small ones are frequent, so that counts of 1, 2, 3, 4 and many all occur."""
    return [int(rng.random() ** 2 * vocab_size) for _ in range(length)]


@TWINS
def test_equals_the_slow_twin(make: Callable[[int], Smoothing], rng: random.Random) -> None:
    for _ in range(12):
        order, vocab_size = rng.randint(1, 5), rng.randint(2, 7)
        end_of_text = rng.choice([None, 0, vocab_size - 1])
        ids = random_ids(rng, rng.choice([1, 7, 60, 250]), vocab_size)
        smoothing = make(order)
        model = NGramModel(order, vocab_size, smoothing, end_of_text).fit(ids)
        slow = Slow(ids, order, vocab_size, end_of_text)
        other = random_ids(rng, 25, vocab_size)
        expected = []
        for document in split_documents(other, end_of_text):
            for place, token in enumerate(document):
                context = (START, *document[:place])[max(0, place + 2 - order) :]
                expected.append(slow_probability(slow, smoothing, token, context))
        # The same sums in another order: differences of a few roundings of 1e-16.
        np.testing.assert_allclose(np.exp(-model.score(other)), expected, rtol=1e-10, atol=1e-14)


def smoothings(order: int) -> Iterator[Smoothing]:
    yield from (make(order) for make in SMOOTHINGS)
    yield Interpolated()
    yield Interpolated(n_buckets=1)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_every_next_token_distribution_sums_to_one_and_is_what_score_reads(
    order: int, rng: random.Random
) -> None:
    vocab_size = 6  # the last id never occurs in training
    ids = random_ids(rng, 300, vocab_size - 1)
    other = random_ids(rng, 40, vocab_size)
    for smoothing in smoothings(order):
        model = NGramModel(order, vocab_size, smoothing, end_of_text=0).fit(ids, held_out=other)
        losses = model.score(other)
        for end, loss in enumerate(losses):
            log_probs = model.log_probs(other[:end])
            assert log_probs.shape == (vocab_size,)
            assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12), smoothing
            assert -log_probs[other[end]] == pytest.approx(loss, rel=1e-10), smoothing
        if smoothing != AddK(0.0):
            assert np.isfinite(losses).all(), smoothing


def test_losses_over_all_texts_of_a_length_sum_to_one(rng: random.Random) -> None:
    """The chain rule: a model is a distribution over whole texts, also across documents' ends."""
    model = NGramModel(3, 3, end_of_text=2).fit(random_ids(rng, 60, 3))
    texts = [model.score(text).sum() for text in product(range(3), repeat=5)]
    assert np.exp(-np.array(texts)).sum() == pytest.approx(1, abs=1e-12)


NLTK_IDS = [int(digit) for digit in "5135135000055003030030003050011115333105"]
NLTK_CONTEXTS = [(1, 2), (0, 5), (3, 0), (5, 5)]
NLTK_PROBABILITIES = {
    ("KneserNey", 2): [
        [0.2352941176, 0.2352941176, 0.0000000000, 0.2352941176, 0.0000000000, 0.2941176471],
        [0.4222689076, 0.2794117647, 0.0000000000, 0.1365546218, 0.0000000000, 0.1617647059],
        [0.4972426471, 0.0597426471, 0.0000000000, 0.2472426471, 0.0000000000, 0.1957720588],
        [0.4222689076, 0.2794117647, 0.0000000000, 0.1365546218, 0.0000000000, 0.1617647059],
    ],
    ("AbsoluteDiscount", 2): [
        [0.4000000000, 0.1750000000, 0.0000000000, 0.2250000000, 0.0000000000, 0.2000000000],
        [0.4928571429, 0.2535714286, 0.0000000000, 0.1321428571, 0.0000000000, 0.1214285714],
        [0.5281250000, 0.0484375000, 0.0000000000, 0.2453125000, 0.0000000000, 0.1781250000],
        [0.4928571429, 0.2535714286, 0.0000000000, 0.1321428571, 0.0000000000, 0.1214285714],
    ],
    ("KneserNey", 3): [
        [0.2352941176, 0.2352941176, 0.0000000000, 0.2352941176, 0.0000000000, 0.2941176471],
        [0.4417016807, 0.2095588235, 0.0000000000, 0.1024159664, 0.0000000000, 0.2463235294],
        [0.4972426471, 0.0597426471, 0.0000000000, 0.1847426471, 0.0000000000, 0.2582720588],
        [0.5667016807, 0.2095588235, 0.0000000000, 0.1024159664, 0.0000000000, 0.1213235294],
    ],
    ("AbsoluteDiscount", 3): [
        [0.4000000000, 0.1750000000, 0.0000000000, 0.2250000000, 0.0000000000, 0.2000000000],
        [0.4946428571, 0.1901785714, 0.0000000000, 0.0991071429, 0.0000000000, 0.2160714286],
        [0.6095703125, 0.0272460937, 0.0000000000, 0.2004882812, 0.0000000000, 0.1626953125],
        [0.6196428571, 0.1901785714, 0.0000000000, 0.0991071429, 0.0000000000, 0.0910714286],
    ],
    ("AddK", 3): [
        [0.1428571429, 0.1428571429, 0.1428571429, 0.1428571429, 0.1428571429, 0.1428571429],
        [0.2727272727, 0.0909090909, 0.0909090909, 0.0909090909, 0.0909090909, 0.2727272727],
        [0.3333333333, 0.0666666667, 0.0666666667, 0.2000000000, 0.0666666667, 0.2000000000],
        [0.3333333333, 0.1111111111, 0.1111111111, 0.1111111111, 0.1111111111, 0.1111111111],
    ],
}
"""From nltk 3.10.4: KneserNeyInterpolated(order, 0.75), AbsoluteDiscountingInterpolated(order,
0.75) and Lidstone(0.5, order), whose vocabulary has "<UNK>" as one more word."""


class UndiscountedUnigrams:
    """NLTK takes no discount from single tokens, so its unseen ones have probability 0."""

    def __init__(self, kind: type[KneserNey] | type[AbsoluteDiscount]) -> None:
        self.kind = kind

    def tables(self, counts: NGramCounts, held_out: Ids | None = None) -> list[Tables]:
        return [self.kind(0.0).tables(counts)[0], *self.kind(0.75).tables(counts)[1:]]


@pytest.mark.parametrize(("name", "order"), list(NLTK_PROBABILITIES))
def test_equals_nltk(name: str, order: int) -> None:
    choices: dict[str, Smoothing] = {
        "AddK": AddK(0.5),
        "KneserNey": UndiscountedUnigrams(KneserNey),
        "AbsoluteDiscount": UndiscountedUnigrams(AbsoluteDiscount),
    }
    model = NGramModel(order, 7 if name == "AddK" else 6, choices[name]).fit(NLTK_IDS)
    for context, expected in zip(NLTK_CONTEXTS, NLTK_PROBABILITIES[name, order], strict=True):
        probabilities = np.exp(model.log_probs((0, 0, *context)))
        np.testing.assert_allclose(probabilities[:6], expected, atol=1e-9)


# --- By hand --------------------------------------------------------------------------------------


def test_the_docstring_example() -> None:
    assert doctest.testmod(gptbook.ngram).attempted >= 2
    assert doctest.testmod(gptbook.ngram).failed == 0


def test_kneser_ney_by_hand() -> None:
    """0 1 0 1 0 1 2 1 with one discount of 1/2: 1 follows 0 and 2; 0 follows 1 and START."""
    model = NGramModel(2, 3, KneserNey(0.5)).fit([0, 1, 0, 1, 0, 1, 2, 1])
    assert model.counts.continuation_counts(1).tolist() == [2, 2, 1, 0]
    unigram = (np.array([2, 2, 1]) - 0.5) / 5 + 1.5 / 5 / 3
    after_1 = (np.array([1.5, 0, 0.5]) + 1.0 * unigram) / 3  # counts 2, 0, 1
    np.testing.assert_allclose(np.exp(model.log_probs([2, 1])), after_1, rtol=1e-12)


def test_maximum_likelihood_gives_inf_to_the_unseen_and_is_uniform_after_an_unseen_context() -> (
    None
):
    model = NGramModel(2, 4, AddK(0)).fit([0, 1, 0, 2])
    assert model.score([0, 1, 1]).tolist() == [0, pytest.approx(np.log(2)), np.inf]
    np.testing.assert_allclose(np.exp(model.log_probs([3])), 0.25)


def test_discounts_by_hand() -> None:
    n1, n2, n3, n4 = 40, 20, 10, 5
    values = np.repeat([1, 2, 3, 4, 9], [n1, n2, n3, n4, 7])
    assert estimate_discounts(values) == pytest.approx((0.5, 1.25, 2.0))  # y = 1/2
    assert estimate_discounts(values[values != 3]) == FALLBACK_DISCOUNTS


def test_counts_ngrams_and_continuations_by_hand() -> None:
    counts = NGramCounts([0, 1, 9, 1, 0, 1, 9], order=3, vocab_size=10, end_of_text=9)
    start = counts.start
    assert [counts.count(g) for g in [(1,), (0, 1), (9, 1), (start, 1), (start, 0, 1)]] == [
        3, 2, 0, 1, 1,
    ]  # fmt: skip
    assert counts.count((1, 9)) == 2
    assert counts.ngrams(2).tolist() == [[0, 1], [1, 0], [1, 9], [start, 0], [start, 1]]
    assert counts.ngrams(3).tolist() == [[0, 1, 9], [1, 0, 1], [start, 0, 1], [start, 1, 0]]
    assert counts.levels[2].counts.tolist() == [2, 1, 1, 1]
    assert counts.continuation_counts(2).tolist() == [2, 1, 1, 1, 1]
    assert counts.n_bytes > 0


def test_em_finds_the_best_weights(rng: random.Random) -> None:
    """No small step improves what EM with one more token on either side maximizes."""
    random_array = np.random.default_rng(rng.getrandbits(32))
    print(random_array.bit_generator.state["state"])
    probabilities = random_array.random((4, 500)) ** 3 + 1e-3
    buckets = random_array.integers(0, 3, (3, 500))
    weights = fit_weights(probabilities, buckets, 3)

    def objective(w: np.ndarray) -> float:
        mixed = probabilities[0]
        for row in range(3):
            share = np.where(buckets[row] == 0, 0, w[row][buckets[row]])
            mixed = share * probabilities[row + 1] + (1 - share) * mixed
        return float(np.log(mixed).sum() + np.log(w[:, 1:] * (1 - w[:, 1:])).sum())

    best = objective(weights)
    assert (weights[:, 0] == 0).all()
    for _ in range(200):
        moved = np.clip(weights + random_array.normal(0, 0.02, weights.shape), 1e-4, 1 - 1e-4)
        assert objective(moved) < best + 0.01  # EM stops when no weight moves by 1e-4


def test_fitted_weights_beat_given_ones_on_held_out_text(rng: random.Random) -> None:
    ids = random_ids(rng, 3000, 8)
    train, held_out = ids[:2000], ids[2000:]
    fitted = NGramModel(3, 8, Interpolated()).fit(train, held_out)
    given = NGramModel(3, 8, Interpolated((0.5, 0.5, 0.5))).fit(train)
    assert fitted.score(held_out).mean() < given.score(held_out).mean()


# --- Documents, samples, sizes --------------------------------------------------------------------


def test_documents_do_not_see_each_other(rng: random.Random) -> None:
    documents = [[*(i + 1 for i in random_ids(rng, rng.randint(0, 9), 5)), 0] for _ in range(20)]
    joined = [token for document in documents for token in document]
    model = NGramModel(4, 6, end_of_text=0).fit(joined)
    alone = np.concatenate([model.score(document) for document in documents])
    np.testing.assert_array_equal(model.score(joined), alone)
    np.testing.assert_array_equal(model.log_probs([3, 1, 0, 2]), model.log_probs([2]))
    rng.shuffle(documents)
    shuffled = [token for document in documents for token in document]
    again = NGramModel(4, 6, end_of_text=0).fit(shuffled)
    np.testing.assert_array_equal(again.score(joined), model.score(joined))


def test_samples_follow_the_distribution_and_the_seed(rng: random.Random) -> None:
    model = NGramModel(2, 5, AddK(0.5), end_of_text=0).fit(random_ids(rng, 100, 5))
    assert model.sample(30, seed=3) == model.sample(30, seed=3)
    seeds = range(4000)
    drawn = Counter(model.sample(1, seed=s, context=[2])[0] for s in seeds)
    expected = np.exp(model.log_probs([2])) * len(seeds)
    chi_square = sum((drawn[i] - expected[i]) ** 2 / expected[i] for i in range(5))
    assert chi_square < 40  # 4 degrees of freedom: false alarm once in 2e7
    for s in range(50):
        sample = model.sample(20, seed=s)
        assert 0 not in sample[:-1]
        assert len(sample) == 20 or sample[-1] == 0


def test_a_maximum_likelihood_sample_holds_only_ngrams_that_were_counted(
    rng: random.Random,
) -> None:
    ids = random_ids(rng, 100, 4)
    model = NGramModel(4, 9, AddK(0)).fit(ids + ids[:6])  # a ring: every context has a follower
    context = ids[:3]
    sample = context + model.sample(60, seed=rng.getrandbits(32), context=context)
    assert len(sample) == 63
    assert all(model.counts.count(sample[i : i + 4]) > 0 for i in range(60))
    assert model.sample(0, seed=1) == []


def test_a_large_vocabulary_and_a_high_order_do_not_overflow(rng: random.Random) -> None:
    ids = [50_256 - token for token in random_ids(rng, 3000, 3)]
    model = NGramModel(9, 50_257).fit(np.array(ids, np.uint16))
    small = NGramModel(9, 3).fit([50_256 - token for token in ids])
    for n in range(1, 9):
        levels = model.counts.levels[n], small.counts.levels[n]
        assert sorted(levels[0].counts) == sorted(levels[1].counts)
    assert model.score(ids[:100]).shape == (100,)


def test_short_texts() -> None:
    model = NGramModel(5, 2).fit([1])
    assert np.exp(model.log_probs([0, 1, 0])).sum() == pytest.approx(1)
    assert model.score([]).shape == (0,)
    assert NGramModel(3, 1).fit([0, 0]).score([0]) == pytest.approx(0)


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: NGramModel(0, 5), ValueError, "order must be at least 1, got 0"),
        (lambda: NGramModel(2.0, 5), TypeError, "order must be an int, got 2.0"),  # type: ignore[arg-type]
        (lambda: NGramModel(2, 5, end_of_text=5), ValueError, "end_of_text holds 5"),
        (lambda: NGramModel(2, 5).fit([]), ValueError, "nothing to count"),
        (lambda: NGramModel(2, 5).fit([4, 5]), ValueError, "holds 5.*vocab_size - 1 = 4"),
        (lambda: NGramModel(2, 5).fit([-1]), ValueError, "holds -1"),
        (lambda: NGramModel(2, 5).fit([0.5]), TypeError, "integers, got dtype float64"),
        (lambda: NGramModel(2, 5).fit([True]), TypeError, "integers, got dtype bool"),
        (lambda: NGramModel(2, 5).fit([[1], [2]]), ValueError, r"one-dimensional.*\(2, 1\)"),
        (lambda: NGramModel(2, 5).score([1]), ValueError, "call fit"),
        (lambda: NGramModel(2, 5, Interpolated()).fit([1]), ValueError, "held_out"),
        (lambda: NGramModel(2, 5, Interpolated((1.0,))).fit([1]), ValueError, "weights has 1"),
        (lambda: Interpolated((2.0,)), ValueError, "weights must be from 0 to 1"),
        (lambda: Interpolated(()), ValueError, "weights must be one or more"),
        (lambda: Interpolated(0.5), ValueError, "weights must be one or more"),  # type: ignore[arg-type]
        (lambda: Interpolated((True,)), ValueError, "weights must be from 0 to 1"),
        (lambda: Interpolated(("a",)), ValueError, "weights must be from 0 to 1"),  # type: ignore[arg-type]
        (lambda: AddK(True), ValueError, "k must be a number"),
        (lambda: AddK("1"), ValueError, "k must be a number"),  # type: ignore[arg-type]
        (lambda: KneserNey(True), ValueError, "discounts must be"),
        (lambda: KneserNey("abc"), ValueError, "discounts must be"),  # type: ignore[arg-type]
        (lambda: AddK(-1), ValueError, "k must be a number from 0 on, got -1"),
        (lambda: AddK(float("nan")), ValueError, "k must be"),
        (lambda: KneserNey(1.5), ValueError, "discounts must be"),
        (lambda: AbsoluteDiscount((0.5, 2.5, 1)), ValueError, "none larger than its count"),
        (lambda: NGramCounts([1], 2, 5).continuation_counts(2), ValueError, "order - 1 = 1"),
        (lambda: NGramCounts([1], 2, 5).count((1, 1, 1)), ValueError, "3 symbols"),
        (lambda: NGramCounts([1], 2, 5).count(()), ValueError, "0 symbols"),
        (lambda: NGramCounts([0, 1, 2], 2, 5).count((0, 6)), ValueError, "ngram holds 6"),
        (lambda: NGramCounts([0, 1, 2], 2, 5).count((1, -4)), ValueError, "ngram holds -4"),
        (lambda: NGramCounts([0, 1, 2], 2, 5).number((0, 5)), ValueError, "ngram holds 5"),
        (lambda: NGramCounts([0, 1, 2], 2, 5).number((6,)), ValueError, "ngram holds 6"),
        (lambda: NGramCounts([1], 2, 5).count((0.5,)), TypeError, "ngram must be integers"),  # type: ignore[arg-type]
        (lambda: NGramCounts([1], 2, 5).ngrams(0), ValueError, "from 1 to order = 2, got 0"),
        (lambda: NGramCounts([1], 2, 5).contexts(3), ValueError, "from 1 to order = 2, got 3"),
        (lambda: NGramCounts([1], 2, 5).sum_by_context(9, np.ones(1)), ValueError, "got 9"),
    ],
)
def test_clear_errors(act: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        act()


def test_a_failed_fit_leaves_the_model_as_it_was() -> None:
    model = NGramModel(2, 3, Interpolated()).fit([0, 1, 2], held_out=[0, 1])
    before = model.score([2, 1])
    with pytest.raises(ValueError, match="held_out"):
        model.fit([2, 2])
    np.testing.assert_array_equal(model.score([2, 1]), before)
