# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""The facts of a TinyWorld: a table drawn from a seed, statements of it, and questions about it.

Every fact has a known probability of being stated, which is zero for some: a model that knows a
frequent fact remembers, one that answers a question it was only given in another form generalizes,
and one that answers what nothing in the world determines makes it up.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

from gptbook.tinyworld_narrator import capitalize
from gptbook.tinyworld_relations import (
    RELATIONS,
    Direction,
    Relation,
    Triple,
    draw_names,
    draw_triples,
)
from gptbook.tinyworld_speech import Options, Speaker, Told

T = TypeVar("T")
Frequency = Literal["often", "rarely", "never"]
UNKNOWN = "I do not know."

# --- choosing among thousands in two steps ---


class Branching(Generic[T]):
    """Options in two steps: the first two words, and then the rest.

    The probabilities are those of one large Options; a text is found among a few hundred.
    """

    def __init__(self, items: Iterable[tuple[str, float, T]]) -> None:
        branches: defaultdict[str, list[tuple[str, float, T]]] = defaultdict(list)
        for text, weight, value in items:
            first, second, rest = text.split(" ", 2)
            branches[f"{first} {second} "].append((rest, weight, value))
        self.heads = Options(
            (head, sum(weight for _, weight, _ in rest), Options(rest))
            for head, rest in branches.items()
        )

    def speak(self, speaker: Speaker) -> T:
        """Utter one of the texts and return its value."""
        return speaker.choose(speaker.choose(self.heads))


# --- the table ---


@dataclass(frozen=True)
class Fact:
    """A fact that is true in the world, and how often documents say so."""

    subject: str
    relation: str
    object: str
    frequency: Frequency
    probability: float  # that one statement of a "facts" document states this fact
    wordings: tuple[str, ...]  # the statements that may state it; empty if it is never stated
    directions: tuple[Direction, ...]  # the directions of these
    asked: bool  # whether documents ask for it

    @property
    def key(self) -> str:
        """The fact as one plain string, by which documents record it."""
        return f"{self.subject} {self.relation} {self.object}"


@dataclass(frozen=True, eq=False)
class Question:
    """A question, the answer that is true, and the answer that the world's documents support."""

    text: str
    subject: str  # whom it is about
    fact: Fact | None  # None if it is about somebody who does not exist
    truth: str | None  # the short true answer; None if there is none
    key: str | None  # the entity that the expected answer names; None if that is UNKNOWN
    candidates: tuple[str, ...]  # the entities that an answer could name
    wrong: tuple[str, ...]  # three short answers that are false
    answers: Options[str]  # what documents answer; "I do not know." if they never state the fact
    weight: float  # relative frequency in documents; 0 if it is held out

    @property
    def expected(self) -> str:
        """The short answer that follows from the documents."""
        return self.answers.values[0]


@dataclass(frozen=True)
class HeldOut:
    """What no document says, for telling memory, generalization and invention apart."""

    unstated: tuple[Fact, ...]  # true, never stated; both entities occur in other facts
    one_way: tuple[Fact, ...]  # stated from subject to object only, or the other way round
    one_wording: tuple[Fact, ...]  # stated in one of several wordings
    unasked: tuple[Fact, ...]  # stated, but no document asks for it
    strangers: tuple[str, ...]  # names of nobody, never mentioned, made of names that are


