# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Plots about things and skills: what the hero wants, what gets in the way, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gptbook.tinyworld_narrator import Wordings
from gptbook.tinyworld_scenes import (
    HELPER_PAST,
    MEETING,
    PASTIME,
    Story,
    tell_helper,
    tell_meeting,
    tell_packing,
)


class Plot(NamedTuple):
    """How a story can go."""

    start: tuple[str, ...]  # wordings of its first sentence; they show which plot it is
    tell: Callable[[Story], None]  # all that follows, up to the turn


LOST_START = (
    "But where was the [look] [color] [thing=thing]? {hero} had left {thing.them} [corner].",
    "{hero} owned [a look] [color] [thing=thing], but that day {thing.they} was missing.",
    "Something was wrong: the [look] [color] [thing=thing] of {hero}'s [relative] was gone.",
    "To {hero}'s surprise, the [look] [color] [thing=thing] was no longer [corner].",
)
LOST_SEARCH = Wordings(
    "{hero} [searched] [corner] [how], but there was only [a look] [color] cup.",
    "First {hero} [searched] [one=corner], and then [corner not one].",
    "For {hero}, the {thing} was like a friend, so {hero.they} [searched] [how], even [corner].",
    "In vain {hero} [searched] [long] and [found] [number] [look] [finds], but no {thing}.",
)
LOST_TOGETHER = Wordings(
    "Together they [searched] [one=nook] and [nook not one].",
    "{friend} [one=searched] [two=nook] [how], while {hero} [searched not one] [nook not two].",
    "The two of them [walked] to the {place} [how] and [searched] [nook].",
    "All they found at first was [a look] [color] [thing not thing] with a hole.",
)
LOST_TURN = Wordings(
    happy=(
        "{hero} saw something [color] [nook]. The {thing}! {hero} [took] {thing.them} [how].",
        "{friend} found the {thing} [nook] and [gave] {thing.them} [how] to {hero}.",
        "the {thing} turned up [nook], dusty but safe, and {hero} [felt] [happy].",
    ),
    sad=(
        "they heard from [a trait] [occupation] that the {thing} [harm].",
        "they found what was left of the {thing}: {thing.they} was [one=broken] and [broken not"
        " one].",
        "they had to stop, for [a big] [color] [animal] had carried the {thing} away [how].",
        "it grew dark, and the {thing} was still missing. {hero} [felt] [sad] and [tired].",
    ),
)


def lost(story: Story) -> None:
    """The hero misses the thing and searches for it, alone and then with a friend."""
    story.goal = f"find the {story['thing']}"
    story.happened(f"lost the {story['thing']}")
    story.tell(LOST_SEARCH)
    story.paragraph()
    tell_meeting(story)
    story.happened(f"asked {story['friend']} for help")
    story.tell(LOST_TOGETHER)
    story.happened(f"searched for the {story['thing']}")
    story.soon()
    if story.turn(LOST_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"got the {story['thing']} back")
    else:
        story.happened(f"never had the {story['thing']} again")


