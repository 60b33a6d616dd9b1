"""Evaluation: losses, their conversions, and their standard errors, against sums written out."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from gptbook import evals

INF = float("inf")


@pytest.fixture
def numbers(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(64))


# --- One number for a text ------------------------------------------------------------------------


def test_a_uniform_choice_among_k() -> None:
    """Each of 5 tokens at probability 1/8, spelling 12 bytes: 3 bits each, 15 bits in all."""
    nats = np.full(5, math.log(8))
    assert evals.cross_entropy(nats) == pytest.approx(math.log(8))
    assert evals.perplexity(nats) == pytest.approx(8)
    assert evals.bits_per_token(nats) == pytest.approx(3)
    assert evals.bits_per_byte(nats, 12) == pytest.approx(15 / 12)
    assert evals.bits_per_byte(nats.sum(), 12) == pytest.approx(15 / 12)
    assert evals.perplexity(math.log(8)) == pytest.approx(8)


def test_zero_probability_is_an_infinite_loss_and_large_losses_do_not_warn() -> None:
    assert evals.cross_entropy([0.5, INF]) == INF
    assert evals.perplexity([0.5, INF]) == INF
    assert evals.bits_per_byte([0.5, INF], 10) == INF
    assert evals.perplexity([1e4]) == INF
    assert evals.cross_entropy([0.0, -1e-9]) == pytest.approx(0, abs=1e-9)  # no mistake: rounding


def test_token_losses_are_those_of_softmax(numbers: np.random.Generator) -> None:
    logits = numbers.normal(0, 5, (50, 7))
    targets = numbers.integers(0, 7, 50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(50), targets])
    np.testing.assert_allclose(evals.token_losses(logits, targets), expected, atol=1e-12)
    shifted = logits + numbers.choice([-1e5, 0, 1e5], (50, 1))  # exp alone would give inf or 0
    np.testing.assert_allclose(evals.token_losses(shifted, targets), expected, atol=1e-9)
    assert evals.token_losses([[0.0, -INF]], [1]).tolist() == [INF]
    assert evals.token_losses([[0.0, -INF]], [0]).tolist() == [0]


def test_entropy() -> None:
    assert evals.entropy([0.5, 0.5]) == pytest.approx(math.log(2))
    assert evals.entropy([1.0, 0.0]) == 0
    assert math.copysign(1, evals.entropy([1.0])) == 1
    assert evals.entropy([0.25] * 4) / evals.LN_2 == pytest.approx(2)


def test_conversions_agree_with_the_definitions(numbers: np.random.Generator) -> None:
    """One text of 900 bytes, cut into 300 tokens by one tokenizer and into 200 by another."""
    nats = numbers.exponential(2, 300)
    bits = evals.bits_per_byte(nats, 900)
    assert evals.token_nats_to_bits_per_byte(float(nats.mean()), 3) == pytest.approx(bits)
    assert evals.bits_per_byte_to_token_nats(bits, 3) == pytest.approx(nats.mean())
    other = np.full(200, nats.sum() / 200)  # the same probability for the whole text
    assert evals.bits_per_byte(other, 900) == pytest.approx(bits)
    converted = evals.convert_perplexity(evals.perplexity(nats), 3, 4.5)
    assert converted == pytest.approx(evals.perplexity(other))
    assert converted > evals.perplexity(nats)
    assert evals.convert_perplexity(INF, 3, 4.5) == INF


# --- Standard errors ------------------------------------------------------------------------------


def test_mean_estimate_is_the_textbook_one(numbers: np.random.Generator) -> None:
    values = numbers.normal(3, 2, 40)
    estimate = evals.mean_estimate(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(40))
    low, high = estimate.interval(2)
    assert (high - low, low + high) == pytest.approx(
        (4 * estimate.standard_error, 2 * values.mean())
    )
    assert str(evals.Estimate(1.23456, 0.0123, 1200)) == "1.235 ± 0.012 (n = 1,200)"


def documents(numbers: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses in nats and bytes of documents whose lengths and difficulties differ."""
    n_bytes = numbers.integers(50, 2000, n)
    return n_bytes * numbers.gamma(20, 0.05, n), n_bytes


def test_ratio_estimate_by_hand() -> None:
    """3/2 and 5/4: ratio 8/6, residuals 1/3 and -1/3, error sqrt(2 * 2/9) / 6."""
    estimate = evals.ratio_estimate([3, 5], [2, 4])
    assert estimate == pytest.approx((4 / 3, math.sqrt(4 / 9) / 6, 2))


def test_standard_error_is_the_spread_over_many_samples(numbers: np.random.Generator) -> None:
    n_samples = 5000  # the share of 0.94 or so is known to 0.0034: each bound is 7 of them away
    estimates = [evals.bits_per_byte_estimate(*documents(numbers, 60)) for _ in range(n_samples)]
    spread = np.std([estimate.value for estimate in estimates])
    claimed = math.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    assert claimed == pytest.approx(spread, rel=0.1)  # the spread itself is known to 1/sqrt(10,000)
    covered = np.mean([low < 1 / evals.LN_2 < high for low, high in map(
        evals.Estimate.interval, estimates)])  # fmt: skip
    assert 0.91 < covered < 0.97