class FactTable:
    """The people and things of a world, the facts about them, and how each may be stated and asked.

    Args:
        seed: draws the table.
        people: how many people there are, an even number.
        exponent: of the Zipf-Mandelbrot law: the fact of rank r (0, 1, ...) is stated in proportion
            to (r + 10) ** -exponent. 0 makes all stated facts equally frequent.
        never_share: share of the facts that no document states.
        pronoun_skew: how strongly an occupation goes with "she" or "he", as in `p_she`.
    """

    OFTEN_SHARE = 0.2  # of the stated facts count as often stated
    RANK_SHIFT = 10  # flattens the head of the law, so that no single fact fills the documents
    RESTRICTED_SHARE = 0.3  # of the facts have one direction only, or one wording, or are not asked
    STRANGERS = 60  # names of nobody that documents ask about, and as many that they never mention

    def __init__(
        self,
        seed: int = 0,
        *,
        people: int = 200,
        exponent: float = 1.0,
        never_share: float = 0.2,
        pronoun_skew: float = 0.9,
    ) -> None:
        if people % 2 or not 20 <= people <= 400:
            raise ValueError(f"people is {people}; it must be an even number from 20 to 400")
        if not 0 <= exponent <= 3:
            raise ValueError(f"fact_exponent is {exponent}; it must be from 0 to 3")
        if not 0 <= never_share <= 0.5:
            raise ValueError(f"never_share is {never_share}; it must be from 0 to 0.5")
        rng = random.Random(f"facts of world {seed}")
        names = draw_names(rng, people + 2 * self.STRANGERS)
        self.people = dict(names[:people])  # full name -> "she" or "he"
        strangers = tuple(name for name, _ in names[people:])
        self.strangers = strangers[: self.STRANGERS]  # asked about, but nothing is known of them
        triples = draw_triples(rng, self.people, pronoun_skew)
        stated, unstated = split_unstated(triples, round(never_share * len(triples)))
        facts = self._with_frequencies(rng, stated, exponent) + [
            self._unstated(rng, triple) for triple in unstated
        ]
        self._objects = {
            relation.name: tuple(
                sorted({fact.object for fact in facts if fact.relation == relation.name})
            )
            for relation in RELATIONS
        }
        self._triples = dict(zip((fact.key for fact in facts), stated + unstated, strict=True))
        self.facts = tuple(facts)
        self.held_out = HeldOut(
            unstated=tuple(fact for fact in facts if fact.frequency == "never"),
            one_way=tuple(fact for fact in facts if self._is_one_way(fact)),
            one_wording=tuple(fact for fact in facts if len(fact.wordings) == 1),
            unasked=tuple(fact for fact in facts if fact.wordings and not fact.asked),
            strangers=strangers[self.STRANGERS :],
        )

    @cached_property
    def statements(self) -> Branching[Fact]:
        """All statements that documents make, with their probabilities."""
        return Branching(
            (self._triples[fact.key].spoken(wording), fact.probability / len(fact.wordings), fact)
            for fact in self.facts
            for wording in fact.wordings
        )

    @cached_property
    def every_question(self) -> Branching[Question]:
        """All questions that a test may ask, those included that no document asks."""
        about_facts = [q for fact in self.facts for q in self.questions_about(fact)]
        names = self.strangers + self.held_out.strangers
        about_strangers = [q for name in names for q in self.stranger_questions(name)]
        return Branching((q.text, 1.0, q) for q in about_facts + about_strangers)

    def questions_about(self, fact: Fact) -> tuple[Question, ...]:
        """Return every question for the fact, those included that no document asks (weight 0)."""
        triple = self._triples[fact.key]
        relation = triple.relation
        forward = [self._question(fact, ask, "forward") for ask in relation.ask_object]
        backward = [self._question(fact, ask, "backward") for ask in relation.ask_subject]
        return tuple(forward + backward)

    def stranger_questions(self, name: str) -> tuple[Question, ...]:
        """Return the questions about somebody who does not exist; nobody knows the answers."""
        weight = float(name in self.strangers)
        questions = []
        for relation in RELATIONS[:3]:
            objects = self._objects[relation.name]
            wrong = wrong_answers(relation.short, objects, (name,), name)
            for ask in relation.ask_object:
                text = ask.format(s=name)
                questions.append(
                    Question(text, name, None, None, None, objects, wrong, ONLY_UNKNOWN, weight)
                )
        return tuple(questions)

    def _with_frequencies(
        self, rng: random.Random, stated: list[Triple], exponent: float
    ) -> list[Fact]:
        """Give the stated facts, most frequent first, their probabilities and restrictions."""
        weights = [(rank + self.RANK_SHIFT) ** -exponent for rank in range(len(stated))]
        total = sum(weights)
        n_often = round(self.OFTEN_SHARE * len(stated))
        facts = []
        for rank, (triple, weight) in enumerate(zip(stated, weights, strict=True)):
            directions, wordings = self._restricted(rng, triple.relation)
            facts.append(
                Fact(
                    triple.subject,
                    triple.relation.name,
                    triple.object,
                    "often" if rank < n_often else "rarely",
                    weight / total,
                    wordings,
                    directions,
                    asked=rng.random() >= self.RESTRICTED_SHARE,
                )
            )
        return facts

    def _unstated(self, rng: random.Random, triple: Triple) -> Fact:
        """Return a fact that is never stated; documents ask for half of these, in vain."""
        names = (triple.subject, triple.relation.name, triple.object)
        return Fact(*names, "never", 0.0, (), (), asked=rng.random() < 0.5)

    def _restricted(
        self, rng: random.Random, relation: Relation
    ) -> tuple[tuple[Direction, ...], tuple[str, ...]]:
        """Draw the directions in which, and the wordings with which, a fact is stated."""
        two_ways: tuple[Direction, ...] = ("forward", "backward")
        directions = two_ways if relation.backward else two_ways[:1]
        draw = rng.random()
        if draw < self.RESTRICTED_SHARE and relation.backward:
            directions = (rng.choice(directions),)
        wordings = tuple(text for way in directions for text in relation.wordings(way))
        if draw < self.RESTRICTED_SHARE and not relation.backward:
            wordings = (rng.choice(wordings),)
        return directions, wordings

    def _is_one_way(self, fact: Fact) -> bool:
        return bool(self._triples[fact.key].relation.backward) and len(fact.directions) == 1

    def _question(self, fact: Fact, ask: str, direction: Direction) -> Question:
        """Build one question; it is held out if its direction is, or if the fact is not asked."""
        triple = self._triples[fact.key]
        relation, forward = triple.relation, direction == "forward"
        subject, key = (fact.subject, fact.object) if forward else (fact.object, fact.subject)
        candidates = self._objects[relation.name] if forward else tuple(self.people)
        short = relation.short if forward else "{O}."
        truth = short.format(o=key, O=capitalize(key))
        wrong = wrong_answers(short, candidates, (subject, key), fact.key)
        text = triple.spoken(ask)
        if not fact.wordings:
            weight = float(fact.asked)
            return Question(
                text, subject, fact, truth, None, candidates, wrong, ONLY_UNKNOWN, weight
            )
        whole = [
            triple.spoken(wording)
            for wording in relation.wordings(direction)
            if wording in fact.wordings
        ]
        answers = Options.of({truth: 0.5} | dict.fromkeys(whole, 0.5 / max(len(whole), 1)))
        heard = fact.asked and direction in fact.directions
        weight = fact.probability * heard
        return Question(text, subject, fact, truth, key, candidates, wrong, answers, weight)

    @cached_property
    def questions(self) -> Branching[Question]:
        """All questions that documents ask: about known facts as often as these are stated."""
        known: list[Question] = []
        unstated: list[Question] = []
        for fact in self.facts:
            (known if fact.wordings else unstated).extend(self.questions_about(fact))
        about_strangers = [q for name in self.strangers for q in self.stranger_questions(name)]
        items = []
        for share, questions in zip(
            QUESTION_SHARES, (known, unstated, about_strangers), strict=True
        ):
            total = sum(question.weight for question in questions)
            items += [(q.text, share * q.weight / total, q) for q in questions if q.weight]
        return Branching(items)


