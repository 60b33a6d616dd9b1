# Exported from chapters/07_speculative.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Speculative decoding: a cheap guess of several tokens, checked by the model in one call.

What is written has exactly the distribution of what the model would write alone (Leviathan et al.
2023; Chen et al. 2023), or, with method "same noise", is token for token the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gptbook.arguments import checked_integer
from gptbook.config import check_choice
from gptbook.generation import FinishReason, GenerationConfig, Row, Writer
from gptbook.kv_cache import KVCache
from gptbook.model import GPT
from gptbook.readers import Evaluating, make_cache
from gptbook.sampling import (
    ACCEPT_STREAM,
    DRAFT_STREAM,
    RESIDUAL_STREAM,
    TOKEN_STREAM,
    all_random_words,
    broken_rows,
    filtered_logits,
    greedy,
    gumbel,
    seed_tensor,
    token_logprobs,
    uniform,
)
from gptbook.tokenizer import BPETokenizer

Method = Literal["rejection", "same noise"]


class Draft(NamedTuple):
    """Tokens that may come next.

    Attributes:
        ids: the guess.
        probabilities: (N, V), the distribution that each of the N tokens was drawn from; None: they
            were not drawn, as if each had the probability 1.
    """

    ids: list[int]
    probabilities: Tensor | None = None


@runtime_checkable
class Drafter(Protocol):
    """Makes guesses."""

    def propose(self, writer: Writer, row: Row, n_tokens: int, method: Method) -> Draft:
        """Return at most n_tokens to follow a row."""
        ...


def draw(
    probabilities: Float[Tensor, " V"], seed: int, position: int, stream: int = TOKEN_STREAM
) -> int:
    """Return an id drawn from a distribution, which need not sum to 1."""
    seeds, positions = seed_tensor([seed]), torch.tensor([position])
    noise = gumbel(all_random_words(seeds, positions, len(probabilities), stream))[0]
    return int(greedy(probabilities.log() + noise.to(probabilities.device)))


def verify(
    target: Float[Tensor, "M V"],
    draft: Float[Tensor, "N V"],
    guesses: Sequence[int],
    *,
    seed: int,
    position: int,
) -> list[int]:
    """Return the guesses that are accepted, and one token more.

    A guess x is accepted with probability min(1, p(x) / q(x)). At the first that is not, the one
    more is drawn from what p has and q has not, max(p - q, 0); if all are accepted, from the next
    p. Either way each token has the distribution p, given those before it.

    Args:
        target: p, the model's distribution at each place and at the one behind the guesses.
        draft: q, the distributions that the guesses were drawn from.
        guesses: the N = M - 1 guesses.
        seed: of the row.
        position: the place of the first guess in the row.

    Source: Leviathan et al. (2023), algorithm 1.
    """
    accepted: list[int] = []
    for place, guess in enumerate(guesses):
        p, q = target[place], draft[place]
        where = (seed_tensor([seed]), torch.tensor([position + place]))
        if float(uniform(*where, ACCEPT_STREAM)) * float(q[guess]) < float(p[guess]):
            accepted.append(guess)
            continue
        missing = (p - q).clamp(min=0)
        rest = missing if missing.any() else p  # p and q differ by rounding only
        return [*accepted, draw(rest, seed, position + place, RESIDUAL_STREAM)]
    return [*accepted, draw(target[-1], seed, position + len(guesses))]


@dataclass(frozen=True)
class Speculated:
    """What `speculate` wrote.

    Attributes:
        ids: the new tokens.
        text: their text; empty without a tokenizer.
        logprobs: of each token under the model.
        finish_reason: why it ended.
        n_guessed: how many tokens were guessed.
        n_accepted: how many of them were accepted.
        n_calls: how often the model was called.
    """

    ids: list[int]
    text: str
    logprobs: list[float]
    finish_reason: FinishReason
    n_guessed: int
    n_accepted: int
    n_calls: int

    @property
    def acceptance_rate(self) -> float:
        """The share of the guesses that were accepted; NaN if there were none."""
        return self.n_accepted / self.n_guessed if self.n_guessed else float("nan")


