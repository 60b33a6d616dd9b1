# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Write text with a model: prompts in, ids and text out, in batches, streams, beams.

A row is one prompt and what is written behind it. What happens to a row depends on its own prompt,
seed and settings alone, whatever other rows there are: each ends when it wants to, and leaves.
"""

from __future__ import annotations

import codecs
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from gptbook.arguments import checked_integer
from gptbook.config import check_choice
from gptbook.kv_cache import KVCache, RollingKVCache
from gptbook.model import GPT
from gptbook.sampling import History, Sample, SamplingConfig, history_of, sample, seed_tensor
from gptbook.token_shards import END_OF_TEXT
from gptbook.tokenizer import BPETokenizer


def make_cache(model: GPT, n_rows: int, capacity: int, *, rolling: bool = False) -> KVCache:
    """Return an empty cache for a model's rows."""
    config, weight = model.config, model.tokens.weight
    kind = RollingKVCache if rolling else KVCache
    return kind(
        config.n_layer, n_rows, config.n_kv_head, config.d_head, capacity,
        dtype=weight.dtype, device=weight.device,
    )  # fmt: skip


def select_rows(cache: KVCache, rows: Sequence[int]) -> KVCache:
    """Return a cache with copies of these rows, in this order; one may come several times."""
    selected = copy.copy(cache)
    selected.keys, selected.values = cache.keys[:, rows], cache.values[:, rows]
    selected.lengths = tuple(cache.lengths[row] for row in rows)
    return selected


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return rows of ids as a tensor, (B, T), with zeros behind the shorter ones."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


@torch.no_grad()
def last_logits(
    model: GPT, rows: Sequence[Sequence[int]], cache: KVCache | None = None
) -> Float[Tensor, "B V"]:
    """Read rows of any lengths, behind what a cache holds, and return the logits that follow each.

    The filler of shorter rows stands behind their ends, where none of their places sees it, and
    the cache does not count it.
    """
    lengths = [len(row) for row in rows]
    ids = right_padded(rows, model.tokens.weight.device)
    hidden = model.hidden_states(ids, kv_cache=cache)
    if cache is not None:
        cache.advance(lengths)
    ends = torch.tensor(lengths, device=hidden.device) - 1
    return model.unembed(hidden[torch.arange(len(rows), device=hidden.device), ends])


class Reader:
    """Reads rows that grow, and gives the logits of each next token; all again at each call.

    The slow twin of `CachedReader`. A row that would be longer than the model's context keeps its
    last three quarters: see "Past the context".
    """

    def __init__(self, model: GPT, n_rows: int) -> None:
        self.model = model
        self.windows: list[list[int]] = [[] for _ in range(n_rows)]  # what the model sees

    def read(self, new: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add new ids to each row, and return the logits of the next."""
        self._append(new)
        return last_logits(self.model, self.windows)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one may come several times."""
        self.windows = [list(self.windows[row]) for row in rows]

    def _append(self, new: Sequence[Sequence[int]]) -> bool:
        """Add new ids to the windows, and return whether one of them had to slide."""
        limit = self.model.config.context_length
        slid = False
        for window, ids in zip(self.windows, new, strict=True):
            window += ids
            if len(window) > limit:
                slid = True
                del window[: -max(1, limit * 3 // 4)]
        return slid


class CachedReader(Reader):
    """Reads each token once, and keeps its keys and values."""

    def __init__(self, model: GPT, n_rows: int, capacity: int) -> None:
        """Prepare for rows of at most capacity tokens."""
        super().__init__(model, n_rows)
        self.capacity = min(capacity, model.config.context_length)
        self.cache = make_cache(model, n_rows, self.capacity)

    def read(self, new: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add new ids to each row, and return the logits of the next."""
        if self._append(new):  # places have changed, and with them all keys and values
            self.cache = make_cache(self.model, len(new), self.capacity)
            return last_logits(self.model, self.windows, self.cache)
        return last_logits(self.model, new, self.cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one may come several times."""
        super().keep(rows)
        self.cache = select_rows(self.cache, rows)


class RollingReader(Reader):
    """Reads without end, for models with a sliding window and without learned positions.

    It forgets what the model could not see anyway.
    """

    def __init__(self, model: GPT, n_rows: int) -> None:
        super().__init__(model, n_rows)
        window = model.config.sliding_window
        assert window is not None
        self.cache = make_cache(model, n_rows, window, rolling=True)

    @staticmethod
    def can_serve(model: GPT) -> bool:
        """Return whether the model has a window that it can look through without end."""
        config = model.config
        endless = config.positions in ("rope", "none")
        return (config.sliding_window or config.context_length) < config.context_length and endless

    def read(self, new: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
        """Add new ids to each row, as many at a time as the model reads; return the next logits."""
        piece = self.model.config.context_length
        starts = range(0, max(map(len, new)), piece)
        found = [
            last_logits(self.model, [row[start : start + piece] for row in new], self.cache)
            for start in starts
        ]
        ends = [(len(row) - 1) // piece for row in new]
        return torch.stack([found[end][row] for row, end in enumerate(ends)])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one may come several times."""
        super().keep(rows)
        self.cache = select_rows(self.cache, rows)


FinishReason = Literal["end", "stop", "length", "context", "constraint", "invalid"]
"""Why a row ended: an end-of-text token, a stop string, max_new_tokens, the model's context, a
constraint that nothing can follow, or logits that nothing can be drawn from."""

Overflow = Literal["stop", "slide"]


@dataclass(frozen=True)
class GenerationConfig(SamplingConfig):
    """How text is written. The first settings are those of `SamplingConfig`.

    Attributes:
        max_new_tokens: the most tokens that are written.
        stop: strings that end a row; its text ends before the first of them, wherever the borders
            of tokens are.
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


class TextStream:
    """Bytes in, text out: never half a character, and never what may become a stop string.

    Attributes:
        stopped: whether a stop string came; the text ends before it.
        text: all that is certain so far.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = [text.encode() for text in stops]
        self.stopped = False
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = b""
        self._taken = 0

    def push(self, data: bytes) -> None:
        """Add the bytes of a token."""
        if self.stopped:
            return
        self._held += data
        found = [place for stop in self.stops if (place := self._held.find(stop)) >= 0]
        self.stopped = bool(found)
        certain = min(found) if found else len(self._held) - self._possible_stop()
        self.text += self._decoder.decode(self._held[:certain], final=self.stopped)
        self._held = self._held[certain:]

    def finish(self) -> None:
        """Say that nothing more comes, so that what was held is text."""
        if not self.stopped:
            self.text += self._decoder.decode(self._held, final=True)
        self._held = b""

    def take(self) -> str:
        """Return the text that is new since the last call."""
        new = self.text[self._taken :]
        self._taken = len(self.text)
        return new

    def _possible_stop(self) -> int:
        """Return how many of the last bytes may be the beginning of a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stops):
                return size
        return 0


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
        if not self.cached:
            return Reader(self.model, len(rows))
        capacity = max(len(row.prompt) for row in rows) + self.config.max_new_tokens
        beyond = capacity > self.model.config.context_length and self.config.overflow == "slide"
        if beyond and RollingReader.can_serve(self.model):
            return RollingReader(self.model, len(rows))
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


class Evaluating:
    """A context in which a model is in evaluation mode, and afterwards in the one before."""

    def __init__(self, model: GPT) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        self.model.train(self.training)


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
        ValueError: a number is below 1, or the prompt is empty.
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
