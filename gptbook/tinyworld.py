# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""TinyWorld: a corpus without end whose every document has a known probability."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from gptbook.arguments import checked_integer
from gptbook.tinyworld_chat import TASK_SHARES, ChatTeller, Requester
from gptbook.tinyworld_facts import Fact, FactTable, FactTeller, HeldOut, QuestionTeller
from gptbook.tinyworld_judge import Properties, check_reply, judge_utility, understand
from gptbook.tinyworld_preferences import PREFERENCE_SHARES, Preference, PreferenceTeller
from gptbook.tinyworld_requests import FRAMES, HELD_OUT_FRAMES
from gptbook.tinyworld_speech import (
    Mention,
    Options,
    Speaker,
    Told,
    follow_prefix,
    generate,
    score,
    score_prefix,
)
from gptbook.tinyworld_stories import StoryTeller, make_language
from gptbook.tinyworld_tasks import (
    Arithmetic,
    ArithmeticTeller,
    ItemLists,
    ListTeller,
    SummaryTeller,
)

KINDS = (
    "story",
    "facts",
    "questions",
    "arithmetic",
    "lists",
    "summary",
    "chat",
    "preferences",
    "mixed",
)
"""The kinds of documents. A mixed one begins with a word that tells its kind."""

MIXED_SHARES = {
    "story": 0.35,
    "facts": 0.15,
    "questions": 0.1,
    "arithmetic": 0.1,
    "lists": 0.05,
    "summary": 0.1,
    "chat": 0.15,
}
"""How often a mixed document is of each kind."""

CHARACTERS = tuple(map(chr, (10, *range(32, 127))))
"""All characters that documents are made of: a line break, and what ASCII can print."""


@dataclass(frozen=True)
class Document:
    """One document of a TinyWorld, and the truth about it."""

    text: str
    logprob: float  # nats: the exact log-probability of the text among the documents of its kind
    kind: str
    index: int
    facts: tuple[Any, ...] = ()  # the facts that the text states
    mentions: tuple[Mention, ...] = ()  # which characters refer to whom or what
    meta: Mapping[str, Any] = field(default_factory=dict)  # what else its kind records


@dataclass(frozen=True)
class EntropyRate:
    """The entropy per byte of a kind of documents, estimated from a sample."""

    bits_per_byte: float
    standard_error: float  # of bits_per_byte
    nats_per_document: float
    bytes_per_document: float
    n_documents: int


def estimate_entropy_rate(nats: Sequence[float], sizes: Sequence[int]) -> EntropyRate:
    """Estimate entropy over length from each document's surprisal in nats and size in bytes.

    The estimate is total nats over total bytes. Its standard error is that of a ratio of two means
    (the delta method): both vary from document to document, and they vary together. Raises
    ValueError for fewer than two documents.
    """
    n = len(nats)
    if n < 2:
        raise ValueError(f"{n} documents were given; a standard error needs at least 2")
    ratio = sum(nats) / sum(sizes)
    residuals = (x - ratio * size for x, size in zip(nats, sizes, strict=True))
    variance = sum(r * r for r in residuals) / (n - 1)
    mean_size = sum(sizes) / n
    return EntropyRate(
        bits_per_byte=ratio / math.log(2),
        standard_error=math.sqrt(variance / n) / mean_size / math.log(2),
        nats_per_document=sum(nats) / n,
        bytes_per_document=mean_size,
        n_documents=n,
    )


