# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Stories of TinyWorld: a beginning, one of thirteen plots, an ending, and a record of it all."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from gptbook.tinyworld_adventures import PEOPLE_AND_ROADS
from gptbook.tinyworld_narrator import Language, Wordings
from gptbook.tinyworld_people import ENTITIES, Entity, p_she
from gptbook.tinyworld_plots import THINGS_AND_SKILLS
from gptbook.tinyworld_scenes import NATURE, OPENING, Story, tell_closing
from gptbook.tinyworld_speech import Mention, Speaker, Told
from gptbook.tinyworld_words import DIALECTS, WORDS

PLOTS = {**THINGS_AND_SKILLS, **PEOPLE_AND_ROADS}
START = Wordings(**{name: plot.start for name, plot in PLOTS.items()})
"""The first sentences of all plots: which one is told shows which plot it is."""


@dataclass(frozen=True)
class StoryRequest:
    """What a story has to be about; what is None is left to chance."""

    hero: str | None = None  # the name of one of PEOPLE
    thing: str | None = None  # one of THINGS
    ending: str | None = None  # "happy" or "sad"


@dataclass(frozen=True)
class StoryRecord:
    """What happened in a story. Events are deeds of the hero: "lost the kite"."""

    hero: str
    pronoun: str  # the hero's: "she" or "he"
    friend: str
    thing: str
    place: str
    plot: str
    goal: str  # such as "find the kite"
    ending: str  # "happy" or "sad"
    holder: str | None  # who has the thing at the end
    events: tuple[str, ...]
    mentions: tuple[Mention, ...]
    helper: str | None  # a person who is known by occupation only ...
    helper_pronoun: str | None  # ... and the pronoun that was drawn


def make_language(dialect: str = "hill", pronoun_skew: float = 0.9) -> Language:
    """Return the language of a dialect. Raises ValueError for an argument out of range."""
    if dialect not in DIALECTS:
        raise ValueError(f"dialect is {dialect!r}; choose one of {', '.join(DIALECTS)}")
    if not 0 <= pronoun_skew <= 1:
        raise ValueError(f"pronoun_skew is {pronoun_skew}; it is a probability, from 0 to 1")
    chance = functools.partial(p_she, skew=pronoun_skew)
    return Language({**ENTITIES, **WORDS}, DIALECTS[dialect], chance)


class StoryTeller:
    """Tells stories in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def tell(self, speaker: Speaker, request: StoryRequest | None = None) -> StoryRecord:
        """Tell a story, without a line break at its end.

        Raises ValueError when the request names a hero, thing or ending that there is not.
        """
        story = Story(speaker, self.language, *self.read_request(request or StoryRequest()))
        story.tell(OPENING)
        story.tell(NATURE)
        story.paragraph()
        plot = story.tell(START)
        PLOTS[plot].tell(story)
        tell_closing(story)
        return record_of(story, plot)

    def tell_document(self, speaker: Speaker) -> Told:
        """Tell a story as a document of its own."""
        record = self.tell(speaker)
        speaker.say("\n")
        return Told(mentions=record.mentions, meta={"record": record})

    def read_request(self, request: StoryRequest) -> tuple[dict[str, Entity], str]:
        """Return the entities that are given, and the ending or an empty string."""
        given = {}
        for name, wanted, words in (
            ("hero", request.hero, "person"),
            ("thing", request.thing, "thing"),
        ):
            if wanted is None:
                continue
            entities = {e.name: e for e in self.language.lists[words] if isinstance(e, Entity)}
            if wanted not in entities:
                raise ValueError(f"{name} is {wanted!r}; choose one of: {', '.join(entities)}")
            given[name] = entities[wanted]
        if request.ending not in (None, "happy", "sad"):
            raise ValueError(f"ending is {request.ending!r}; choose happy or sad")
        return given, request.ending or ""


def record_of(story: Story, plot: str) -> StoryRecord:
    """Return what a story that has been told is known to contain."""
    hero, helper = story.known["hero"], story.known.get("helper")
    assert isinstance(hero, Entity)
    return StoryRecord(
        hero=hero.name,
        pronoun=hero.pronoun,
        friend=story["friend"],
        thing=story["thing"],
        place=story["place"],
        plot=plot,
        goal=story.goal,
        ending=story.ending,
        holder=story[story.holder] if story.holder else None,
        events=tuple(story.events),
        mentions=tuple(story.mentions),
        helper=helper.name if isinstance(helper, Entity) else None,
        helper_pronoun=helper.pronoun if isinstance(helper, Entity) else None,
    )
