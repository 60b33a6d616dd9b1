# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Plots about people, animals and the weather: sharing, quarrels, storms, journeys, rescues."""

from __future__ import annotations

from gptbook.tinyworld_narrator import Wordings
from gptbook.tinyworld_plots import Plot
from gptbook.tinyworld_scenes import (
    HELPER_PAST,
    MEETING,
    PASTIME,
    Story,
    tell_balking,
    tell_helper,
    tell_meeting,
    tell_packing,
)

SHARED_START = (
    "There was only one [look] [color] [thing=thing] at the [sight] [place], and {hero} got"
    " {thing.them} first.",
    "From an aunt {hero} got [a look] [color] [thing=thing], the only one in the valley.",
    "On a bench lay [a look] [color] [thing=thing], free for anybody, and {hero} [took]"
    " {thing.them} [how].",
    "All the [trait] children wanted to play with the [look] [color] [thing=thing], but {hero} had"
    " {thing.them}.",
)
SHARED_WISH = Wordings(
    '"I have wished for such {a thing} [long]," {friend} [said] [tone].',
    "{friend} had never held {a thing} and [felt] [sad] and [angry].",
    "{friend} offered [number] [color] [finds] and [taste] [treat] for one hour with the {thing}.",
    '{friend} pointed [how] to the {thing} and [said] [tone], "[please]?"',
)
SHARED_TURN = Wordings(
    happy=(
        "{hero} gave {friend} the {thing}, because {friend} was [trait] and [felt] [sad].",
        '{hero} said, "Take {thing.them}!" {friend} [took] the {thing} [how] and [felt] [happy].',
        "they agreed: {hero} would have the {thing} in the [season], and {friend} would have"
        " {thing.them} first. {friend} [took] {thing.them} [how].",
    ),
    sad=(
        "{hero} hid the {thing} [corner], where {thing.they} [harm]. {friend} left [how].",
        '{hero} shouted "No!" [tone], but both of them pulled [how], and the {thing} was [broken].',
        "{hero} and {friend} both pulled [how] [long] until the {thing} was [one=broken] and"
        " [broken not one].",
    ),
)


def shared(story: Story) -> None:
    """There is one thing and two who want it: the hero shares, or keeps it and is alone."""
    story.goal = f"play with the {story['thing']}"
    story.holder = "hero"
    story.happened(f"got {story.a('thing')}")
    tell_packing(story)
    story.paragraph()
    story.tell(MEETING)
    story.tell(SHARED_WISH)
    story.tell(PASTIME)
    story.soon()
    if story.turn(SHARED_TURN) == "happy":
        story.holder = "friend"
        story.happened(f"shared the {story['thing']} with {story['friend']}")
    else:
        story.holder = ""
        story.happened(f"did not share the {story['thing']}")


QUARREL_START = (
    "{hero} and [friend=person not hero] quarreled over [a look] [color] [thing=thing].",
    "A quarrel began: [friend=person not hero] had taken the [look] [color] [thing=thing] of"
    " {hero}.",
    '"That [look] [color] [thing=thing] is mine!" {hero} shouted at [friend=person not hero].',
    "Until that day, {hero} and [friend=person not hero] had shared [a look] [color]"
    " [thing=thing].",
)
QUARREL_FIGHT = Wordings(
    "{friend} [felt] [angry], called {hero} [a trait] fool and kept the {thing}.",
    "They shouted [tone] [long], and [meanwhile], and {friend} kept the {thing}.",
    "{hero} [felt] [angry] and [sad], while {friend} hid the {thing} [corner].",
    "Because {friend} [felt] [angry], {friend.they} took the {thing} and [walked] home [how].",
)
QUARREL_ADVICE = Wordings(
    '"Go and talk to {friend}," the {helper} [said] [tone], "for [lesson]."',
    "The {helper} knew that [lesson], and told {hero} so [tone].",
    "From the {helper}, {hero} got [taste] [treat], [drink] and good advice: [lesson].",
)
QUARREL_TURN = Wordings(
    happy=(
        "{hero} said sorry [tone], and {friend} [gave] {hero} the {thing} and [taste] [treat].",
        "{friend} came [one=how] to {hero} with the {thing} and [a gift], and they shook hands"
        " [how not one].",
        "the two met [nook], [play], and {friend} let {hero} have the {thing}.",
    ),
    sad=(
        "at {friend}'s [color] house, {hero} knocked [how] [long], but {friend} kept the {thing}.",
        "{friend} moved away with the {thing} to [a sight] [place], and {hero} [felt] [sad].",
        "{hero} wrote [a look] [color] letter, but {friend} did not answer and kept the {thing}.",
    ),
)


