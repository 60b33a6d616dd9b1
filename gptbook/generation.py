# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Write text with a model: prompts in, ids and text out, in batches and streams.

A row is one prompt and what is written behind it. What happens to a row depends on its own prompt,
seed and settings alone, whatever other rows there are: each ends when it wants to, and leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from gptbook.arguments import checked_integer
from gptbook.config import check_choice
from gptbook.model import GPT
from gptbook.readers import CachedReader, Evaluating, Reader, RollingReader
from gptbook.sampling import History, Sample, SamplingConfig, history_of, sample, seed_tensor
from gptbook.text_stream import TextStream
from gptbook.token_shards import END_OF_TEXT
from gptbook.tokenizer import BPETokenizer

FinishReason = Literal["end", "stop", "length", "context", "constraint", "invalid"]
"""Why a row ended: an end-of-text token, a stop string, max_new_tokens, the model's context, a
constraint that nothing can follow, or logits that nothing can be drawn from."""

Overflow = Literal["stop", "slide"]


@dataclass(frozen=True)
class GenerationConfig(SamplingConfig):
    """How text is written. The first settings are those of `SamplingConfig`.

    Attributes:
        max_new_tokens: the most tokens that are written.
        stop: strings that end a row; its text ends before the first that is complete, wherever the
            borders of tokens are.
        end_ids: ids that end a row, which are no part of its text; None: the tokenizer's
            end-of-text token, if there is one.
        overflow: what happens at the end of the model's context. "stop": the row ends; "slide":
            it goes on, and the model sees its newer part.
        seed: of all rows, unless `generate` is given one for each.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """

    max_new_tokens: int = 128
    stop: str | Sequence[str] = ()
    end_ids: Sequence[int] | None = None
    overflow: Overflow = "stop"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_integer(self.max_new_tokens, "max_new_tokens", 0)
        check_choice(self.overflow, "overflow", Overflow)
        seed_tensor([self.seed])
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        for text in stops:
            if not isinstance(text, str):
                raise TypeError(f"stop must be a list of str, got {self.stop!r}")
            if not text:
                raise ValueError("stop holds an empty string, which would end every row at once")
        object.__setattr__(self, "stop", stops)
        if self.end_ids is not None:
            ids = tuple(checked_integer(token, "end_ids", 0) for token in self.end_ids)
            object.__setattr__(self, "end_ids", ids)


@runtime_checkable
class Constraint(Protocol):
    """Says which tokens may follow; see "Only what fits". States are ints, the first is 0."""

    def allowed(self, state: int) -> NDArray[np.bool_]:
        """Return for each of the tokenizer's ids whether it may follow."""
        ...

    def advance(self, state: int, token: int) -> int:
        """Return the state behind a token that was allowed."""
        ...

    def complete(self, state: int) -> bool:
        """Return whether the text may end here."""
        ...


@dataclass
class Row:
    """A prompt and what was written behind it so far."""

    prompt: list[int]
    seed: int
    text: TextStream
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampling_logprobs: list[float] = field(default_factory=list)
    state: int = 0  # of the constraint
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Generated:
    """What `generate` wrote, row by row.

    Attributes:
        ids: the new tokens; an end-of-text token and those of a stop string are among them.
        texts: their text, up to a stop string or end-of-text token; empty without a tokenizer.
        logprobs: of each token under the model, in nats.
        sampling_logprobs: of each token under the distribution that it was drawn from.
        finish_reasons: why each row ended.
    """

    ids: list[list[int]]
    texts: list[str]
    logprobs: list[list[float]]
    sampling_logprobs: list[list[float]]
    finish_reasons: list[FinishReason]


