# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Search for the most probable texts that a model could write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gptbook.arguments import checked_integer
from gptbook.model import GPT
from gptbook.readers import Evaluating, last_logits, make_cache, select_rows
from gptbook.sampling import broken_rows


class Beam(NamedTuple):
    """One of the texts that a beam search found.

    Attributes:
        ids: the new tokens, with the end-of-text token if it has ended.
        logprob: of all of them under the model, in nats.
        score: logprob / len(ids)^length_penalty, which the beams are ordered by.
        finished: whether it has ended.
    """

    ids: tuple[int, ...]
    logprob: float
    score: float
    finished: bool


def beam_search(
    model: GPT,
    prompt: Sequence[int],
    n_beams: int,
    max_new_tokens: int,
    *,
    end_ids: Sequence[int] = (),
    length_penalty: float | int = 1.0,
) -> list[Beam]:
    """Return the n_beams best texts that a beam search finds behind a prompt, the best first.

    At each step each beam is continued with every token, and the best n_beams of these go on. It
    ends when no beam that goes on could still come among the best.

    Args:
        model: the model.
        prompt: ids, at least one; with what is written at most context_length + 1.
        n_beams: how many beams go on.
        max_new_tokens: the most tokens that are written.
        end_ids: tokens that end a beam.
        length_penalty: 0 compares log-probabilities, which favors short texts; 1 compares the mean
            for each token.

    Raises:
        ValueError: a number is below 1, the prompt is empty, or the logits are broken.
        CacheFullError: prompt and new tokens exceed the model's context.
    """
    checked_integer(n_beams, "n_beams", 1)
    checked_integer(max_new_tokens, "max_new_tokens", 1)
    if not prompt:
        raise ValueError("prompt is empty: give at least one id, such as the end-of-text token")

    def beam(ids: tuple[int, ...], logprob: float, finished: bool) -> Beam:
        return Beam(ids, logprob, logprob / len(ids) ** length_penalty, finished)

    live, done = [Beam((), 0.0, 0.0, False)], list[Beam]()
    with Evaluating(model):
        cache = make_cache(model, 1, len(prompt) + max_new_tokens)
        logits = last_logits(model, [prompt], cache)
        for _ in range(max_new_tokens):
            parents, grown = _continued(live, logits, n_beams + len(end_ids) * n_beams)
            place = [i for i, ids in enumerate(grown) if ids[0][-1] not in end_ids][:n_beams]
            n_better = place[-1] if len(place) == n_beams else len(grown)
            done += [beam(*grown[i], True) for i in range(n_better) if i not in place]
            done = sorted(done, key=lambda found: -found.score)[:n_beams]
            live = [beam(*grown[i], False) for i in place]
            longest = len(live[0].ids) if length_penalty < 0 else max_new_tokens
            hope = max(one.logprob for one in live) / longest**length_penalty
            if len(live[0].ids) == max_new_tokens or (
                len(done) == n_beams and done[-1].score >= hope
            ):
                break
            cache = select_rows(cache, [parents[i] for i in place])
            logits = last_logits(model, [one.ids[-1:] for one in live], cache)
    return sorted(done + live, key=lambda found: -found.score)[:n_beams]


def _continued(
    beams: list[Beam], logits: Tensor, n_best: int
) -> tuple[list[int], list[tuple[tuple[int, ...], float]]]:
    """Return the best continuations by a token, best first: parents, and ids with log-probability.

    The lower parent and then the lower id goes first where two are equal.
    """
    if broken_rows(logits).any():
        raise ValueError("the model's logits hold NaN or are infinite: check its weights")
    so_far = torch.tensor([one.logprob for one in beams], dtype=torch.float64)
    logprobs = logits.double().log_softmax(-1).cpu() + so_far[:, None]
    flat = logprobs.flatten()
    best = flat.sort(descending=True, stable=True).indices[: min(n_best, len(flat))].tolist()
    vocab_size = logprobs.shape[1]
    parents = [place // vocab_size for place in best]
    return parents, [
        ((*beams[parent].ids, place % vocab_size), float(flat[place]))
        for parent, place in zip(parents, best, strict=True)
    ]
