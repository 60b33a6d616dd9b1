# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Tales of four sentences about somebody and something, right or wrong in known ways."""

from __future__ import annotations

from gptbook.tinyworld_narrator import article_of
from gptbook.tinyworld_people import HEROES, HEROINES, THINGS
from gptbook.tinyworld_speech import Chances, Options, Speaker
from gptbook.tinyworld_stories import StoryRequest

PERSONS = HEROINES + HEROES
FRIENDS = Options((f"{name} ", 1.0, name) for name in PERSONS)
BEGINNINGS = ("{hero} had ", "For a birthday {hero} got ")  # and then the thing
TROUBLES = (
    "One day the {thing} was gone. ",
    "Then the {thing} fell into the river. ",
    "On Monday the {thing} broke. ",
)
ATTEMPTS = (  # before and after the name of a friend
    ("So {hero} asked ", "for help. "),
    ("All day {hero} worked with ", "in the barn. "),
    ("Then ", "came by to help. "),
)
ENDINGS = {
    "happy": ("In the end all was well, and {hero} was happy.", "Soon {hero} felt glad again."),
    "sad": ("In the end nothing helped, and {hero} was sad.", "Late that night {hero} cried."),
}

# A careless teller sometimes takes one of three other heroes or things, or the other ending.
RIGHT = (1.0,)
MOSTLY_RIGHT = (0.88, 0.04, 0.04, 0.04)
BEGINNING_CHANCES = {
    careless: Chances(p / len(BEGINNINGS) for p in probs for _ in BEGINNINGS)
    for careless, probs in ((False, RIGHT), (True, MOSTLY_RIGHT))
}
THING_CHANCES = {False: Chances(RIGHT), True: Chances(MOSTLY_RIGHT)}
THREE_WAYS = Chances([1.0] * 3)
ENDING_CHANCES = {False: Chances([0.5, 0.5]), True: Chances([0.375, 0.375, 0.125, 0.125])}
ANY_ENDING = Chances([0.25] * 4)


def alternatives(words: tuple[str, ...], word: str, careless: bool) -> list[str]:
    """Return a word and, for a careless teller, the three that follow it in a list (cyclically)."""
    at = words.index(word)
    return [words[(at + step) % len(words)] for step in range(4 if careless else 1)]


def speak_tale(speaker: Speaker, request: StoryRequest, careless: bool = False) -> str:
    """Speak a tale about the hero and the thing asked for; return its last sentence."""
    beginnings = [
        (hero, beginning.format(hero=hero))
        for hero in alternatives(PERSONS, str(request.hero), careless)
        for beginning in BEGINNINGS
    ]
    hero, _ = beginnings[speaker.pick(BEGINNING_CHANCES[careless], lambda i: beginnings[i][1])]
    things = alternatives(THINGS, str(request.thing), careless)
    texts = [f"{article_of(thing)}{thing}. " for thing in things]
    thing = things[speaker.pick(THING_CHANCES[careless], texts.__getitem__)]
    speaker.pick(THREE_WAYS, lambda i: TROUBLES[i].format(thing=thing))
    which = speaker.pick(THREE_WAYS, lambda i: ATTEMPTS[i][0].format(hero=hero))
    speaker.choose(FRIENDS.without(hero))
    speaker.say(ATTEMPTS[which][1])
    endings, chances = list(ENDINGS["happy"] + ENDINGS["sad"]), ANY_ENDING
    if request.ending:
        right, wrong = (ENDINGS[name] for name in sorted(ENDINGS, key=request.ending.__ne__))
        endings, chances = list(right + wrong if careless else right), ENDING_CHANCES[careless]
    last = [ending.format(hero=hero) for ending in endings]
    return last[speaker.pick(chances, last.__getitem__)]
