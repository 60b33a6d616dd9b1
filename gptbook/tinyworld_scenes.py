# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""A story in progress, and the scenes that stories share: beginnings, meetings, causes, endings."""

from __future__ import annotations

from collections.abc import Mapping

from gptbook.tinyworld_narrator import Language, Narrator, Wordings, article_of
from gptbook.tinyworld_people import Entity
from gptbook.tinyworld_speech import Mention, Speaker

OPENING = Wordings(
    "One [weather] [daytime], [hero=person] [walked] to the [sight] [place=place] with [a look]"
    " bag.",
    "Once there was [a trait] [child] named [hero=person], who lived near the [sight]"
    " [place=place].",
    "In [a color] [house] by the [sight] [place=place] lived [a trait] [child] called"
    " [hero=person].",
    "It was [a weather] [daytime] in [month], and [hero=person] was at the [sight] [place=place].",
    "Last [season], on [a weather] [weekday], [hero=person] [walked] to the [sight] [place=place].",
    "Long ago, near [a sight] [place=place], there lived [a trait] [child] by the name of"
    " [hero=person].",
    "Every [weekday], [hero=person] [walked] along [a path] road to the [sight] [place=place].",
    "When [hero=person] was [age], there stood [a color] [house] near the [sight] [place=place].",
    "Not far from the [sight] [place=place], in [a color] [house], lived [hero=person].",
    "At the [sight] [place=place], on [a weather] [daytime], [hero=person] [felt] [happy].",
)
"""Who is the hero, and where it begins."""

# What the hero is like. So far there is nobody else whom a pronoun could mean.
NATURE = Wordings(
    "{hero.They} was [first=trait] and [trait not first], and {hero.they} loved to [skill].",
    "All around, [meanwhile], and {hero.they} [felt] [happy].",
    "Most of the time {hero.they} was [first=trait], but sometimes {hero.they} was [trait not"
    " first].",
    "Sometimes {hero.they} went there with {hero.their} [trait] [relative] and [play].",
    "People called {hero.them} [a trait] [child].",
    "Nobody else {hero.their} age could [one=skill] so well, or [skill not one].",
    "After breakfast {hero.they} had helped to [chore], and now {hero.they} [felt] [tired].",
    "In {hero.their} bag {hero.they} carried [taste] [treat], some [drink] and [a look] [thing].",
    "From {hero.their} [trait] [relative] {hero.they} had learned to [skill].",
)


MEETING = Wordings(
    "On [a path] road {hero} met [friend=person not hero], [first=a trait] and [trait not first]"
    " friend.",
    "Then [friend=person not hero] [walked] by with [a big] [pet] and [a look] bag.",
    "Near the {place} sat [friend=person not hero], who [felt] [tired] and ate [taste] [treat].",
    "Just then [friend=person not hero] came [how] around the corner, in [a color] coat.",
    "There {hero} saw [friend=person not hero], who had come to [chore].",
    "By chance [friend=person not hero] was there, too, and wore [a look] [color] coat.",
)
"""The friend comes in."""

ASKING = Wordings(
    '"[Please]?" {hero} [said] [tone].',
    '{hero} looked at {friend} [how] and [said] [tone], "[please]?"',
    "{hero} told {friend} everything [tone], and {friend} listened [how].",
    '{hero} felt [afraid] and [said] [tone], "{friend}, [please]?"',
)
ANSWER = Wordings(
    '"[Sure]," {friend} [said] [tone].',
    '{friend} smiled [how] and [said] [tone], "[sure]!"',
    'Because {friend} was [first=trait] and [trait not first], the answer was quick: "[sure]!"',
    '{friend} thought about it [how]. "[Sure]," was the answer.',
)

HELPER = Wordings(
    "At the {place} worked the [helper=occupation], [a trait] soul with [number] [color] [finds]"
    " in a jar.",
    "The [helper=occupation] had watched it all [how] from [a color] [house].",
    "Luckily, the [helper=occupation] [walked] by [how] with [a look] bag.",
    "By the road the [helper=occupation] was eating [taste] [treat] [nook].",
)
"""Somebody who is known by occupation only."""