@torch.no_grad()
def read_all(model: GPT, ids: Sequence[int], cache: KVCache) -> Float[Tensor, "T V"]:
    """Read ids behind what a cache of one row holds; return the logits that follow each."""
    row = torch.tensor([list(ids)], device=model.tokens.weight.device)
    logits = model.unembed(model.hidden_states(row, kv_cache=cache))[0]
    cache.advance(len(ids))
    return logits


def probabilities_after(
    writer: Writer, row: Row, logits: Float[Tensor, "M V"], guesses: Sequence[int]
) -> Float[Tensor, "M V"]:
    """Return the distributions to draw from behind a row, behind its first guess, and so on."""
    rows = [replace(row, ids=[*row.ids, *guesses[:n]]) for n in range(len(logits))]
    found = filtered_logits(logits, writer.config, writer.history(rows), writer.allowed(rows))
    return found.double().softmax(-1)


def speculate(
    model: GPT,
    prompt: str | Sequence[int],
    drafter: Drafter,
    config: GenerationConfig | None = None,
    *,
    n_guesses: int = 4,
    tokenizer: BPETokenizer | None = None,
    method: Method = "rejection",
) -> Speculated:
    """Write behind a prompt as `generate` does, with fewer calls of the model.

    Args:
        model: the model.
        prompt: a text, or ids.
        drafter: makes the guesses.
        config: the settings; overflow must be "stop".
        n_guesses: how many tokens are guessed at a time.
        tokenizer: for text.
        method: "rejection" accepts a guess as often as possible: with probability 1 - d, where d is
            the total variation distance of the two distributions. "same noise" accepts it if it is
            the token that `generate` would write at this place, so that the text is the same.

    Raises:
        ValueError: see `generate`; or overflow is "slide", or n_guesses below 1.
    """
    config = config or GenerationConfig()
    check_choice(method, "method", Method)
    checked_integer(n_guesses, "n_guesses", 1)
    if config.overflow != "stop":
        raise ValueError("overflow must be 'stop' here: guesses are read into one whole cache")
    writer = Writer(model, config, tokenizer)
    row = writer.row(prompt, config.seed)
    limit = model.config.context_length
    cache = make_cache(model, 1, min(limit, len(row.prompt) + config.max_new_tokens))
    guessed = accepted = calls = 0
    if config.max_new_tokens == 0:
        writer.end(row, "length")
    with Evaluating(model):
        while row.finish_reason is None:
            so_far = [*row.prompt, *row.ids]
            room = min(config.max_new_tokens - len(row.ids) - 1, limit - len(so_far), n_guesses)
            draft = drafter.propose(writer, row, room, method) if room > 0 else Draft([])
            unread = [*so_far[cache.lengths[0] :], *draft.ids]
            logits = read_all(model, unread, cache)[-1 - len(draft.ids) :]
            tokens = _checked(writer, row, logits, draft, method)
            _add(writer, row, logits, tokens)
            calls += 1
            guessed += len(draft.ids)
            accepted += max(len(tokens) - 1, 0)
            cache.truncate(min(cache.lengths[0], len(row.prompt) + len(row.ids) - 1))
    assert row.finish_reason is not None
    text = row.text.text if tokenizer is not None else ""
    return Speculated(row.ids, text, row.logprobs, row.finish_reason, guessed, accepted, calls)