QUESTION_SHARES = (0.75, 0.1, 0.15)  # about stated facts, about unstated ones, about strangers
ONLY_UNKNOWN = Options.of((UNKNOWN,))


def wrong_answers(
    short: str, candidates: Sequence[str], right: tuple[str, ...], key: str
) -> tuple[str, ...]:
    """Return three short answers that name other candidates than the right ones; key picks them."""
    at = zlib.crc32(key.encode()) % len(candidates)
    around = [*candidates[at:], *candidates[:at]]
    names = [name for name in around[: 3 + len(right)] if name not in right][:3]
    return tuple(short.format(o=name, O=capitalize(name)) for name in names)


def split_unstated(triples: list[Triple], n: int) -> tuple[list[Triple], list[Triple]]:
    """Set n facts aside, so that every person, place and thing still occurs in another fact."""
    uses = Counter(entity for t in triples for entity in (t.subject, t.object))
    stated: list[Triple] = []
    unstated: list[Triple] = []
    for triple in triples:
        if len(unstated) < n and min(uses[triple.subject], uses[triple.object]) > 1:
            uses.subtract((triple.subject, triple.object))
            unstated.append(triple)
        else:
            stated.append(triple)
    return stated, unstated


# --- documents ---

AFTER_STATEMENT = Options([(" ", 3.0, True), ("\n", 1.0, False)])  # one more, or the end
AFTER_ANSWER = Options([(" ", 1.0, True), ("\n", 1.0, False)])


class FactTeller:
    """Tells documents of kind "facts": statements, each drawn with its fact's probability."""

    def __init__(self, table: FactTable) -> None:
        self.table = table

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; Told.facts holds the keys of the facts that it states."""
        stated = [self.table.statements.speak(speaker)]
        while speaker.choose(AFTER_STATEMENT):
            stated.append(self.table.statements.speak(speaker))
        return Told(facts=tuple(fact.key for fact in stated))


class QuestionTeller:
    """Tells documents of kind "questions": questions about facts, with their answers."""

    def __init__(self, table: FactTable) -> None:
        self.table = table

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; meta["questions"] holds its (Question, answer) pairs."""
        pairs = [self._pair(speaker)]
        while speaker.choose(AFTER_ANSWER):
            pairs.append(self._pair(speaker))
        known = [question.fact for question, answer in pairs if answer != UNKNOWN]
        return Told(
            facts=tuple(fact.key for fact in known if fact), meta={"questions": tuple(pairs)}
        )

    def _pair(self, speaker: Speaker) -> tuple[Question, str]:
        speaker.say("Question: ")
        question = self.table.questions.speak(speaker)
        speaker.say(" Answer: ")
        return question, speaker.choose(question.answers)
