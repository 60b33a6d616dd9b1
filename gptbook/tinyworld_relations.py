# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""What facts can be about in a TinyWorld, how they are worded, and how they are drawn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gptbook.tinyworld_narrator import article_of, capitalize
from gptbook.tinyworld_people import HEROES, HEROINES, OCCUPATIONS, THINGS, listed, p_she

Direction = Literal["forward", "backward"]

# --- the words ---

FAMILY_NAMES = listed("""
    Abbot, Ashby, Barlow, Birch, Bloom, Carver, Clay, Dale, Dunn, Ember, Fenn, Finch, Garner,
    Glover, Hale, Hollis, Ivory, Jarvis, Keller, Kemp, Lark, Linden, Marsh, Moss, Nash,
    Nettle, Oakes, Olson, Pell, Perry, Quill, Reed, Rowe, Sands, Sharp, Tanner, Thorne, Upton,
    Vale, Wade, Weaver, Yarrow
""")

TOWNS = listed("""
    Ashbridge, Birchwell, Coldbrook, Deepdale, Eastmoor, Fernley, Goosegreen, Highford,
    Ironhill, Juniper, Kingsbarn, Longmeadow, Millfield, Northpool, Otterbank, Pebbleton,
    Quarrytop, Rushwater, Stonegate, Thistledown, Underwood, Westmarsh
""")

COLORS = listed("red, blue, green, yellow, white, black, brown, gray, purple, pink, orange, silver")

SUBSTANCES = listed("""
    amber, bamboo, brass, bronze, clay, copper, cork, glass, gold, iron, ivory, leather,
    linen, ebony, marble, oak, paper, pine, rubber, silk, steel, stone, straw, tin, wax, wool
""")

# --- the relations ---


@dataclass(frozen=True)
class Relation:
    """How facts of one sort are stated and asked.

    {s} is the subject and {o} the object, {S} and {O} the same with a capital; {s_kin} is "sister"
    or "brother". A forward wording starts from the subject. A backward one starts from the object,
    and exists where the object has only one subject.
    """

    name: str
    forward: tuple[str, ...]
    backward: tuple[str, ...]
    ask_object: tuple[str, ...]
    ask_subject: tuple[str, ...]
    short: str  # the short answer to ask_object; the one to ask_subject is the subject

    def wordings(self, direction: Direction) -> tuple[str, ...]:
        """Return the statements of one direction."""
        return self.forward if direction == "forward" else self.backward


RELATIONS = (
    Relation(
        "lives in",
        forward=("{s} lives in {o}.", "{s} has a house in {o}.", "The home of {s} is in {o}."),
        backward=(),
        ask_object=("Where does {s} live?", "In which town is the home of {s}?"),
        ask_subject=(),
        short="In {o}.",
    ),
    Relation(
        "works as",
        forward=(
            "{s} works as {o}.",
            "{s} earns a living as {o}.",
            "The work of {s} is that of {o}.",
        ),
        backward=(),
        ask_object=("What work does {s} do?", "How does {s} earn a living?"),
        ask_subject=(),
        short="As {o}.",
    ),
    Relation(
        "owns",
        forward=("{s} owns {o}.", "{s} is the owner of {o}."),
        backward=("{O} belongs to {s}.", "{O} is the property of {s}."),
        ask_object=("What does {s} own?", "Which thing belongs to {s}?"),
        ask_subject=("Who owns {o}?", "To whom does {o} belong?"),
        short="{O}.",
    ),
    Relation(
        "is the best friend of",
        forward=("{s} is the best friend of {o}.", "{s} likes nobody better than {o}."),
        backward=("{o} is the best friend of {s}.", "{o} likes nobody better than {s}."),
        ask_object=("Whose best friend is {s}?",),
        ask_subject=("Whose best friend is {o}?",),
        short="{o}.",
    ),
    Relation(
        "is the brother or sister of",
        forward=("{s} is the {s_kin} of {o}.", "{s} grew up as the {s_kin} of {o}."),
        backward=("{o} is the {o_kin} of {s}.", "{o} grew up as the {o_kin} of {s}."),
        ask_object=("Whose {s_kin} is {s}?",),
        ask_subject=("Whose {o_kin} is {o}?",),
        short="{o}.",
    ),
    Relation(
        "is made of",
        forward=("{S} is made of {o}.", "Somebody made {s} out of {o}."),
        backward=(),
        ask_object=("Of what is {s} made?", "Which material is {s} made of?"),
        ask_subject=(),
        short="Of {o}.",
    ),
)

# --- drawing them ---


@dataclass(frozen=True)
class Triple:
    """A fact before it has a frequency."""

    subject: str
    relation: Relation
    object: str
    words: tuple[tuple[str, str], ...]  # what the wordings' fields stand for

    def spoken(self, wording: str) -> str:
        """Fill in a wording."""
        return wording.format(**dict(self.words))


def draw_names(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """Return n different full names, each with its pronoun."""
    first_names = [(name, "she") for name in HEROINES] + [(name, "he") for name in HEROES]
    pairs = [(f"{name} {family}", they) for name, they in first_names for family in FAMILY_NAMES]
    return rng.sample(pairs, n)


def draw_triples(rng: random.Random, people: dict[str, str], pronoun_skew: float) -> list[Triple]:
    """Draw the facts about everybody and about what they own, in random order."""
    names = list(people)
    kin = {name: {"she": "sister", "he": "brother"}[they] for name, they in people.items()}
    things = [f"the {color} {thing}" for color in COLORS for thing in THINGS]
    things = rng.sample(things, len(names))
    pairs: dict[str, list[tuple[str, str]]] = {
        "lives in": [(name, rng.choice(TOWNS)) for name in names],
        "works as": [(name, draw_work(rng, people[name], pronoun_skew)) for name in names],
        "owns": list(zip(names, things, strict=True)),
        "is the best friend of": draw_couples(rng, names),
        "is the brother or sister of": draw_couples(rng, names),
        "is made of": [(thing, rng.choice(SUBSTANCES)) for thing in things],
    }
    triples = []
    for relation in RELATIONS:
        for s, o in pairs[relation.name]:
            words = {"s": s, "o": o, "S": capitalize(s), "O": capitalize(o)}
            words |= {"s_kin": kin.get(s, ""), "o_kin": kin.get(o, "")}
            triples.append(Triple(s, relation, o, tuple(words.items())))
    rng.shuffle(triples)
    return triples


def draw_work(rng: random.Random, pronoun: str, pronoun_skew: float) -> str:
    """Draw an occupation, with its article, in proportion to how many of it have this pronoun."""
    jobs = [occupation.name for occupation in OCCUPATIONS]
    shares = [p_she(job, pronoun_skew) for job in jobs]
    weights = shares if pronoun == "she" else [1 - share for share in shares]
    job = rng.choices(jobs, weights)[0]
    return article_of(job) + job


def draw_couples(rng: random.Random, names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair everybody with somebody else, each once."""
    shuffled = rng.sample(names, len(names))
    return list(zip(shuffled[::2], shuffled[1::2], strict=True))
