# Exported from chapters/07_choosing.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""From logits to the next token: the contract, a reference for it, and a faster way to the same.

The contract, in the order in which it acts on a row of logits z, (V,):

1. A row is broken if it holds NaN or +inf, or if nothing in it that is allowed is above -inf. It is
   reported, and gets an id in range all the same. NaN counts as -inf.
2. Ids that are not allowed get -inf.
3. Penalties. Repetition: of ids that occur in the prompt or behind it, z above 0 is divided by the
   penalty, and z below 0 multiplied. Then an id that was written n > 0 times loses
   presence + n * frequency.
4. Temperature: z / T. T = 0 is greedy: the largest z.
5. top_k: exactly k ids stay, those with the largest z.
6. top_p: in falling order, an id stays if the probability of those before it is below top_p; so the
   first one always stays. Probabilities are those among what top_k left.
7. min_p: an id stays if it has at least min_p times the probability of the most probable.
8. The choice is the id with the largest z + g. The noise g is Gumbel's, from Philox with the key
   seed and a counter made of id and position: the same in every batch, order and subset of ids.

Wherever two are equal, the lower id comes first. Everything is computed in float32, or in float64
if the logits are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gptbook.arguments import checked_integer

Number = int | float


def check_between(value: Number, name: str, low: Number, high: Number, remedy: str) -> None:
    """Raise TypeError or ValueError unless value is a finite number, low to high."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}: {remedy}")
    if not (low <= value <= high and math.isfinite(value)):
        bounds = f"{low:g} to {high:g}" if high < math.inf else f"finite and at least {low:g}"
        raise ValueError(f"{name} must be {bounds}, got {value!r}: {remedy}")


LARGEST_PENALTY = 1e30
"""Larger ones could make logits infinite, and infinity times a count of 0 is NaN."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a token is chosen; the module's text says what each setting does, and in which order.

    The defaults draw from the model's own distribution.

    Attributes:
        temperature: what logits are divided by; 0: greedy.
        top_k: how many ids stay; None: all.
        top_p: the share of the probability that stays; 1: all of it; 0: one id.
        min_p: the least probability that stays, as a share of the largest; 0: any.
        repetition_penalty: for ids in the prompt or behind it; above 1 they become less likely.
        presence_penalty: what an id loses that was written already.
        frequency_penalty: what it loses each time.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """

    temperature: Number = 1.0
    top_k: int | None = None
    top_p: Number = 1.0
    min_p: Number = 0.0
    repetition_penalty: Number = 1.0
    presence_penalty: Number = 0.0
    frequency_penalty: Number = 0.0

    def __post_init__(self) -> None:
        infinity = math.inf
        check_between(self.temperature, "temperature", 0, infinity, "0 is greedy")
        if self.top_k is not None:
            checked_integer(self.top_k, "top_k (None keeps all)", 1)
        check_between(self.top_p, "top_p", 0, 1, "1 keeps all")
        check_between(self.min_p, "min_p", 0, 1, "0 keeps all")
        remedy = "1 changes nothing"
        low, high = 1 / LARGEST_PENALTY, LARGEST_PENALTY
        check_between(self.repetition_penalty, "repetition_penalty", low, high, remedy)
        for name in ("presence_penalty", "frequency_penalty"):
            check_between(getattr(self, name), name, -high, high, "0 changes nothing")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    @property
    def penalizes(self) -> bool:
        """Whether a choice depends on the tokens before it other than through the logits."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1, 0, 0)


class Sample(NamedTuple):
    """What was chosen in each row.

    Attributes:
        ids: the tokens.
        logprobs: log-probability of each under the model: of the logits as they came.
        sampling_logprobs: log-probability of each under the distribution that it was drawn from.
        valid: False: the row was broken, its id means nothing, and its log-probabilities are NaN.
    """

    ids: Int[Tensor, " B"]
    logprobs: Float[Tensor, " B"]
    sampling_logprobs: Float[Tensor, " B"]
    valid: Bool[Tensor, " B"]