class Writer:
    """Chooses and adds tokens by a configuration: all that `generate` and `stream` share."""

    def __init__(
        self,
        model: GPT,
        config: GenerationConfig,
        tokenizer: BPETokenizer | None = None,
        constraint: Constraint | None = None,
        *,
        cached: bool = True,
    ) -> None:
        """Take the arguments of `generate`."""
        if tokenizer is None and (config.stop or constraint is not None):
            raise ValueError("stop strings and constraints are about text: give a tokenizer")
        self.model, self.config, self.tokenizer = model, config, tokenizer
        self.constraint, self.cached = constraint, cached
        self.end_ids = end_ids_of(config, tokenizer)
        self.device = model.tokens.weight.device

    def row(self, prompt: str | Sequence[int], seed: int) -> Row:
        """Return a row for a prompt.

        Raises:
            ValueError: a str without a tokenizer, an id that the model has not, an empty prompt
                where there is no end-of-text token to begin a text with, or one that is longer
                than the context, while overflow is "stop".
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise ValueError("a prompt is a str: give a tokenizer, or ids")
            prompt = self.tokenizer.encode(prompt)
        ids = [checked_integer(token, "an id of a prompt", 0) for token in prompt] or [
            *self.end_ids[:1]
        ]
        if not ids:
            raise ValueError("a prompt is empty, and there is no end-of-text token to begin with")
        vocab_size, limit = self.model.config.vocab_size, self.model.config.context_length
        if max(ids) >= vocab_size:
            raise ValueError(f"a prompt has the id {max(ids)}, but the model has {vocab_size} ids")
        if len(ids) > limit and self.config.overflow == "stop":
            raise ValueError(
                f"a prompt has {len(ids)} tokens, but the model reads {limit} (context_length): "
                "shorten it, or set overflow='slide', to have the model see its end only"
            )
        return Row(ids, seed, TextStream(self.config.stop))

    def write(self, rows: list[Row]) -> Iterator[None]:
        """Write until all rows have ended; yield after each step, in which each gets a token."""
        live = list(rows)
        for row in live if self.config.max_new_tokens == 0 else ():
            row.finish_reason = "length"
        if self.config.max_new_tokens == 0:
            return
        reader = self._reader(live)
        logits = reader.read([row.prompt for row in live])
        while True:
            self._add(live, self._choose(live, logits))
            yield
            going = [place for place, row in enumerate(live) if row.finish_reason is None]
            if not going:
                return
            if len(going) < len(live):
                reader.keep(going)
                live = [live[place] for place in going]
            logits = reader.read([row.ids[-1:] for row in live])

    def _reader(self, rows: list[Row]) -> Reader:
        capacity = max(len(row.prompt) for row in rows) + self.config.max_new_tokens
        beyond = capacity > self.model.config.context_length and self.config.overflow == "slide"
        if beyond and RollingReader.can_serve(self.model):
            return RollingReader(self.model, len(rows), cached=self.cached)
        if not self.cached:
            return Reader(self.model, len(rows))
        return CachedReader(self.model, len(rows), capacity)

    def _choose(self, rows: list[Row], logits: Tensor) -> Sample:
        places = [len(row.prompt) + len(row.ids) for row in rows]
        return sample(
            logits,
            self.config,
            seeds=seed_tensor([row.seed for row in rows], self.device),
            positions=torch.tensor(places, device=self.device),
            history=self.history(rows),
            allowed=self.allowed(rows),
        )

    def history(self, rows: list[Row]) -> History | None:
        """Return what the penalties look at, if there are any."""
        if not self.config.penalizes:
            return None
        prompts, written = [row.prompt for row in rows], [row.ids for row in rows]
        return history_of(prompts, written, self.model.config.vocab_size, self.device)

    def allowed(self, rows: list[Row]) -> Bool[Tensor, "B V"] | None:
        """Return what the constraint allows; an id that the tokenizer has not is never written."""
        vocab_size = self.model.config.vocab_size
        known = vocab_size if self.tokenizer is None else self.tokenizer.vocab_size
        if self.constraint is None and known >= vocab_size:
            return None
        allowed = torch.zeros(len(rows), vocab_size, dtype=torch.bool)
        for place, row in enumerate(rows):
            if self.constraint is None:
                allowed[place, :known] = True
                continue
            follows = torch.as_tensor(self.constraint.allowed(row.state))[:vocab_size]
            allowed[place, : len(follows)] = follows
            allowed[place, list(self.end_ids)] = self.constraint.complete(row.state)
        return allowed.to(self.device)

    def _add(self, rows: list[Row], chosen: Sample) -> None:
        columns = [column.tolist() for column in chosen]
        for row, token, logprob, sampling_logprob, valid in zip(rows, *columns, strict=True):
            if valid:
                self.add(row, token, logprob, sampling_logprob)
            else:
                self.end(row, "invalid")

    def add(self, row: Row, token: int, logprob: float, sampling_logprob: float) -> None:
        """Add a token to a row, and end the row if it ends with that."""
        row.ids.append(token)
        row.logprobs.append(logprob)
        row.sampling_logprobs.append(sampling_logprob)
        reason = self._finish_reason(row, token)
        if reason is not None:
            self.end(row, reason)

    def end(self, row: Row, reason: FinishReason) -> None:
        """End a row."""
        row.finish_reason = reason
        row.text.finish()

    def _finish_reason(self, row: Row, token: int) -> FinishReason | None:
        """Add a token to the text and the constraint's state, and return why the row ends here."""
        if token in self.end_ids:
            return "end"
        if self.tokenizer is not None:
            row.text.push(self.tokenizer.decode_bytes([token]))
        if row.text.stopped:
            return "stop"
        if self.constraint is not None:
            row.state = self.constraint.advance(row.state, token)
            more = self.constraint.allowed(row.state).any()
            if self.constraint.complete(row.state) and not more:
                return "constraint"
        if len(row.ids) >= self.config.max_new_tokens:
            return "length"
        full = len(row.prompt) + len(row.ids) > self.model.config.context_length
        return "context" if full and self.config.overflow == "stop" else None


