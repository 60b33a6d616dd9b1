# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Speak a text choice by choice, so that the text determines the choices that made it.

A *document* is spoken by a function that is handed a `Speaker` and draws nothing at random except
through it: `say` utters words that are forced, `choose` utters one of several alternatives. The
same function then serves three speakers. A `Teller` draws, and so writes a text. A `Listener`
follows a text that exists and scores it. A `PrefixListener` scores the beginning of a text. No
alternative is a prefix of another, so at most one of them fits, the probability of a text is a
product, and nothing has to be summed over hidden causes.
"""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

Value = TypeVar("Value", bound=Hashable)
Returned = TypeVar("Returned")


class Unspeakable(Exception):
    """The text that a listener follows is not one that the document's function can speak."""


class PrefixEnded(Exception):
    """The text that a PrefixListener follows has run out: its probability is known."""


class Mention(NamedTuple):
    """Characters start to end of a document refer to the entity, by name or by pronoun."""

    start: int
    end: int
    entity: str


@dataclass(frozen=True)
class Told:
    """What a document's function knows about the document that it has just spoken."""

    facts: tuple[Any, ...] = ()  # the facts that the text states
    mentions: tuple[Mention, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)  # anything else, by name


class Chances:
    """A probability for each of n alternatives, in the forms that drawing and scoring need."""

    __slots__ = ("cumulative", "last", "log_probs", "probs", "total")

    def __init__(self, weights: Iterable[float]) -> None:
        weights = tuple(weights)
        for weight in weights:
            if not 0 < weight < math.inf:
                raise ValueError(f"a weight is {weight}; it must be positive and finite")
        if not weights:
            raise ValueError("there are no alternatives; give at least one")
        self.cumulative = tuple(itertools.accumulate(weights))
        self.total = self.cumulative[-1]
        self.last = len(weights) - 1
        self.probs = tuple(weight / self.total for weight in weights)
        self.log_probs = tuple(math.log(p) for p in self.probs)

    def draw(self, rng: random.Random) -> int:
        """Return an index with its probability."""
        return bisect(self.cumulative, rng.random() * self.total, 0, self.last)

    def entropy(self) -> float:
        """Return the entropy of one draw in nats."""
        return -sum(p * log_p for p, log_p in zip(self.probs, self.log_probs, strict=True))


class Options(Generic[Value]):
    """Alternatives with probabilities; no text is a prefix of another.

    Each item is (text, weight, value): the text is spoken, the value is what `choose` returns, and
    the probability is the weight over the sum of weights. Raises ValueError when a weight is not
    positive or when one text begins with another. Build once and use often.
    """

    __slots__ = ("_index", "_lengths", "_without", "chances", "texts", "values")

    def __init__(self, items: Iterable[tuple[str, float, Value]]) -> None:
        items = list(items)
        self.texts: tuple[str, ...] = tuple(text for text, _, _ in items)
        self.values: tuple[Value, ...] = tuple(value for _, _, value in items)
        self.chances = Chances(weight for _, weight, _ in items)
        self._without: dict[frozenset[Value], Options[Value]] = {}
        self._index: dict[str, int] = {}  # filled by the first match
        self._lengths: tuple[int, ...] = ()
        check_prefix_free(self.texts)

    @classmethod
    def of(cls, texts: Iterable[str] | Mapping[str, float]) -> Options[str]:
        """Return options whose values are their texts, equally likely or with given weights."""
        weights = texts if isinstance(texts, Mapping) else dict.fromkeys(texts, 1.0)
        return Options((text, weight, text) for text, weight in weights.items())

    def without(self, *values: Value) -> Options[Value]:
        """Return the options left when these values are ruled out; remembered for speed."""
        key = frozenset(values)
        if key not in self._without:
            items = zip(self.texts, self.chances.probs, self.values, strict=True)
            self._without[key] = Options(item for item in items if item[2] not in key)
        return self._without[key]

    def only(self, value: Value) -> Options[Value]:
        """Return the single option with this value: it is certain. Raises ValueError if unknown."""
        if value not in self.values:
            raise ValueError(f"{value!r} is not an option; the values are {self.values[:20]} ...")
        index = self.values.index(value)
        return Options([(self.texts[index], 1.0, value)])

    def match(self, text: str, position: int) -> int | None:
        """Return the index of the one alternative that comes at a position of text, or None."""
        if not self._index:
            self._index = {option: index for index, option in enumerate(self.texts)}
            self._lengths = tuple(sorted({len(option) for option in self.texts}))
        for length in self._lengths:
            index = self._index.get(text[position : position + length])
            if index is not None:
                return index
        return None

    def log_prob(self, value: Value) -> float:
        """Return the log-probability in nats of the first alternative with this value."""
        return self.chances.log_probs[self.values.index(value)]


def check_prefix_free(texts: Iterable[str]) -> None:
    """Raise ValueError when one text is a prefix of another (an empty one is a prefix of all)."""
    for text, after in itertools.pairwise(sorted(texts)):  # a prefix sorts right before
        if after.startswith(text):
            raise ValueError(
                f"{text!r} is a prefix of {after!r}, so the text would not tell which was chosen; "
                "make them differ before the shorter one ends"
            )


class Speaker(ABC):
    """Utters a document piece by piece, and adds up the log-probability of its choices."""

    def __init__(self) -> None:
        self.position = 0  # characters spoken so far
        self.logprob = 0.0  # nats

    @property
    @abstractmethod
    def text(self) -> str:
        """What was spoken so far."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Utter words that are forced."""

    @abstractmethod
    def pick(self, chances: Chances, spoken: Callable[[int], str]) -> int:
        """Utter one alternative and return its index; spoken(i) is the text of alternative i.

        The texts must be prefix-free. `choose` is the usual way; this one is for alternatives whose
        texts depend on what was said before, and which are made only when they are needed.
        """

    @abstractmethod
    def choose(self, options: Options[Value]) -> Value:
        """Utter one of the options and return its value."""