MADE_START = (
    "{hero} wanted to make [a look] [color] [thing=thing] for the [season] fair.",
    "There was nothing that {hero} wanted more than [a look] [color] [thing=thing], but nobody"
    " sold one.",
    "From a book, {hero} knew about [a look] [color] [thing=thing], and now {hero.they} [wanted] to"
    " make one.",
    '"I will make [a look] [color] [thing=thing] myself," {hero} [said] [tone].',
)
MADE_MATERIAL = Wordings(
    "So {hero} gathered [stuff=material], some [color] [material not stuff] and [a look]"
    " [tool=tool].",
    "{hero} took [a look] [tool=tool] and [found] some [color] [stuff=material] [corner].",
    "From the {place} {hero} brought [number] bags of [stuff=material] and [a look] [tool=tool].",
    "{hero.Their} [trait] [relative] [gave] {hero} some [color] [stuff=material] and"
    " [a look] [tool=tool].",
)
MADE_WORK = Wordings(
    "{hero} cut the {stuff} [how] and worked [work] [long].",
    "All the work was done [work], and {hero} [felt] [tired] but [happy].",
    "With the {stuff} in one hand and the {tool} in the other, {hero} worked [how] [work].",
    "First {hero} measured [how], and then {hero.they} mixed [one=a color] paint and [a color not"
    " one] one.",
)
MADE_HELP = Wordings(
    "{friend} held the {stuff} [one=how], and {hero} used the {tool} [how not one].",
    "While {hero} worked [how], {friend} painted [number] [color] stripes.",
    "Working [how] [work], they used up all the {stuff}.",
    "{friend} knew a trick with [color] [material] and showed {hero} how to do it [how].",
)
MADE_TURN = Wordings(
    happy=(
        "the {thing} was ready. {thing.They} was [color] and [look], and {hero} [took]"
        " {thing.them} [how].",
        "{hero} had made the finest {thing} in the valley, and {friend} [felt] [happy].",
        "there stood a new {thing}, as good as any in the shops, and {hero} [felt] [happy].",
    ),
    sad=(
        "the {thing} was ready, but then {thing.they} [harm].",
        "{hero} dropped the [look] {tool} on the {thing}, and {thing.they} was [broken].",
        "they ran out of [color] [material], and the {thing} was never finished. {hero} [felt]"
        " [sad].",
    ),
)


def made(story: Story) -> None:
    """The hero makes the thing out of what can be found, and a friend helps."""
    story.goal = f"make {story.a('thing')}"
    story.tell(MADE_MATERIAL)
    story.happened(f"gathered {story['stuff']}")
    story.tell(MADE_WORK)
    story.paragraph()
    story.tell(MEETING)
    story.tell(MADE_HELP)
    story.tell(PASTIME)
    story.soon()
    if story.turn(MADE_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"made the {story['thing']}")
    else:
        story.happened(f"had to do without the {story['thing']}")


BROKEN_START = (
    "{hero} tripped over [a trip] and dropped the [look] [color] [thing=thing] of {hero.their}"
    " [relative].",
    "By accident, {hero} sat down on the [look] [color] [thing=thing] [corner], and there was a"
    " terrible noise.",
    "Crack! The [look] [color] [thing=thing] slipped out of {hero}'s hands and fell on"
    " {hero.their} [limb].",
    "While {hero} was running, [a trip] was in the way, and [a look] [color] [thing=thing] went"
    " flying.",
)
BROKEN_DAMAGE = Wordings(
    "The {thing} was [one=broken] and [broken not one], and {hero} [felt] [sad].",
    "Now the {thing} lay [nook], [broken], and {hero.their} [limb] hurt, too.",
    '"[Alas]!" [said] {hero} [tone]. The {thing} was [broken].',
    "{hero} rubbed {hero.their} [limb] and looked [how] at the {thing}, which was [broken].",
)
BROKEN_REPAIR = Wordings(
    "They used [color] [one=material], [material not one] and [a look] [tool].",
    "{friend} held the {thing} [how] [long] and did not let go.",
    "For the repair, {hero} had to fetch [color] [material] and [a look] [tool].",
    "The repair was done [how] [work] and took [number] hours.",
)
BROKEN_TURN = Wordings(
    happy=(
        "the {thing} was as good as new, and {hero} [felt] [happy] and carried {thing.them} around"
        " [how].",
        "nobody could tell that the {thing} had been [broken]. {hero} [felt] [one=happy] and"
        " [happy not one].",
        "the {helper} gave the {thing} back to {hero} with [a color] ribbon on top and [said]"
        ' [tone], "[hooray]!"',
    ),
    sad=(
        "they saw that the {thing} could not be mended. {hero} felt [one=sad] and [sad not one].",
        "the {thing} broke again, and [number] [color] pieces fell [nook].",
        "the {helper} had to say it [tone]: no [tool] and no [material] could save the {thing}.",
    ),
)


def broken(story: Story) -> None:
    """The hero breaks the thing, and somebody who knows how tries to mend it."""
    story.goal = f"mend the {story['thing']}"
    story.happened(f"broke the {story['thing']}")
    story.tell(BROKEN_DAMAGE)
    story.paragraph()
    tell_helper(story)
    story.happened(f"went to the {story['helper']}")
    story.tell(MEETING)
    story.tell(BROKEN_REPAIR)
    story.soon()
    if story.turn(BROKEN_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"mended the {story['thing']}")
    else:
        story.happened(f"had to throw the {story['thing']} away")