def end_ids_of(config: GenerationConfig, tokenizer: BPETokenizer | None) -> tuple[int, ...]:
    """Return the ids that end a row."""
    if config.end_ids is not None:
        return tuple(config.end_ids)
    special = {} if tokenizer is None else tokenizer.special_tokens
    return (special[END_OF_TEXT],) if END_OF_TEXT in special else ()


def generate(
    model: GPT,
    prompts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
    config: GenerationConfig | None = None,
    *,
    tokenizer: BPETokenizer | None = None,
    seeds: Sequence[int] | None = None,
    constraint: Constraint | None = None,
    cached: bool = True,
) -> Generated:
    """Write behind each prompt.

    A row's tokens depend on its prompt and seed alone, not on the other rows. So the same prompt
    twice gives the same text twice; for different ones give seeds.

    Args:
        model: the model.
        prompts: texts, or lists of ids; one alone is a batch of one row. An empty one begins a
            text: it stands for the end-of-text token.
        config: the settings; None: the defaults.
        tokenizer: for texts, stop strings and constraints. Special tokens in a text are text.
        seeds: one for each row; None: config.seed for all.
        constraint: which tokens may follow.
        cached: False: read each whole row again for each token, which gives the same, slowly.

    Raises:
        TypeError: a prompt is neither text nor ids.
        ValueError: see `Writer.row`; or seeds has another length than prompts.
    """
    config = config or GenerationConfig()
    listed = as_list(prompts)
    seeds = [config.seed] * len(listed) if seeds is None else list(seeds)
    if len(seeds) != len(listed):
        raise ValueError(f"seeds has {len(seeds)} numbers, but there are {len(listed)} prompts")
    seed_tensor(seeds)
    writer = Writer(model, config, tokenizer, constraint, cached=cached)
    rows = [writer.row(prompt, seed) for prompt, seed in zip(listed, seeds, strict=True)]
    with Evaluating(model):
        for _ in writer.write(rows) if rows else ():
            pass
    return Generated(
        [row.ids for row in rows],
        [row.text.text for row in rows] if tokenizer is not None else [],
        [row.logprobs for row in rows],
        [row.sampling_logprobs for row in rows],
        [row.finish_reason for row in rows if row.finish_reason is not None],
    )


def as_list(
    prompts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
) -> list[str | Sequence[int]]:
    """Return prompts as a list of texts or lists of ids.

    Raises:
        TypeError: a prompt is neither.
    """
    if isinstance(prompts, str):
        return [prompts]
    listed = list(prompts)
    if listed and all(isinstance(token, int) for token in listed):
        return [listed]  # type: ignore[list-item]
    for prompt in listed:
        if not isinstance(prompt, str | Sequence):
            raise TypeError(f"a prompt must be a str or a list of ids, got {prompt!r}")
    return listed  # type: ignore[return-value]


def stream(
    model: GPT,
    prompt: str | Sequence[int],
    config: GenerationConfig | None = None,
    *,
    tokenizer: BPETokenizer,
    constraint: Constraint | None = None,
) -> Iterator[str]:
    """Yield the text behind a prompt while it is written; joined, it is what `generate` gives.

    Arguments and errors are those of `generate`; errors come with the call, not with the first
    piece of text.
    """
    config = config or GenerationConfig()
    writer = Writer(model, config, tokenizer, constraint)
    return _pieces(writer, writer.row(prompt, config.seed))


def _pieces(writer: Writer, row: Row) -> Iterator[str]:
    with Evaluating(writer.model):
        for _ in writer.write([row]):
            if piece := row.text.take():
                yield piece