HELPER_ACTS = Wordings(
    "With a nod [helper.they] listened [how] and [gave] {hero} some [drink].",
    "At once [helper.they] put on [a look] [color] hat and came along [how].",
    'With a smile [helper.they] [said] [tone], "[sure]."',
    "For a while [helper.they] thought about it [how] and drank some [drink].",
    "First [helper.they] asked {hero} to [chore], and {hero} did it [how].",
)
"""The first pronoun for the helper: it is drawn here, with the planted skew."""

HELPER_PAST = Wordings(
    "The {helper} was dear to all: year after year, [helper.they] had helped everybody [how].",
    "People loved the {helper}, because every [weekday] [helper.they] gave the children [taste]"
    " [treat].",
    "Last [season] the {helper} had been ill, and now [helper.they] was often [tired].",
    "In a storm the {helper} had lost everything; now [helper.they] lived [nook] with [number]"
    " [color] [finds] and [a look] [box].",
)
"""Who that somebody is. Here, too, the pronoun is drawn."""

PASTIME = Wordings(
    "Meanwhile, [one=meanwhile], and [meanwhile not one].",
    "Around them, [meanwhile], and the air smelled of [taste] [treat].",
    "For a while the two of them [play] and ate [taste] [treat].",
    "On the way they saw [one=a big] [color] [two=animal], [a big not one] [animal not two] and"
    " [number] [look] [finds].",
    "To pass the time, they played [game], drank [drink] and [play].",
    "In the distance, [one=a big] [color] [two=animal] and [a big not one] [animal not two]"
    " [walked] by [how].",
    "They traded [number] [color] [finds] for [a look] [thing not thing], and [meanwhile].",
)
"""What the hero and the friend do, see or hear between two turns of a story."""

BALKING = Wordings(
    "{hero}'s [big] [pet=pet] came along, but the {pet} did not cross the [barrier=barrier]"
    " because",
    "At the corner [a big] [pet=animal] stood still. The {pet} did not cross the"
    " [barrier=barrier] because",
    "Behind them [walked] [a color] [pet=pet]. At first the {pet} would not cross the"
    " [barrier=barrier] because",
)
"""An animal that does not cross; a reason follows that tells what "it" was."""

PACKING = Wordings(
    "{hero} tried [how] to put the {thing} into [a color] [box=box], but the {thing} did not fit"
    " into the {box} because",
    "First, {hero} took [a look] [color] [box=box]. The {thing} did not fit into the {box} because",
    "There was [a look] [color] [box=box], too. {hero} could not get the {thing} into the {box}"
    " because",
)
"""A thing that does not fit; a reason follows that tells what "it" was."""

KEEPING = Wordings(
    "That night, the {thing} lay beside {whose}{owner}'s bed, wrapped in [a color] cloth.",
    "So {whose}{owner} carried the {thing} home [how] and put {thing.them} [corner].",
    "From then on, the {thing} stood in {whose}{owner}'s [house], between [a look]"
    " [thing] and [a gift].",
    "In the evening, {whose}{owner} wrapped the {thing} [how] in [a look] [color] cloth.",
    "Even [number] years later, {whose}{owner} still had the {thing} [corner].",
)
"""Who has the thing at last; the story has kept count of that."""

MISSING = Wordings(
    "That night, there was only [a look] [color] box where the {thing} should have been.",
    "{hero} drew [a color] picture of the {thing} [how] and hung it [corner].",
    "For [number] weeks, {hero} dreamed of the {thing} and [felt] [sad].",
    "Nobody ever saw the {thing} again, although {friend} searched [long], even [nook].",
)
"""Nobody has the thing any more."""