def _checked(writer: Writer, row: Row, logits: Tensor, draft: Draft, method: Method) -> list[int]:
    """Return the tokens that follow the row: accepted guesses, and one more."""
    p = probabilities_after(writer, row, logits, draft.ids)
    position = len(row.prompt) + len(row.ids)
    if method == "rejection":
        q = draft.probabilities
        if q is None:
            q = torch.nn.functional.one_hot(torch.tensor(draft.ids).long(), p.shape[-1]).to(p)
        return verify(p, q, draft.ids, seed=row.seed, position=position)
    tokens: list[int] = []
    for place, distribution in enumerate(p):
        tokens.append(draw(distribution, row.seed, position + place))
        if tokens[-1:] != draft.ids[place : place + 1]:
            break
    return tokens


def _add(writer: Writer, row: Row, logits: Tensor, tokens: list[int]) -> None:
    """Add tokens to the row until it ends."""
    p = probabilities_after(writer, row, logits, tokens[:-1])[: len(tokens)]
    chosen = torch.tensor(tokens, device=logits.device)
    logprobs = token_logprobs(logits[: len(tokens)], chosen).tolist()
    sampling_logprobs = token_logprobs(p.log(), chosen).tolist()
    broken = broken_rows(logits).tolist()
    for place, token in enumerate(tokens):
        if broken[place]:
            writer.end(row, "invalid")
        else:
            writer.add(row, token, logprobs[place], sampling_logprobs[place])
        if row.finish_reason is not None:
            return


class DraftModel:
    """Guesses with a smaller model of the same vocabulary."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.cache: KVCache | None = None
        self.read: list[int] = []  # what the cache holds

    def propose(self, writer: Writer, row: Row, n_tokens: int, method: Method) -> Draft:
        """Draw n_tokens one by one, with the settings of the text.

        Raises:
            ValueError: the model has another vocabulary.
        """
        vocab_size, wanted = self.model.config.vocab_size, writer.model.config.vocab_size
        if vocab_size != wanted:
            raise ValueError(f"the draft model has {vocab_size} ids, and the model {wanted}")
        stream = DRAFT_STREAM if method == "rejection" else TOKEN_STREAM
        so_far, guesses, found = [*row.prompt, *row.ids], list[int](), list[Tensor]()
        with Evaluating(self.model):
            for _ in range(min(n_tokens, self.model.config.context_length - len(so_far) + 1)):
                logits = self._next_logits([*so_far, *guesses])
                grown = replace(row, ids=[*row.ids, *guesses])
                found.append(probabilities_after(writer, grown, logits[None], [])[0])
                guesses.append(draw(found[-1], row.seed, len(so_far) + len(guesses), stream))
        return Draft(guesses, torch.stack(found) if found else None)

    def _next_logits(self, ids: list[int]) -> Tensor:
        """Read what is new in ids, after forgetting what is not in them any more."""
        if self.cache is None:
            self.cache = make_cache(self.model, 1, self.model.config.context_length)
        same = 0
        while same < min(len(self.read), len(ids) - 1) and self.read[same] == ids[same]:
            same += 1
        self.cache.truncate(same)
        self.read = list(ids)
        return read_all(self.model, ids[same:], self.cache)[-1]


class LookBack:
    """Guesses that what followed these tokens before follows them again.

    Source: Saxena (2023), prompt lookup decoding.
    """

    def __init__(self, longest: int = 4, shortest: int = 1) -> None:
        """Set how many of the last tokens have to occur before: longest if possible."""
        self.longest = checked_integer(longest, "longest", 1)
        self.shortest = checked_integer(shortest, "shortest", 1)

    def propose(self, writer: Writer, row: Row, n_tokens: int, method: Method) -> Draft:
        """Return what followed the latest earlier occurrence of the last tokens."""
        return Draft(self.found([*row.prompt, *row.ids], n_tokens))

    def found(self, ids: list[int], n_tokens: int) -> list[int]:
        """Return at most n_tokens that may follow ids."""
        for size in range(min(self.longest, len(ids) - 1), self.shortest - 1, -1):
            pattern = ids[-size:]
            for start in range(len(ids) - size - 1, -1, -1):
                if ids[start : start + size] == pattern:
                    return ids[start + size : start + size + n_tokens]
        return []