class Teller(Speaker):
    """Writes a document: draws each choice."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What was spoken so far."""
        return "".join(self._parts)

    def say(self, text: str) -> None:
        """Write text."""
        self._parts.append(text)
        self.position += len(text)

    def pick(self, chances: Chances, spoken: Callable[[int], str]) -> int:
        """Draw an alternative, write it and return its index."""
        index = chances.draw(self.rng)
        self.say(spoken(index))
        self.logprob += chances.log_probs[index]
        return index

    def choose(self, options: Options[Value]) -> Value:
        """Draw one of the options, write it and return its value."""
        return options.values[self.pick(options.chances, options.texts.__getitem__)]


class Listener(Speaker):
    """Scores a document that exists: each choice is the one that the text shows.

    `say` and `pick` raise Unspeakable where the text goes another way. When the document's function
    has returned, the text is one of its documents only if `finished` is true.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text

    @property
    def text(self) -> str:
        """What was followed so far."""
        return self.source[: self.position]

    @property
    def finished(self) -> bool:
        """Whether the whole text has been followed."""
        return self.position == len(self.source)

    def say(self, text: str) -> None:
        """Step over text, which must come next."""
        if not self.source.startswith(text, self.position):
            raise Unspeakable(f"character {self.position}: {text!r} must come here")
        self.position += len(text)

    def pick(self, chances: Chances, spoken: Callable[[int], str]) -> int:
        """Find the alternative that comes next, step over it and return its index."""
        for index, log_prob in enumerate(chances.log_probs):
            text = spoken(index)
            if self.source.startswith(text, self.position):
                self.position += len(text)
                self.logprob += log_prob
                return index
        raise Unspeakable(f"character {self.position}: none of the alternatives comes here")

    def choose(self, options: Options[Value]) -> Value:
        """Look up the option that comes next, step over it and return its value."""
        index = options.match(self.source, self.position)
        if index is None:
            raise Unspeakable(f"character {self.position}: none of the options comes here")
        self.position += len(options.texts[index])
        self.logprob += options.chances.log_probs[index]
        return options.values[index]


class PrefixListener(Listener):
    """Scores the beginning of a document: the probability that a document begins so.

    Raises PrefixEnded where the text runs out. Then `logprob` is exact, because the alternatives
    that could still come are known and their probabilities are summed, and `next_probs` maps each
    character that can come next to its probability.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.next_probs: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Step over text, or over as much of it as the prefix holds."""
        left = len(self.source) - self.position
        if left >= len(text):
            return super().say(text)
        super().say(text[:left])
        self.next_probs = {text[left]: 1.0}
        raise PrefixEnded

    def pick(self, chances: Chances, spoken: Callable[[int], str]) -> int:
        """Find the alternative that comes next; at the end of the prefix, sum those that fit."""
        texts = [spoken(index) for index in range(len(chances.probs))]
        for index, text in enumerate(texts):
            if self.source.startswith(text, self.position):
                self.position += len(text)
                self.logprob += chances.log_probs[index]
                return index
        return self.end(texts, chances.probs)

    def choose(self, options: Options[Value]) -> Value:
        """Look up the option that comes next; at the end of the prefix, sum those that fit."""
        if options.match(self.source, self.position) is None:
            self.end(options.texts, options.chances.probs)
        return super().choose(options)

    def end(self, texts: Sequence[str], probs: Sequence[float]) -> NoReturn:
        """Sum the alternatives that begin with the rest of the prefix, which none of them is in."""
        rest = self.source[self.position :]
        weights: dict[str, float] = {}
        for text, p in zip(texts, probs, strict=True):
            if text.startswith(rest):
                character = text[len(rest)]
                weights[character] = weights.get(character, 0.0) + p
        if not weights:
            raise Unspeakable(f"character {self.position}: none of the alternatives comes here")
        total = sum(weights.values())
        self.position = len(self.source)
        self.logprob += math.log(total) if rest else 0.0
        self.next_probs = {character: weight / total for character, weight in weights.items()}
        raise PrefixEnded


def generate(document: Callable[[Speaker], Returned], seed: int) -> tuple[Teller, Returned]:
    """Let a document's function speak with random.Random(seed).

    Returns the teller, which has the text and its log-probability, and what the function returned.
    """
    teller = Teller(random.Random(seed))
    returned = document(teller)
    return teller, returned


def score(document: Callable[[Speaker], object], text: str) -> float:
    """Return the log-probability in nats that the document's function speaks exactly this text."""
    listener = Listener(text)
    try:
        document(listener)
    except Unspeakable:
        return -math.inf
    return listener.logprob if listener.finished else -math.inf


def score_prefix(document: Callable[[Speaker], object], prefix: str) -> float:
    """Return the log-probability in nats that a document begins with prefix."""
    return follow_prefix(document, prefix).logprob


def follow_prefix(document: Callable[[Speaker], object], prefix: str) -> PrefixListener:
    """Return a listener that has followed a prefix; its logprob is -inf if no document has it."""
    listener = PrefixListener(prefix)
    try:
        document(listener)
        if not listener.finished:
            listener.logprob = -math.inf
    except PrefixEnded:
        pass
    except Unspeakable:
        listener.logprob = -math.inf
    return listener
