# Exported from chapters/02_language_models.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Measure language models: from the losses of tokens to numbers that can be compared.

A *loss* is -log p in nats, the natural logarithm of the probability that a model gave to what came.
Functions that take losses accept a number or an array, and inf for probability 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
LN_2 = math.log(2)
"""Nats in a bit."""

ROUNDING = 1e-6
"""Nats by which a loss may be below zero: log-probabilities summed in float32 exceed 0 by less."""


def checked_losses(nats: ArrayLike, name: str = "nats") -> Values:
    """Return losses as an array of float64, or raise ValueError if they cannot be losses.

    That is, if there are none, one is NaN, or one is negative, as log-probabilities are.
    """
    losses = np.asarray(nats, np.float64)
    if losses.size == 0:
        raise ValueError(f"{name} is empty: a mean needs at least one loss")
    if np.isnan(losses).any():
        raise ValueError(f"{name} holds NaN")
    if losses.min() < -ROUNDING:
        raise ValueError(
            f"{name} holds {losses.min():.4g}, but a loss -log p is at least 0: negate "
            "log-probabilities first"
        )
    return losses


def checked_positive(value: ArrayLike, name: str) -> Values:
    """Return value as a float64 array, or raise ValueError unless all are above 0 and finite."""
    array = np.asarray(value, np.float64)
    if array.size == 0 or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return array


def checked_number(value: ArrayLike, name: str) -> ArrayLike:
    """Return value, or raise ValueError if it is an array or a list, even of one number."""
    if np.ndim(value) != 0:
        raise ValueError(
            f"{name} must be one number, got shape {np.shape(value)}: bits_per_byte_estimate takes "
            "the losses and bytes of many documents"
        )
    return value


def token_losses(logits: ArrayLike, targets: ArrayLike) -> Values:
    """Return the loss of each target in nats, shape (T,), from scores for all tokens.

    logits, shape (T, V), are log-probabilities up to a constant for each row: p = softmax(logits).
    The largest is taken off before exponentials are, so none overflows. targets, shape (T,), are
    ids. A target with the logit -inf has the loss inf.

    Raises:
        ValueError: the shapes do not fit, a target is no id, or a row has no finite largest logit.
    """
    scores, ids = np.asarray(logits, np.float64), np.asarray(targets)
    if ids.size == 0:
        ids = ids.astype(np.int64)  # numpy makes an empty list an array of floats
    if scores.ndim != 2 or ids.shape != scores.shape[:1]:
        raise ValueError(
            f"logits must have shape (T, V) and targets (T,), got {scores.shape} and {ids.shape}"
        )
    if not np.issubdtype(ids.dtype, np.integer) or ((ids < 0) | (ids >= scores.shape[1])).any():
        raise ValueError(f"targets must be integers from 0 to V - 1 = {scores.shape[1] - 1}")
    top = scores.max(axis=1)
    if not np.isfinite(top).all():
        raise ValueError(
            f"row {int(np.argmin(np.isfinite(top)))} of logits holds NaN, inf, or only -inf"
        )
    with np.errstate(over="ignore"):  # a difference too large for a float is a loss of inf
        log_sums = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        return np.asarray(log_sums - scores[np.arange(len(ids)), ids])


def entropy(probabilities: ArrayLike) -> float:
    """Return the entropy of one distribution, -sum p log p, in nats; 0 log 0 counts as 0.

    No model of a source has a smaller expected loss on it than its entropy (Shannon 1948).

    Raises:
        ValueError: probabilities, shape (V,), hold a negative one or do not sum to 1.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not (p >= 0).all() or abs(p.sum() - 1) > 1e-6:
        raise ValueError(f"probabilities must be at least 0 and sum to 1, got {probabilities!r}")
    p = p[p > 0]
    return float(-(p * np.log(p)).sum()) + 0.0  # + 0.0: never -0.0


# One number for a text


def cross_entropy(nats: ArrayLike) -> float:
    """Return the mean loss in nats per token."""
    with np.errstate(over="ignore"):
        return float(checked_losses(nats).mean())


def perplexity(nats: ArrayLike) -> float:
    """Return exp of the mean loss: as uncertain as a choice among so many equally likely tokens.

    inf if the mean loss is, or is too large for a float.
    """
    with np.errstate(over="ignore"):
        return float(np.exp(cross_entropy(nats)))


def bits_per_token(nats: ArrayLike) -> float:
    """Return the mean loss in bits per token."""
    return cross_entropy(nats) / LN_2


def bits_per_byte(nats: ArrayLike, n_bytes: float) -> float:
    """Return the loss of a whole text, the sum of nats, in bits for each of its n_bytes in UTF-8.

    It does not depend on how the text was cut into tokens, so it compares models with different
    tokenizers. Count the bytes of exactly the text that the tokens spell.
    """
    size = checked_positive(checked_number(n_bytes, "n_bytes"), "n_bytes")
    with np.errstate(over="ignore"):
        return float(checked_losses(nats).sum() / size / LN_2)


# Conversions. bytes_per_token is that of the tokenizer on the text that was scored.


def token_nats_to_bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Return the bits per byte of a text whose mean loss is nats_per_token."""
    checked_number(bytes_per_token, "bytes_per_token")
    return bits_per_byte(checked_number(nats_per_token, "nats_per_token"), bytes_per_token)