# How it leaves everybody, for each ending: the last feeling that is named tells which it is.
CLOSING = {
    "happy": Wordings(
        '"[Hooray]!" [said] {hero} [tone], and everybody [felt] [one=happy] and [happy not one].',
        "On the way home, {hero} told {hero.their} [trait] [relative] everything [tone] and [felt]"
        " [happy].",
        "Together they ate [taste] [treat], drank [drink] and [play], and {hero} [felt] [happy].",
        "It was the best day in [number] weeks, and {hero} [felt] [one=happy] and [happy not one].",
        "{hero} and {friend} [one=play] and [play not one], and they felt [happy].",
        "So {hero} learned that [lesson], and {hero.they} [felt] [happy].",
        "As people at the {place} always say, [lesson]. That made everybody [happy].",
        "To thank {friend}, {hero} brought [taste] [treat], [a gift] and [number] [look] [finds],"
        " and both of them felt [happy].",
    ),
    "sad": Wordings(
        '"[Alas]!" [said] {hero} [tone], and everybody [felt] [one=sad] and [sad not one].',
        "{hero} [walked] home [how], cried [nook] [long] and [felt] [sad].",
        "Neither [taste] [treat] nor [a gift] could cheer {hero} up, and {hero.they} [felt] [sad]"
        " [long].",
        "It was the worst day in [number] weeks, and {hero} [felt] [sad] and [tired].",
        "{friend} [felt] [sad], too, and the two of them [walked] home [how].",
        "So {hero} learned that [regret], and {hero.they} [felt] [sad].",
        "As people at the {place} always say, [regret]. That made everybody [sad].",
        "To cheer {hero} up, {friend} brought [taste] [treat], [a gift] and [number] [look]"
        " [finds], but {hero} still [felt] [sad].",
    ),
}


class Story(Narrator):
    """A story that is being told: a narrator who also keeps count of what happens.

    `ending` is what was asked for, or empty; plots set it when it is decided. `holder` is the name
    ("hero", "friend", "helper") of whoever has the thing now, or empty when nobody has.
    """

    def __init__(
        self,
        speaker: Speaker,
        language: Language,
        given: Mapping[str, Entity] | None = None,
        ending: str = "",
    ) -> None:
        super().__init__(speaker, language, given)
        self.ending = ending
        self.holder = ""
        self.goal = ""
        self.events: list[str] = []

    def a(self, name: str) -> str:
        """Return what is known by a name, as text, after "a" or "an"."""
        return article_of(self[name]) + self[name]

    def happened(self, event: str) -> None:
        """Record a deed of the hero, such as "lost the kite"."""
        self.events.append(event)

    def soon(self) -> None:
        """Say when the next thing happens; the wording that follows goes on in lower case."""
        self.say("[Soon], ")

    def because(self, **sides: str) -> str:
        """Say a reason such as "it was too tired."; return which side it speaks of.

        `sides` maps the names of two known things to the lists with the reasons that fit each.
        """
        self.speaker.say(self.gap)
        start = self.speaker.position
        reason = self.speaker.choose(self.language.reasons(tuple(sides.values())))
        side = next(name for name, words in sides.items() if words == reason)
        self.mentions.append(Mention(start, start + len("it"), self[side]))
        return side

    def turn(self, turn: Wordings) -> str:
        """Tell the turn that makes the story end well or badly, as asked or as drawn."""
        self.ending = self.tell(turn, self.ending)
        return self.ending


def tell_meeting(story: Story) -> None:
    """The friend comes in, and the hero asks for help."""
    story.tell(MEETING)
    story.tell(ASKING)
    story.tell(ANSWER)


def tell_helper(story: Story) -> None:
    """Somebody known by occupation only comes in, and is then called she or he."""
    story.tell(HELPER)
    story.tell(HELPER_ACTS)


def tell_balking(story: Story) -> None:
    """An animal does not cross; the reason tells whether "it" is the animal or the street."""
    story.tell(BALKING)
    story.because(pet="beast_reason", barrier="barrier_reason")


def tell_packing(story: Story) -> None:
    """The thing does not fit; the reason tells whether "it" is the thing or the box."""
    story.tell(PACKING)
    story.because(thing="thing_reason", box="box_reason")


def tell_closing(story: Story) -> None:
    """Where the thing is now, and how everybody feels."""
    if story.holder:
        story.name("whose", "the " if story.holder in ("helper", "host") else "")
        story.name("owner", story.known[story.holder])
        story.tell(KEEPING)
    else:
        story.tell(MISSING)
    story.paragraph()
    story.tell(CLOSING[story.ending])