def quarrel(story: Story) -> None:
    """Two friends fall out over the thing, and make up or do not."""
    story.goal = f"make up with {story['friend']}"
    story.holder = "friend"
    story.happened(f"quarreled with {story['friend']}")
    story.tell(QUARREL_FIGHT)
    story.paragraph()
    tell_helper(story)
    story.tell(QUARREL_ADVICE)
    story.happened(f"listened to the {story['helper']}")
    story.soon()
    if story.turn(QUARREL_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"made up with {story['friend']}")
    else:
        story.happened(f"lost {story['friend']} as a friend")


STORM_START = (
    "Dark clouds came up when {hero} was on the way home with [a look] [color] [thing=thing].",
    "{hero} was carrying [a look] [color] [thing=thing] across a field when the [storm] came.",
    "Nobody had expected the [storm], least of all {hero}, who was outside with [a look] [color]"
    " [thing=thing].",
    "With [a look] [color] [thing=thing] under one arm, {hero} saw lightning over the {place}.",
)
STORM_RAGE = Wordings(
    "The wind tore [number] [color] [from_trees] from the trees, and {hero} [felt] [afraid].",
    "Hail fell on the [path] roads, and {hero} [felt] [tired] and [afraid].",
    "It thundered [long], and {hero} [searched] [one=nook] and [nook not one] for a dry place.",
    "Water ran down the [path] road, and [color] [one=finds] and [look] [finds not one] floated"
    " by.",
)
STORM_SHELTER = Wordings(
    "They [walked] to [a look] [shelter=shelter] and sat there [how] [long].",
    "{friend} knew [a look] [shelter=shelter] near the {place}, and they [walked] there [how].",
    "In [a look] [shelter=shelter] they ate [taste] [treat] and [play].",
    "{hero} and {friend} hid in [a look] [color] [shelter=shelter] [long].",
)
STORM_TURN = Wordings(
    happy=(
        "the rain stopped. {hero} still held the {thing}, {thing.they} was dry, and everybody"
        " [felt] [happy].",
        "the sun came out, and they [found] the {thing} [nook]. {hero} [took] {thing.them} [how].",
        "the storm was over, and {hero} [walked] out of the {shelter} with the {thing}.",
    ),
    sad=(
        "the storm was over, but the {thing} was [one=broken] and [broken not one].",
        "a gust tore the {thing} from {hero}'s hands, and {thing.they} [harm].",
        "the water rose in the {shelter}, the friends had to leave [how], and the {thing} [harm].",
    ),
)


def storm(story: Story) -> None:
    """The hero is out with the thing when a storm comes."""
    story.goal = f"bring the {story['thing']} home"
    story.holder = "hero"
    story.tell(STORM_RAGE)
    story.happened("was caught in a storm")
    story.paragraph()
    story.tell(MEETING)
    story.tell(STORM_SHELTER)
    story.happened(f"hid in {story.a('shelter')}")
    story.tell(PASTIME)
    story.soon()
    if story.turn(STORM_TURN) == "happy":
        story.happened(f"brought the {story['thing']} home")
    else:
        story.holder = ""
        story.happened(f"came home without the {story['thing']}")


JOURNEY_START = (
    "{hero.Their} [trait] [host=relative] lived far away and needed [a look] [color]"
    " [thing=thing], so {hero} set out [how].",
    "{hero} was to bring [a look] [color] [thing=thing] to {hero.their} [trait]"
    " [host=relative] in the next valley.",
    "A letter came from {hero}'s [trait] [host=relative]: \"I need the [look] [color]"
    ' [thing=thing]!"',
    "There were [number] miles to the [house] of {hero}'s [trait] [host=relative], and {hero}"
    " had to carry [a look] [color] [thing=thing].",
)
JOURNEY_ROAD = Wordings(
    "{hero} [walked] along [a path] road [how], past the [sight] [place] and [number]"
    " [color] houses.",
    "First came [one=a path] road, then [a path not one] one, and {hero} [felt] [two=tired] and"
    " [tired not two].",
    "The way led from the {place} to the [sight] [place], and [meanwhile].",
    "At night, {hero} slept [nook], ate [taste] [treat] and drank [drink].",
)
JOURNEY_TURN = Wordings(
    happy=(
        "they saw the [color] house. {hero} gave the {thing} to {hero.their} {host}, who [felt]"
        " [happy].",
        '{hero}\'s {host} opened the door [how], took the {thing} and [said], "[hooray]!"',
        "they arrived, [tired] and [happy], and the {host} [took] the {thing} [how].",
    ),
    sad=(
        "they took [a path] road, which was wrong, slept [nook], and in the morning the {thing} was"
        " gone.",
        "they had to turn back [how], for {hero}'s [limb] hurt, and the {thing} was [broken].",
        "they came to [a sight] river, and while they crossed [how], the {thing} [harm].",
    ),
)