def bits_per_byte_to_token_nats(bits: float, bytes_per_token: float) -> float:
    """Return the mean loss in nats per token of a text with so many bits per byte."""
    loss = checked_losses(checked_number(bits, "bits"), "bits") * LN_2
    size = checked_positive(checked_number(bytes_per_token, "bytes_per_token"), "bytes_per_token")
    with np.errstate(over="ignore"):
        return float(loss * size)


def convert_perplexity(
    perplexity: float, bytes_per_token: float, to_bytes_per_token: float
) -> float:
    """Return the perplexity per token of another tokenizer at the same bits per byte.

    perplexity ** (to_bytes_per_token / bytes_per_token): longer tokens are harder to guess.
    """
    if not perplexity >= 1:
        raise ValueError(f"perplexity must be at least 1, got {perplexity!r}")
    bits = token_nats_to_bits_per_byte(math.log(perplexity), bytes_per_token)
    with np.errstate(over="ignore"):
        return float(np.exp(bits_per_byte_to_token_nats(bits, to_bytes_per_token)))


# How far to trust it


class Estimate(NamedTuple):
    """A measured value and its standard error, from n independent documents."""

    value: float
    standard_error: float
    n: int

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Return value -+ z standard errors: for large n and z = 1.96, 95 % confidence."""
        return self.value - z * self.standard_error, self.value + z * self.standard_error

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.standard_error:.2g} (n = {self.n:,})"


def sum_by_document(nats: ArrayLike, lengths: ArrayLike) -> Values:
    """Return the loss of each document, shape (D,), from the losses of all tokens, shape (T,).

    lengths, shape (D,), says how many tokens each document has, 0 allowed; they sum to T.
    """
    losses, counts = np.asarray(nats, np.float64), np.asarray(lengths)
    if losses.ndim != 1 or counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(losses):
        raise ValueError(
            f"lengths must be at least 0 and sum to the number of losses, {losses.size}, got "
            f"{counts.sum()}"
        )
    documents = np.repeat(np.arange(len(counts)), counts)
    return np.asarray(np.bincount(documents, losses, len(counts)), np.float64)


def mean_estimate(values: ArrayLike) -> Estimate:
    """Return the mean of independent values, shape (n,), with its standard error; n >= 2."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"values must have shape (n,) with n at least 2, got {array.shape}")
    return ratio_estimate(array, np.ones_like(array))


def ratio_estimate(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """Return sum(numerators) / sum(denominators) over documents, with its standard error.

    The standard error is that of the ratio estimator in survey sampling (Cochran 1977, chapter 6):
    sqrt(n / (n - 1) * sum((numerator - ratio * denominator) ** 2)) / sum(denominators). It takes
    documents as independent and what is inside one as not: tokens of one document are alike, and
    counting each as a sample of its own would give an error that is too small.

    Raises:
        ValueError: fewer than two documents, shapes differ, a denominator is not positive, or a
            numerator is not finite.
    """
    top, bottom = np.asarray(numerators, np.float64), checked_positive(denominators, "denominators")
    if top.ndim != 1 or top.shape != bottom.shape or len(top) < 2:
        raise ValueError(
            "numerators and denominators must both have shape (n,) with n at least 2, got "
            f"{top.shape} and {bottom.shape}"
        )
    if not np.isfinite(top).all():
        place = int(np.argmin(np.isfinite(top)))
        raise ValueError(
            f"document {place} has the value {top[place]}, so there is no standard error: an inf "
            "comes from a model that gave a token probability 0"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = top.sum() / bottom.sum()
        squares = ((top - ratio * bottom) ** 2).sum() * len(top) / (len(top) - 1)
        return Estimate(float(ratio), float(np.sqrt(squares) / bottom.sum()), len(top))


def bits_per_byte_estimate(nats: ArrayLike, n_bytes: ArrayLike) -> Estimate:
    """Return bits per byte with its standard error from the loss and the bytes of each document.

    nats, shape (D,), sums of losses; n_bytes, shape (D,).
    """
    return ratio_estimate(checked_losses(nats) / LN_2, n_bytes)


def paired_difference(nats: ArrayLike, baseline_nats: ArrayLike, n_bytes: ArrayLike) -> Estimate:
    """Return how many bits per byte a model loses more than a baseline on the same documents.

    All have shape (D,). Below zero, the model is better. Some documents are hard for every model;
    the difference takes that out, so its standard error is far below that of either loss.
    """
    losses, baseline = checked_losses(nats), checked_losses(baseline_nats, "baseline_nats")
    if losses.shape != baseline.shape:
        raise ValueError(
            f"nats has shape {losses.shape}, baseline_nats {baseline.shape}: score both models on "
            "the same documents"
        )
    with np.errstate(invalid="ignore"):
        return ratio_estimate((losses - baseline) / LN_2, n_bytes)


def bootstrap_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    seed: int,
    level: float = 0.95,
    n_resamples: int = 2000,
) -> tuple[float, float]:
    """Return an interval for sum(numerators) / sum(denominators) by resampling documents.

    The percentile method (Efron 1979): draw n documents with replacement, n_resamples times, and
    take the middle `level` of the ratios. It assumes less than `ratio_estimate` and agrees with it
    when documents are many and none dominates.
    """
    ratio_estimate(numerators, denominators)  # for its checks
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples!r}")
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    random = np.random.default_rng(seed)
    ratios = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = random.integers(0, len(top), len(top))
        ratios[i] = top[drawn].sum() / bottom[drawn].sum()
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