def greedy(logits: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
    """Return the id of the largest logit; among equal ones the lowest."""
    return logits.argmax(-1)


def token_logprobs(logits: Float[Tensor, "*B V"], ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Return the log-probability of each id, in nats."""
    chosen = logits.gather(-1, ids[..., None])[..., 0]
    return chosen - logits.logsumexp(-1)


def apply_temperature(logits: Float[Tensor, "*B V"], temperature: Number) -> Float[Tensor, "*B V"]:
    """Return (z - max z) / temperature, which has the probabilities of z / temperature.

    Subtracting first keeps the smallest temperature from giving infinity minus infinity, and a
    temperature beyond what the dtype can hold counts as the last that it can.

    Raises:
        ValueError: temperature is not above 0; greedy choices need no probabilities.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}: use greedy() for 0")
    limits = torch.finfo(logits.dtype)
    divisor = min(max(temperature, limits.tiny), limits.max)
    return (logits - logits.amax(-1, keepdim=True)) / divisor


def keep_first(logits: Float[Tensor, "*B V"], n_kept: Int[Tensor, "*B"]) -> Float[Tensor, "*B V"]:
    """Return the logits with all but the n_kept largest of each row at -inf.

    Of equal ones those with the lower ids come first, so that exactly n_kept stay.
    """
    ids = logits.sort(dim=-1, descending=True, stable=True).indices
    first = torch.arange(logits.shape[-1], device=logits.device) < n_kept[..., None]
    kept = torch.zeros_like(first.expand_as(logits)).scatter(-1, ids, first.expand_as(logits))
    return logits.masked_fill(~kept, -math.inf)


def top_k_filter(logits: Float[Tensor, "*B V"], top_k: int) -> Float[Tensor, "*B V"]:
    """Return the logits with all but the top_k largest at -inf (Fan et al. 2018)."""
    n_kept = torch.full(logits.shape[:-1], top_k, device=logits.device)
    return keep_first(logits, n_kept)


def top_p_filter(logits: Float[Tensor, "*B V"], top_p: Number) -> Float[Tensor, "*B V"]:
    """Return the logits with all but the nucleus at -inf (Holtzman et al. 2020).

    The nucleus is the shortest list of most probable ids that has the probability top_p.
    """
    if top_p >= 1:  # sums of rounded numbers must not decide what belongs to all
        return logits
    falling = logits.sort(dim=-1, descending=True, stable=True).values
    before = probability_before(falling, logits)
    return keep_first(logits, (before < top_p).sum(-1).clamp(min=1))


def probability_before(
    falling: Float[Tensor, "*B N"], logits: Float[Tensor, "*B V"]
) -> Float[Tensor, "*B N"]:
    """Return the probability of all that comes before each of a row's N largest logits.

    The sum over the row is taken in float64. So its order does not matter, and the same ids stay
    whether all of a row is sorted or only its beginning.
    """
    total = logits.double().logsumexp(-1, keepdim=True).to(logits.dtype)
    probabilities = (falling - total).exp()
    return probabilities.cumsum(-1) - probabilities


def min_p_filter(logits: Float[Tensor, "*B V"], min_p: Number) -> Float[Tensor, "*B V"]:
    """Return the logits with ids below min_p of the largest probability at -inf.

    Source: Nguyen et al. (2024).
    """
    if min_p == 0:
        return logits
    bound = logits.amax(-1, keepdim=True) + math.log(min_p)
    return logits.masked_fill(logits < bound, -math.inf)


def penalize_repetition(
    logits: Float[Tensor, "*B V"], occurs: Bool[Tensor, "*B V"], penalty: Number
) -> Float[Tensor, "*B V"]:
    """Return the logits with those of ids that occur made smaller (Keskar et al. 2019)."""
    smaller = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(occurs, smaller, logits)


def penalize_counts(
    logits: Float[Tensor, "*B V"], counts: Int[Tensor, "*B V"], presence: Number, frequency: Number
) -> Float[Tensor, "*B V"]:
    """Return the logits less presence for each id with a count, and frequency for each time."""
    return logits - presence * (counts > 0) - frequency * counts


class History(NamedTuple):
    """What penalties look at.

    Attributes:
        occurs: which ids occur in each row, the prompt included.
        counts: how often each was written behind the prompt.
    """

    occurs: Bool[Tensor, "B V"]
    counts: Int[Tensor, "B V"]


def history_of(
    prompts: list[list[int]], written: list[list[int]], vocab_size: int, device: torch.device
) -> History:
    """Return the history of rows of ids."""
    occurs = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
    counts = torch.zeros(len(prompts), vocab_size, dtype=torch.int64)
    for row, (before, behind) in enumerate(zip(prompts, written, strict=True)):
        counts[row] = torch.bincount(torch.tensor(behind, dtype=torch.int64), minlength=vocab_size)
        occurs[row, before] = True
    return History((occurs | (counts > 0)).to(device), counts.to(device))


def broken_rows(logits: Float[Tensor, "B V"]) -> Bool[Tensor, " B"]:
    """Return which rows hold NaN or +inf, or nothing above -inf."""
    highest = logits.amax(-1)  # NaN if there is one
    return ~highest.isfinite()


def prepared_logits(
    logits: Float[Tensor, "B V"],
    config: SamplingConfig,
    history: History | None = None,
    allowed: Bool[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B V"]:
    """Return logits behind steps 1 to 3 of the contract: what a greedy choice is made from.

    Broken rows come back with one or more zeros among -inf, so that all that follows is defined.

    Raises:
        ValueError: a penalty is set and history is None.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if allowed is not None:
        z = z.masked_fill(~allowed, -math.inf)
    if config.penalizes:
        if history is None:
            raise ValueError("a penalty is set, and history is None: see history_of")
        z = penalize_repetition(z, history.occurs, config.repetition_penalty)
        z = penalize_counts(z, history.counts, config.presence_penalty, config.frequency_penalty)
    broken = broken_rows(z)[:, None]
    if not broken.any():
        return z
    numbers = z.masked_fill(z.isnan(), -math.inf)
    mended = torch.where(numbers == numbers.amax(-1, keepdim=True), 0.0, -math.inf)
    return torch.where(broken, mended, z)


def filtered_logits(
    logits: Float[Tensor, "B V"],
    config: SamplingConfig,
    history: History | None = None,
    allowed: Bool[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B V"]:
    """Return the logits of the distribution that is drawn from: steps 1 to 7 of the contract.

    Of a greedy choice it is 0 for one id and -inf for all others.
    """
    z = prepared_logits(logits, config, history, allowed)
    if config.greedy:
        one = torch.full_like(z, -math.inf)
        return one.scatter(-1, greedy(z)[..., None], 0.0)
    z = apply_temperature(z, config.temperature)
    if config.top_k is not None:
        z = top_k_filter(z, config.top_k)
    return min_p_filter(top_p_filter(z, config.top_p), config.min_p)


PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_STEPS = (0x9E3779B9, 0xBB67AE85)
"""What the two halves of the key grow by from round to round."""
WORD = 0xFFFFFFFF

TOKEN_STREAM, ACCEPT_STREAM, RESIDUAL_STREAM, DRAFT_STREAM = range(4)
"""The last word of the counter: uses of randomness at one position that must not depend."""


def philox(
    key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four random words for each counter: Philox4x32-10 (Salmon et al. 2011).

    All words are ints from 0 to 2^32 - 1 in int64 tensors; their shapes are broadcast.
    """
    a, b, c, d = counter
    first, second = key
    for _ in range(10):
        p, q = PHILOX_MULTIPLIERS[0] * a, PHILOX_MULTIPLIERS[1] * c  # 64 bits, which may wrap
        a, b, c, d = (
            (q >> 32 & WORD) ^ b ^ first,
            q & WORD,
            (p >> 32 & WORD) ^ d ^ second,
            p & WORD,
        )
        first, second = first + PHILOX_STEPS[0] & WORD, second + PHILOX_STEPS[1] & WORD
    return a, b, c, d


def seed_tensor(seeds: list[int], device: torch.device | str = "cpu") -> Int[Tensor, " B"]:
    """Return seeds, 0 to 2^64 - 1, as int64, the upper half as negative numbers.

    Raises:
        TypeError: a seed is no int.
        ValueError: a seed is out of range.
    """
    for seed in seeds:
        if checked_integer(seed, "seed", 0) >= 2**64:
            raise ValueError(f"seed must be below 2^64, got {seed}")
    signed = [seed - 2**64 if seed >= 2**63 else seed for seed in seeds]
    return torch.tensor(signed, dtype=torch.int64, device=device)


def random_words(
    seeds: Int[Tensor, " B"],
    positions: Int[Tensor, " B"],
    ids: Int[Tensor, "B N"],
    stream: int = TOKEN_STREAM,
) -> Int[Tensor, "B N"]:
    """Return a random word for each row's ids: word id % 4 of block id // 4 of its position."""
    seeds, positions = seeds[:, None], positions[:, None].long()
    words = philox(
        (seeds & WORD, seeds >> 32 & WORD),
        (ids >> 2, positions & WORD, positions >> 32 & WORD, torch.full_like(seeds, stream)),
    )
    return torch.stack(words, -1).gather(-1, (ids & 3)[..., None])[..., 0]


def all_random_words(
    seeds: Int[Tensor, " B"],
    positions: Int[Tensor, " B"],
    n_ids: int,
    stream: int = TOKEN_STREAM,
) -> Int[Tensor, "B N"]:
    """Return what `random_words` does for the ids 0 to n_ids - 1, each block made once."""
    blocks = torch.arange(-(-n_ids // 4), device=seeds.device)[None]
    seeds, positions = seeds[:, None], positions[:, None].long()
    words = philox(
        (seeds & WORD, seeds >> 32 & WORD),
        (blocks, positions & WORD, positions >> 32 & WORD, torch.full_like(seeds, stream)),
    )
    return torch.stack(words, -1).flatten(-2)[:, :n_ids]


def gumbel(words: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return Gumbel noise, -log(-log(1 - u)), where u is a word scaled to numbers from 0 to 1.

    With 1 - u in the formula the largest noise, which decides, comes of the smallest u, where
    floating point is finest. It lies between -2.9 and 22.9.
    """
    u = ((words.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    return -(-(-u).log1p()).log()


def uniform(
    seeds: Int[Tensor, " B"], positions: Int[Tensor, " B"], stream: int
) -> Float[Tensor, " B"]:
    """Return a number from 0 to 1, both excluded, for each row."""
    words = random_words(seeds, positions, torch.zeros_like(seeds)[:, None], stream)[:, 0]
    return (words.double() + 0.5) * 2.0**-32


def sample_reference(
    logits: Float[Tensor, "B V"],
    config: SamplingConfig,
    *,
    seeds: Int[Tensor, " B"],
    positions: Int[Tensor, " B"],
    history: History | None = None,
    allowed: Bool[Tensor, "B V"] | None = None,
    stream: int = TOKEN_STREAM,
) -> Sample:
    """Choose a token in each row as the contract says, step by step: the slow twin of `sample`."""
    z = filtered_logits(logits, config, history, allowed)
    noise = gumbel(all_random_words(seeds, positions, z.shape[-1], stream))
    ids = greedy(z) if config.greedy else greedy(z + noise)
    return reported(logits, allowed, ids, token_logprobs(z, ids))


def reported(
    logits: Tensor, allowed: Tensor | None, ids: Tensor, sampling_logprobs: Tensor
) -> Sample:
    """Return a Sample, with what is to be said of broken rows."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logprobs = token_logprobs(z, ids)
    broken = ~logprobs.isfinite()  # so are those of NaN, +inf, and nothing above -inf
    if allowed is not None:
        broken |= ~(allowed & (z > -math.inf)).any(-1)
    return Sample(
        ids,
        logprobs.masked_fill(broken, math.nan),
        sampling_logprobs.to(z.dtype).masked_fill(broken, math.nan),
        ~broken,
    )


FEW = 128
"""So many of the most probable ids are tried first, where top_k does not say how many."""


def sample(
    logits: Float[Tensor, "B V"],
    config: SamplingConfig,
    *,
    seeds: Int[Tensor, " B"],
    positions: Int[Tensor, " B"],
    history: History | None = None,
    allowed: Bool[Tensor, "B V"] | None = None,
    stream: int = TOKEN_STREAM,
) -> Sample:
    """Choose a token in each row, as `sample_reference` does.

    In falling order each filter keeps a beginning of the row. So if one of them keeps few ids, only
    those are sorted, and only they need noise.

    Args:
        logits: of any float type.
        config: the settings.
        seeds: see `seed_tensor`.
        positions: how many tokens each row has, prompt included: the place of the new one.
        history: for penalties, see `history_of`.
        allowed: the ids that may be chosen; None: all.
        stream: which of several independent uses of randomness at a position.
    """
    z = prepared_logits(logits, config, history, allowed)
    if config.greedy:
        ids = greedy(z)
        return reported(logits, allowed, ids, torch.zeros_like(z[:, 0]))
    z = apply_temperature(z, config.temperature)
    found = _few_candidates(z, config)
    if found is None:
        return sample_reference(
            logits, config, seeds=seeds, positions=positions, history=history,
            allowed=allowed, stream=stream,
        )  # fmt: skip
    kept, candidates = found
    noise = gumbel(random_words(seeds, positions, candidates, stream))
    place = greedy(kept + noise)
    ids = candidates.gather(-1, place[:, None])[:, 0]
    return reported(logits, allowed, ids, token_logprobs(kept, place))


def _few_candidates(z: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor] | None:
    """Return the largest logits behind all filters, and their ids, or None if they may be many."""
    width = min(config.top_k or FEW, z.shape[-1])
    if config.top_k is None and (z.shape[-1] <= FEW or (config.top_p >= 1 and config.min_p == 0)):
        return None
    values, ids = _largest(z, width)
    kept = torch.ones_like(values, dtype=torch.bool)
    if config.top_p < 1:  # of what top_k has left
        kept &= probability_before(values, z if config.top_k is None else values) < config.top_p
    if config.min_p > 0:
        kept &= values >= values[:, :1] + math.log(config.min_p)
    kept[:, 0] = True
    if config.top_k is None and kept[:, -1].any():
        return None  # there may be more behind them
    return values.masked_fill(~kept, -math.inf), ids


def _largest(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row and their ids, falling; of equal ones the lower ids."""
    values, ids = z.topk(k, -1, sorted=False)
    bound = values.amin(-1, keepdim=True)
    equal = z == bound
    if equal.sum() > (values == bound).sum():  # topk left out some that are equal: the lower first
        room = (values == bound).sum(-1, keepdim=True)
        taken = (z > bound) | (equal & (equal.cumsum(-1) <= room))
        ids = taken.nonzero()[:, 1].view(-1, k)
    ids = ids.sort(-1).values
    values, order = z.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)