SKILL_START = (
    "{hero} wanted to learn how to [skill=skill], and the prize of the contest was [a look] [color]"
    " [thing=thing].",
    "Whoever could [skill=skill] best would win [a look] [color] [thing=thing], so {hero} had to"
    " learn it fast.",
    '"Learn to [skill=skill], and the [look] [color] [thing=thing] is yours," {hero.their} [trait]'
    " [relative] had told {hero}.",
    "At the [season] fair, one could win [a look] [color] [thing=thing]: one only had to"
    " [skill=skill].",
)
SKILL_PRACTICE = Wordings(
    "{hero} practiced [how] [work] [long], but at first it went wrong [number] times.",
    "Day by day, {hero} practiced [how], until {hero.their} [limb] hurt and {hero.they} [felt]"
    " [tired].",
    "In the beginning, {hero} fell over [a trip], hurt {hero.their} [limb] and [felt] [sad].",
    "It was hard to {skill}, and {hero} [felt] [angry], but {hero.they} tried [number] times.",
)
SKILL_ADVICE = Wordings(
    '"Do it [how], and remember that [lesson]," the {helper} [said] [tone].',
    "The {helper} showed {hero} how to {skill}: first [one=how], then [how not one].",
    "It helped to count to [number], to breathe [how] and to drink [drink].",
    "The {helper} and {hero} practiced [one=how] [work], and {friend} watched [how not one].",
)
SKILL_TURN = Wordings(
    happy=(
        "{hero} could {skill}! [A trait] judge [gave] {hero.them} the {thing}.",
        "the contest began, and {hero} did everything [one=how]. {friend} cheered [how not one]"
        " when {hero} won the {thing}.",
        "it was time to {skill}, and {hero} did it [how]. Nobody was better, and {hero.they}"
        " [took] the {thing}.",
    ),
    sad=(
        "the contest began, but {hero} [felt] [afraid] and forgot everything. {rival} [took] the"
        " {thing} [how].",
        "it was time to {skill}, but {hero} slipped on [a trip], and the {thing} went to {rival}.",
        "{hero} hurt {hero.their} [limb] and had to stay at home [long], and {rival} won the"
        " {thing}.",
    ),
)
RIVAL = Wordings(
    "Everybody said that [rival=person not hero friend] would win.",
    "There was also [rival=person not hero friend], [a trait] [child] who could do it [how].",
    "But [rival=person not hero friend] practiced [how] [long], too.",
)


def skill(story: Story) -> None:
    """The hero learns to do something, with advice, and competes for the thing."""
    story.goal = f"learn to {story['skill']}"
    story.tell(SKILL_PRACTICE)
    story.happened("practiced hard")
    story.paragraph()
    story.tell(MEETING)
    tell_helper(story)
    story.tell(SKILL_ADVICE)
    story.happened(f"listened to the {story['helper']}")
    story.tell(RIVAL)
    story.soon()
    if story.turn(SKILL_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"won the {story['thing']}")
    else:
        story.holder = "rival"
        story.happened("lost the contest")


BIRTHDAY_START = (
    "It was the birthday of [friend=person not hero], and {hero} [wanted] to give {friend.them}"
    " [a look] [color] [thing=thing].",
    "{hero} had been invited to a party by [friend=person not hero], and {hero.they} had bought"
    " [a look] [color] [thing=thing] as a gift.",
    '"What does one give to [friend=person not hero]?" {hero} wondered [how]. "Perhaps [a look]'
    ' [color] [thing=thing]."',
    "Soon [friend=person not hero] would be [age] years old, and {hero} had hidden [a look]"
    " [color] [thing=thing] [corner] as a surprise.",
)
BIRTHDAY_GUESTS = Wordings(
    "There were [number] [trait] [guest], and one of them [gave] {friend} [a gift].",
    "{friend}'s [trait] [relative] had made [one=taste] [two=treat] and [taste not one] [treat not"
    " two] for [number] [guest].",
    "They hung up [number] [color] lanterns, played [game] and [play].",
    "The [trait] [guest] brought [one=a gift], [a gift not one] and [taste] [treat].",
)
BIRTHDAY_TURN = Wordings(
    happy=(
        '{friend} opened the parcel, [found] the {thing} and [said] [tone], "[hooray]!"',
        "{hero} gave the {thing} to {friend}, who [felt] [happy] and hugged {hero} [how].",
        "the {thing} lay between [one=a gift] and [a gift not one], and {friend} liked"
        " {thing.them} best.",
    ),
    sad=(
        "{friend} opened the parcel [how], but the {thing} was [one=broken] and [broken not one].",
        "{hero} wanted to fetch the {thing} [how], but {thing.they} [harm] on the way.",
        "they saw that [a big] [pet] had eaten the [taste] [treat], and the {thing} was [broken].",
    ),
)