def journey(story: Story) -> None:
    """The hero carries the thing to a relative who lives far away."""
    story.goal = f"bring the {story['thing']} to the {story['host']}"
    story.holder = "hero"
    story.happened(f"set out with {story.a('thing')}")
    story.tell(JOURNEY_ROAD)
    story.paragraph()
    story.tell(MEETING)
    tell_balking(story)
    story.tell(PASTIME)
    story.happened(f"met {story['friend']} on the way")
    story.soon()
    if story.turn(JOURNEY_TURN) == "happy":
        story.holder = "host"
        story.happened(f"gave the {story['thing']} to the {story['host']}")
    else:
        story.holder = ""
        story.happened(f"lost the {story['thing']} on the way")


HELPED_START = (
    "There was trouble: the [helper=occupation] had to [task=chore] before dark, and the [look]"
    " [color] [thing=thing] was the reward.",
    "{hero} heard somebody sigh. The [helper=occupation] had to [task=chore] and had hurt"
    " one [limb] on [a look] [color] [thing=thing].",
    '"Whoever helps me to [task=chore] gets [a look] [color] [thing=thing]," the'
    " [helper=occupation] told {hero}.",
    "Nobody but {hero} wanted to help the [helper=occupation] to [task=chore], although there was"
    " [a look] [color] [thing=thing] to be earned.",
)
HELPED_WORK = Wordings(
    "{hero} and {friend} worked [how] [long] and felt [tired].",
    "{friend} brought [one=a look] [two=tool] and [a look not one] [tool not two], and {hero}"
    " began to {task} [how].",
    "It was done [how] [long], and {hero} [felt] [one=tired] and [tired not one].",
    "{hero} had never had to {task} before, but did it [one=how] and [how not one].",
)
HELPED_TURN = Wordings(
    happy=(
        "all the work was done, and the {helper} gave {hero} the {thing} and [taste] [treat].",
        "the {helper} came to look, [felt] [happy] and [gave] {hero} the {thing}.",
        "everything was ready, and {hero} [walked] home [how] with the {thing}.",
    ),
    sad=(
        "it was dark, everybody [felt] [tired], and the {helper} kept the {thing}.",
        "{hero} fell over [a trip], and all the work was for nothing. The {helper} kept the"
        " {thing}.",
        "rain spoiled all that they had done [how], and the {helper} kept the {thing}. {hero}"
        " [felt] [sad].",
    ),
)


def helped(story: Story) -> None:
    """Somebody in the town has too much to do; the thing is the reward."""
    story.goal = f"help the {story['helper']}"
    story.holder = "helper"
    story.tell(HELPER_PAST)
    story.happened(f"offered to {story['task']}")
    story.paragraph()
    tell_meeting(story)
    story.tell(HELPED_WORK)
    story.happened(f"worked with {story['friend']}")
    story.tell(PASTIME)
    story.soon()
    if story.turn(HELPED_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"earned the {story['thing']}")
    else:
        story.happened(f"did not get the {story['thing']}")


ANIMAL_START = (
    "On a wall hung a note: [friend=person not hero] had lost [a big] [pet=animal], and the finder"
    " would get [a look] [color] [thing=thing].",
    "The whole town was looking for the [big] [pet=animal] of [friend=person not hero], who"
    " promised [a look] [color] [thing=thing] to the finder.",
    '"My [big] [pet=animal] is gone!" cried [friend=person not hero]. "I would give my [look]'
    ' [color] [thing=thing] to have {pet.them} back!"',
    "For [number] days, [friend=person not hero] had missed [a big] [pet=animal]; the reward was"
    " [a look] [color] [thing=thing].",
)
ANIMAL_TRACKS = Wordings(
    "{hero} found tracks [nook] and followed them [how] [long].",
    "With some [taste] [treat] in one hand, {hero} waited [nook] [long].",
    "{hero} asked [number] [trait] [guest], and one of them had heard a noise [nook].",
    "There were [color] hairs [one=nook], so {hero} [searched] [nook not one], too.",
)
ANIMAL_FOUND = Wordings(
    "At last {hero} [found] the {pet} [nook], but the {pet} would not cross the [barrier=barrier]"
    " because",
    "There, [nook], sat the {pet}, which did not cross the [barrier=barrier] because",
    "The {pet} stood [nook], [tired] and alone, and did not cross the [barrier=barrier] because",
)
ANIMAL_TURN = Wordings(
    happy=(
        "{hero} carried the {pet} home [how], and {friend} [gave] {hero} the {thing}.",
        "the {pet} came for some [taste] [treat]. {friend} [felt] [happy] and gave the {thing} to"
        " {hero}.",
        "{friend} hugged the {pet} [how], [felt] [happy], and {hero} got the {thing}.",
    ),
    sad=(
        "the {pet} ran away again [how], and {friend} kept the {thing} and [felt] [sad].",
        "{hero} fell over [a trip], and the {pet} was gone. {friend} kept the {thing}.",
        "a noise like [a big] [animal] scared the {pet} away [how], and {friend} kept the {thing}.",
    ),
)