def test_paired_difference_sees_what_separate_errors_hide(numbers: np.random.Generator) -> None:
    nats, n_bytes = documents(numbers, 300)
    better = nats * 0.99 - numbers.random(300) * 0.01 * n_bytes
    difference = evals.paired_difference(better, nats, n_bytes)
    one = evals.bits_per_byte_estimate(nats, n_bytes)
    two = evals.bits_per_byte_estimate(better, n_bytes)
    assert difference.value == pytest.approx(two.value - one.value)
    assert difference.interval()[1] < 0
    assert difference.standard_error < one.standard_error / 5
    assert evals.paired_difference(nats, nats, n_bytes)[:2] == (0, 0)


def test_bootstrap_agrees_with_the_formula(numbers: np.random.Generator) -> None:
    nats, n_bytes = documents(numbers, 400)
    low, high = evals.bootstrap_interval(nats, n_bytes, seed=1)
    assert (low, high) == evals.bootstrap_interval(nats, n_bytes, seed=1)
    estimate = evals.ratio_estimate(nats, n_bytes)
    assert low < estimate.value < high
    assert high - low == pytest.approx(2 * 1.96 * estimate.standard_error, rel=0.25)
    narrow = evals.bootstrap_interval(nats, n_bytes, seed=1, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_sum_by_document(numbers: np.random.Generator) -> None:
    lengths = numbers.integers(0, 5, 30)
    nats = numbers.random(lengths.sum())
    ends = np.cumsum(lengths)
    expected = [nats[end - n : end].sum() for end, n in zip(ends, lengths, strict=True)]
    np.testing.assert_allclose(evals.sum_by_document(nats, lengths), expected)
    assert evals.sum_by_document([], [0, 0]).tolist() == [0, 0]


def test_no_targets_have_no_losses() -> None:
    assert evals.token_losses(np.zeros((0, 5)), []).shape == (0,)


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_for_a_float_is_inf_without_a_warning() -> None:
    assert evals.token_losses([[1e308, -1e308]], [1]).tolist() == [INF]
    assert evals.cross_entropy([1e308, 1e308]) == INF
    assert evals.bits_per_byte([1e308], 0.1) == INF
    assert evals.bits_per_byte_to_token_nats(1e308, 10) == INF
    assert evals.convert_perplexity(1e200, 1, 3) == INF
    assert evals.ratio_estimate([1e308, 1e308], [1, 1]).value == INF


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: evals.cross_entropy([]), "nats is empty"),
        (lambda: evals.perplexity([1, float("nan")]), "nats holds NaN"),
        (lambda: evals.cross_entropy([-0.7, -1.2]), "holds -1.2.*negate"),
        (lambda: evals.bits_per_byte([1.0], 0), "n_bytes must be positive.*got 0"),
        (lambda: evals.bits_per_byte([1.0, 2.0], [3, 4]), "n_bytes must be one.*_estimate"),  # type: ignore[arg-type]
        (lambda: evals.token_nats_to_bits_per_byte([1.0], 3), "nats_per_token must be one"),  # type: ignore[arg-type]
        (lambda: evals.token_nats_to_bits_per_byte(1, [3]), "bytes_per_token must be one"),  # type: ignore[arg-type]
        (lambda: evals.bits_per_byte_to_token_nats([1], 3), "bits must be one"),  # type: ignore[arg-type]
        (lambda: evals.bits_per_byte_to_token_nats(1, -3), "bytes_per_token must be positive"),
        (lambda: evals.bits_per_byte_to_token_nats(-1, 3), "bits holds -1"),
        (lambda: evals.convert_perplexity(0.5, 3, 4), "perplexity must be at least 1"),
        (lambda: evals.entropy([0.5, 0.6]), "sum to 1"),
        (lambda: evals.entropy([1.5, -0.5]), "at least 0"),
        (lambda: evals.entropy([]), "sum to 1"),
        (lambda: evals.token_losses([[1, 2]], [2]), "from 0 to V - 1 = 1"),
        (lambda: evals.token_losses([[1, 2]], [0.5]), "integers"),
        (lambda: evals.token_losses([[1, 2]], [0, 1]), r"\(1, 2\) and \(2,\)"),
        (lambda: evals.token_losses([[0.0, 1.0], [-INF, -INF]], [0, 0]), "row 1 of logits"),
        (lambda: evals.token_losses([[0.0, float("nan")]], [0]), "row 0 of logits"),
        (lambda: evals.ratio_estimate([1], [1]), "n at least 2"),
        (lambda: evals.ratio_estimate([1, 2], [1, 2, 3]), r"\(2,\) and \(3,\)"),
        (lambda: evals.ratio_estimate([1, 2], [1, 0]), "denominators must be positive"),
        (lambda: evals.ratio_estimate([1, INF], [1, 1]), "document 1 has the value inf"),
        (lambda: evals.mean_estimate([1.0]), r"values must have shape.*got \(1,\)"),
        (
            lambda: evals.paired_difference([1, INF], [1, INF], [1, 1]),
            "document 1 has the value nan",
        ),
        (lambda: evals.paired_difference([1, 2], [1, 2, 3], [1, 1]), "the same documents"),
        (lambda: evals.sum_by_document([1.0], [2]), "sum to the number of losses, 1, got 2"),
        (lambda: evals.sum_by_document([1.0], [2, -1]), "at least 0"),
        (lambda: evals.bootstrap_interval([1, 2], [1, 1], 0, level=95), "level must be between"),
        (lambda: evals.bootstrap_interval([1, 2], [1, 1], 0, n_resamples=0), "n_resamples"),
    ],
)
def test_clear_errors(act: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