class TinyWorld:
    """A small world, and documents of several kinds about it, each with its exact probability.

    Document i of a kind depends on (seed, kind, i) and the world's arguments alone.

    Args:
        seed: draws the facts, the problems that are held out, and the documents.
        dialect: "hill" or "shore": how stories are told, also within summaries and conversations.
            Facts, questions, requests and all other replies are the same in both.
        pronoun_skew: how strongly an occupation goes with "she" or "he"; 0.5 is no skew.
        people: how many people there are facts about, an even number.
        fact_exponent: how unequally often facts are stated; 0 is equally often.
        never_share: share of the facts that no document states.
        largest_number: in sums and differences.
        longest_list: the most items of a list.
        preference_noise: the judge's; the larger, the more often the worse reply wins.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        dialect: str = "hill",
        pronoun_skew: float = 0.9,
        people: int = 200,
        fact_exponent: float = 1.0,
        never_share: float = 0.2,
        largest_number: int = 99,
        longest_list: int = 8,
        preference_noise: float = 1.0,
    ) -> None:
        seed, people = checked_integer(seed, "seed"), checked_integer(people, "people")
        largest_number = checked_integer(largest_number, "largest_number")
        longest_list = checked_integer(longest_list, "longest_list")
        self._arguments: dict[str, Any] = {
            "seed": seed,
            "dialect": dialect,
            "pronoun_skew": pronoun_skew,
            "people": people,
            "fact_exponent": fact_exponent,
            "never_share": never_share,
            "largest_number": largest_number,
            "longest_list": longest_list,
            "preference_noise": preference_noise,
        }
        self.seed = seed
        self.dialect = dialect
        self.pronoun_skew = pronoun_skew
        self.stories = StoryTeller(make_language(dialect, pronoun_skew))
        self.fact_table = FactTable(
            seed,
            people=people,
            exponent=fact_exponent,
            never_share=never_share,
            pronoun_skew=pronoun_skew,
        )
        self.arithmetic = Arithmetic(seed, largest_number)
        self.lists = ItemLists(longest_list)
        sources = (self.fact_table.questions, self.arithmetic, self.lists, self.stories)
        self.judge = PreferenceTeller(Requester(*sources, PREFERENCE_SHARES), preference_noise)
        self.kinds: dict[str, Callable[[Speaker], Told]] = {
            "story": self.stories.tell_document,
            "facts": FactTeller(self.fact_table).tell,
            "questions": QuestionTeller(self.fact_table).tell,
            "arithmetic": ArithmeticTeller(self.arithmetic).tell,
            "lists": ListTeller(self.lists).tell,
            "summary": SummaryTeller(self.stories).tell,
            "chat": ChatTeller(Requester(*sources, TASK_SHARES)).tell,
            "preferences": self.judge.tell,
            "mixed": self.tell_mixed,
        }
        self._headers = Options(
            (f"{kind.capitalize()}:\n", share, kind) for kind, share in MIXED_SHARES.items()
        )

    def __reduce__(self) -> tuple[Callable[[], TinyWorld], tuple[()]]:
        """Pickle the arguments: they determine the world."""
        return partial(type(self), **self._arguments), ()

    def document(self, index: int, kind: str = "story") -> Document:
        """Return document `index` (0, 1, 2, ... without end) of a kind."""
        index = checked_integer(index, "index")
        if index < 0:
            raise ValueError(f"index is {index}; documents are numbered from 0")
        teller, told = generate(self._function(kind), self._seed_of(kind, index))
        return Document(
            text=teller.text,
            logprob=teller.logprob,
            kind=kind,
            index=index,
            facts=told.facts,
            mentions=told.mentions,
            meta=told.meta,
        )

    def tell_mixed(self, speaker: Speaker) -> Told:
        """Tell which kind comes, and then a document of that kind."""
        kind = speaker.choose(self._headers)
        told = self.kinds[kind](speaker)
        return Told(told.facts, told.mentions, {**told.meta, "kind": kind})

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts of the world, the most often stated first."""
        return self.fact_table.facts

    @property
    def held_out(self) -> HeldOut:
        """What no document of any kind says."""
        return self.fact_table.held_out

    def preference(self, index: int) -> Preference:
        """Return the preference that document `index` of kind "preferences" tells."""
        preference: Preference = self.document(index, "preferences").meta["preference"]
        return preference

    @cached_property
    def examiner(self) -> Requester:
        """The grammar of all requests, those included that documents never make."""
        return Requester(
            self.fact_table.every_question,
            Arithmetic(self.seed, self.arithmetic.largest, hold_out=False),
            self.lists,
            self.stories,
            TASK_SHARES,
            FRAMES + HELD_OUT_FRAMES,
        )

    def check(self, prompt: str, reply: str) -> Properties:
        """Return the properties of any text as a reply to a request that the examiner understands.

        Raises ValueError when the prompt is no request of this world.
        """
        return check_reply(understand(self.examiner, prompt), reply)

    def utility(self, prompt: str, reply: str) -> float:
        """Return the judge's utility of any text as a reply to such a request."""
        return judge_utility(self.check(prompt, reply))

    def documents(self, n: int, kind: str = "story", start: int = 0) -> Iterator[Document]:
        """Yield documents start to start + n - 1 of a kind.

        Raises ValueError at once, before the first document, for a kind that there is not, and for
        a negative n or start.
        """
        self._function(kind)
        n, start = checked_integer(n, "n"), checked_integer(start, "start")
        if n < 0:
            raise ValueError(f"n is {n}; it is a number of documents, 0 or more")
        if start < 0:
            raise ValueError(f"start is {start}; documents are numbered from 0")
        return (self.document(index, kind) for index in range(start, start + n))

    def logprob(self, text: str, kind: str = "story") -> float:
        """Return the exact log-probability of a text in nats; -inf if no document reads so."""
        return score(self._function(kind), text)

    def prefix_logprob(self, prefix: str, kind: str = "story") -> float:
        """Return the exact log-probability in nats that a document of a kind begins with prefix."""
        return score_prefix(self._function(kind), prefix)

    def entropy_rate(self, kind: str = "story", n: int = 1000) -> EntropyRate:
        """Estimate the entropy in bits per byte from documents 0 to n - 1.

        See `estimate_entropy_rate`. Raises ValueError for n below 2.
        """
        documents = self.documents(n, kind)
        pairs = [(-document.logprob, len(document.text.encode())) for document in documents]
        return estimate_entropy_rate([nats for nats, _ in pairs], [size for _, size in pairs])

    def next_probs(self, prefix: str, kind: str = "story") -> dict[str, float]:
        """Return the true probability of each character that can follow a prefix.

        Characters that cannot follow are left out. The dictionary is empty where the document ends.
        Raises ValueError when no document of the kind begins with the prefix.
        """
        listener = follow_prefix(self._function(kind), prefix)
        if listener.logprob == -math.inf:
            raise ValueError(f"no {kind} begins with {prefix[-40:]!r} (the last 40 characters)")
        return listener.next_probs

    def _function(self, kind: str) -> Callable[[Speaker], Told]:
        if kind not in self.kinds:
            raise ValueError(f"kind is {kind!r}; choose one of {', '.join(self.kinds)}")
        return self.kinds[kind]

    def _seed_of(self, kind: str, index: int) -> int:
        name = f"{self.seed}/{kind}/{index}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