def animal(story: Story) -> None:
    """The hero looks for the friend's animal; the thing is the reward."""
    story.goal = f"find {story['friend']}'s {story['pet']}"
    story.holder = "friend"
    story.tell(ANIMAL_TRACKS)
    story.happened(f"followed the {story['pet']}")
    story.paragraph()
    story.tell(ANIMAL_FOUND)
    story.because(pet="beast_reason", barrier="barrier_reason")
    tell_helper(story)
    story.happened(f"met {story.a('helper')}")
    story.soon()
    if story.turn(ANIMAL_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"brought the {story['pet']} back to {story['friend']}")
    else:
        story.happened(f"did not catch the {story['pet']}")


TREASURE_START = (
    "Inside [one=a look] book lay a map, and at the end of the path somebody had drawn [a look not"
    " one] [color] [thing=thing].",
    "Once {hero.their} [trait] [relative] had hidden [a look] [color] [thing=thing], and"
    " now {hero} had found the map.",
    '"Find the [look] [color] [thing=thing]!" was written on a note that {hero} [found] [corner].',
    "There was a legend about [a look] [color] [thing=thing], buried [nook], and {hero} believed"
    " it.",
)
TREASURE_CLUES = Wordings(
    "The map said: go [number] steps from the {place} and dig [how] [nook].",
    "First {hero} dug [one=nook], then [nook not one], and [found] only [color] [finds].",
    "A riddle on the map spoke of [a color] stone, [a big] [animal] and [number] [look] [finds].",
    "{hero} bought [one=a look] [tool] and [a look not one] lamp, and [walked] [how] to the"
    " [sight] [place].",
)
TREASURE_DIG = Wordings(
    "{friend} held the lamp [one=how], and {hero} dug [how not one] [long].",
    "They dug up [number] [one=color] [finds] and [a look] [color not one] bottle.",
    "Under [a path] track they hit something hard with [a look] [tool].",
    "The hole grew deeper [how], and {friend} [felt] [tired] and [afraid].",
)
TREASURE_TURN = Wordings(
    happy=(
        "{hero} opened [a look] [color] box [how], and there was the {thing}!",
        "the {thing} came out of the ground, [look] and [color], and {hero} [took] {thing.them}"
        " [how].",
        "{friend} pulled the {thing} out [how] and [gave] {thing.them} to {hero}.",
    ),
    sad=(
        "they found the box, but there were only [number] [color] [finds] in it. The {thing} was"
        " gone.",
        "{hero} lifted the {thing} out [how], but {thing.they} was [broken] and fell to dust.",
        "water filled the hole, and [how] they [walked] home, [tired] and [sad].",
    ),
)


def treasure(story: Story) -> None:
    """The hero follows a map to where the thing is hidden."""
    story.goal = f"find the hidden {story['thing']}"
    story.happened("followed a map")
    story.tell(TREASURE_CLUES)
    story.paragraph()
    tell_meeting(story)
    tell_balking(story)
    story.tell(TREASURE_DIG)
    story.happened(f"dug with {story['friend']}")
    story.soon()
    if story.turn(TREASURE_TURN) == "happy":
        story.holder = "hero"
        story.happened(f"found the {story['thing']}")
    else:
        story.happened(f"came home without the {story['thing']}")


# The plots of this module, by name.
PEOPLE_AND_ROADS = {
    "shared": Plot(SHARED_START, shared),
    "quarrel": Plot(QUARREL_START, quarrel),
    "storm": Plot(STORM_START, storm),
    "journey": Plot(JOURNEY_START, journey),
    "helped": Plot(HELPED_START, helped),
    "animal": Plot(ANIMAL_START, animal),
    "treasure": Plot(TREASURE_START, treasure),
}