def birthday(story: Story) -> None:
    """The hero gives the thing to a friend as a gift; then the friend has it."""
    story.goal = f"give {story['friend']} {story.a('thing')}"
    story.happened(f"brought {story.a('thing')}")
    tell_packing(story)
    story.happened("packed the gift")
    story.paragraph()
    story.tell(BIRTHDAY_GUESTS)
    story.tell(PASTIME)
    story.soon()
    if story.turn(BIRTHDAY_TURN) == "happy":
        story.holder = "friend"
        story.happened(f"gave {story['friend']} the {story['thing']}")
    else:
        story.happened("had no gift to give")


SURPRISE_START = (
    "{hero} had a secret: the [look] [color] [thing=thing] [corner] was a gift for the"
    " [helper=occupation].",
    "Nobody was to know that {hero} had bought [a look] [color] [thing=thing] for the"
    " [helper=occupation].",
    '"Do not tell the [helper=occupation]," {hero} [said] [tone] and hid [a look] [color]'
    " [thing=thing] [corner].",
    "In secret, {hero} had planned [long] to surprise the [helper=occupation] with [a look]"
    " [color] [thing=thing].",
)
SURPRISE_TURN = Wordings(
    happy=(
        'the {helper} opened the door [how], and everybody called, "[hooray]!" {hero} [gave] the'
        " {thing} to the {helper}.",
        "they all jumped up. The {helper} [felt] [happy] and [took] the {thing} [how].",
        'the {helper} saw the {thing}, shed a tear, [said] [tone], "[hooray]!" and hugged'
        " {hero} [how].",
    ),
    sad=(
        "the {helper} came too early, and in the hurry the {thing} [harm].",
        "only [a big] [color] [pet] came, and the {thing} was [broken]. {hero} [felt] [sad].",
        "the {helper} had to leave town [long], nobody came, and {hero} [felt] [sad]. The {thing}"
        " was [broken].",
    ),
)


def surprise(story: Story) -> None:
    """The hero prepares a surprise, with the thing as a gift, for somebody in the town."""
    story.goal = f"surprise the {story['helper']}"
    story.happened(f"got {story.a('thing')}")
    story.tell(HELPER_PAST)
    story.paragraph()
    tell_meeting(story)
    story.tell(SURPRISE_PLAN)
    story.happened("made a plan")
    story.soon()
    if story.turn(SURPRISE_TURN) == "happy":
        story.holder = "helper"
        story.happened(f"gave the {story['helper']} the {story['thing']}")
    else:
        story.happened("had nothing to give")


# The plots of this module, by name.
THINGS_AND_SKILLS = {
    "lost": Plot(LOST_START, lost),
    "made": Plot(MADE_START, made),
    "broken": Plot(BROKEN_START, broken),
    "skill": Plot(SKILL_START, skill),
    "birthday": Plot(BIRTHDAY_START, birthday),
    "surprise": Plot(SURPRISE_START, surprise),
}
SURPRISE_PLAN = Wordings(
    "The plan was to wait [nook] [long].",
    "They wrote [a look] poem on [color] paper and ate [taste] [treat].",
    "{friend} had to [one=chore], and {hero} had to [chore not one].",
    "At the {place}, they hung up [number] [look] [color] lamps.",
)
