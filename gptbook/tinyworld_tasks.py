# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Tasks with right answers: arithmetic, lists to copy, reverse or sort, and summaries."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gptbook.tinyworld_people import ANIMALS, THINGS, listed
from gptbook.tinyworld_speech import Chances, Options, Speaker, Told
from gptbook.tinyworld_stories import StoryRecord, StoryTeller

AFTER_PROBLEM = Options([(" ", 3.0, True), ("\n", 1.0, False)])  # one more, or the end
AFTER_LIST = Options([(" ", 1.0, True), ("\n", 1.0, False)])

# --- arithmetic ---

ONES = listed("""
    zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen,
    fourteen, fifteen, sixteen, seventeen, eighteen, nineteen
""")
TENS = listed("twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety")
OPERATIONS = ("plus", "minus", "times")
SIGNS = {"plus": "+", "minus": "-", "times": "*"}
LARGEST_FACTOR = 12


def number_words(number: int) -> str:
    """Spell a number from 0 to 999,999: 142 is "one hundred forty-two"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[rest]}" if rest else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, size)
    return f"{number_words(count)} {name}" + (f" {number_words(rest)}" if rest else "")


def compute(operation: str, a: int, b: int) -> int:
    """Return a plus, minus or times b."""
    return {"plus": a + b, "minus": a - b, "times": a * b}[operation]


@dataclass(frozen=True, eq=False)
class Style:
    """How a problem is written: the start, the operation, and what follows the second number."""

    start: str
    number: Callable[[int], str]
    signs: bool  # "+" or "plus"
    ending: str

    def sign(self, operation: str) -> str:
        """Return the operation as this style writes it."""
        return SIGNS[operation] if self.signs else operation

    def first(self, number: int, operation: str) -> str:
        """Return the first number with the operation; a capital opens a sentence."""
        words = f"{self.number(number)} {self.sign(operation)} "
        return words if self.start else words[0].upper() + words[1:]


WRITTEN_STYLES = (
    Style("", str, True, " = "),
    Style("", str, False, " is "),
    Style("", number_words, False, " is "),
)
ASKED_STYLES = (
    Style("What is ", str, False, "?"),
    Style("What is ", number_words, False, "?"),
)


@dataclass(frozen=True)
class Problem:
    """An arithmetic problem that was spoken, and its answer in the same style."""

    operation: str
    a: int
    b: int
    answer: str
    style: Style


class Arithmetic:
    """Problems with numbers up to `largest` (factors up to 12), of which a tenth is held out.

    No difference is negative. A sum or product is held out together with its mirror image, so that
    knowing 25 + 17 does not give 17 + 25 away.
    """

    def __init__(self, seed: int = 0, largest: int = 99, *, hold_out: bool = True) -> None:
        if not 12 <= largest <= 999:
            raise ValueError(f"largest_number is {largest}; it must be from 12 to 999")
        self.seed = seed
        self.largest = largest
        self.hold_out = hold_out  # False: pose every problem, as a test may
        self._seconds: dict[tuple[Style, str, int], Options[int]] = {}

    def held_out(self, operation: str, a: int, b: int) -> bool:
        """Return whether no document poses this problem."""
        if operation != "minus" and a > b:
            a, b = b, a
        return zlib.crc32(f"{self.seed} {a} {operation} {b}".encode()) % 10 == 0

    def firsts(self, styles: Sequence[Style]) -> Options[tuple[Style, str, int]]:
        """Return the options for the first number and the operation, in any of the styles.

        The operations are equally likely, and so are the problems of an operation.
        """
        items = []
        for operation in OPERATIONS:
            counts = [len(self._partners(operation, a)) for a in range(self.largest + 1)]
            items += [
                (style.first(a, operation), count / sum(counts), (style, operation, a))
                for a, count in enumerate(counts)
                if count
                for style in styles
            ]
        return Options(items)

    def finish(self, speaker: Speaker, first: tuple[Style, str, int]) -> Problem:
        """Speak the second number of a problem."""
        if first not in self._seconds:
            style, operation, a = first
            self._seconds[first] = Options(
                (f"{style.number(b)}{style.ending}", 1.0, b) for b in self._partners(operation, a)
            )
        style, operation, a = first
        b = speaker.choose(self._seconds[first])
        return Problem(operation, a, b, style.number(compute(operation, a, b)), style)

    def _partners(self, operation: str, a: int) -> list[int]:
        """Return the second numbers that a problem with this first number may have."""
        largest = {"plus": self.largest, "minus": a, "times": LARGEST_FACTOR}[operation]
        if operation == "times" and a > LARGEST_FACTOR:
            return []
        return [
            b for b in range(largest + 1) if not (self.hold_out and self.held_out(operation, a, b))
        ]


class ArithmeticTeller:
    """Tells documents of kind "arithmetic": "17 + 25 = 42. Nine minus four is five."."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; meta["problems"] holds its problems."""
        problems = [self._problem(speaker)]
        while speaker.choose(AFTER_PROBLEM):
            problems.append(self._problem(speaker))
        return Told(meta={"problems": tuple(problems)})

    @cached_property
    def _firsts(self) -> Options[tuple[Style, str, int]]:
        return self.arithmetic.firsts(WRITTEN_STYLES)

    def _problem(self, speaker: Speaker) -> Problem:
        problem = self.arithmetic.finish(speaker, speaker.choose(self._firsts))
        speaker.say(f"{problem.answer}.")
        return problem


# --- lists ---

LIST_ITEMS = {
    "words": THINGS + ANIMALS,
    "letters": tuple("abcdefghijklmnopqrstuvwxyz"),
    "numbers": tuple(str(number) for number in range(100)),
}
LIST_TASKS = ("copy", "reverse", "sort")


def solve_list(task: str, items: Sequence[str]) -> list[str]:
    """Return the items copied, reversed or sorted; numbers are sorted by value."""
    if task == "sort":
        return sorted(items, key=lambda item: (int(item) if item.isdigit() else 0, item))
    return list(items) if task == "copy" else list(reversed(items))


class ItemLists:
    """Lists of 2 to `longest` words, letters or numbers; every length is equally likely."""

    def __init__(self, longest: int = 8) -> None:
        if not 2 <= longest <= 26:
            raise ValueError(f"longest_list is {longest}; it must be from 2 to 26")
        self.longest = longest
        self._first = Options(
            (f"{item}, ", 1 / len(items), (item, kind))
            for kind, items in LIST_ITEMS.items()
            for item in items
        )
        self._later = {
            (kind, position): self._options(kind, position)
            for kind in LIST_ITEMS
            for position in range(2, longest + 1)
        }

    def speak(self, speaker: Speaker) -> list[str]:
        """Speak a list with commas and a period at its end; return its items."""
        item, kind = speaker.choose(self._first)
        items = [item]
        ended = False
        while not ended:
            item, ended = speaker.choose(self._later[kind, len(items) + 1])
            items.append(item)
        return items

    def _options(self, kind: str, position: int) -> Options[tuple[str, bool]]:
        """Return the items for a position, with the comma or the period that follows."""
        end = 1 / (self.longest - position + 1)
        endings = [(", ", 1 - end, False), (".", end, True)]
        return Options(
            (f"{item}{mark}", chance, (item, ended))
            for item in LIST_ITEMS[kind]
            for mark, chance, ended in endings
            if chance > 0
        )


LIST_COMMANDS = Options((f"{task.capitalize()}: ", 1.0, task) for task in LIST_TASKS)


class ListTeller:
    """Tells documents of kind "lists": "Reverse: kite, drum. Answer: drum, kite."."""

    def __init__(self, lists: ItemLists) -> None:
        self.lists = lists

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; meta["lists"] holds (task, items, answer) for each list."""
        solved = [self._one(speaker)]
        while speaker.choose(AFTER_LIST):
            solved.append(self._one(speaker))
        return Told(meta={"lists": tuple(solved)})

    def _one(self, speaker: Speaker) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        task = speaker.choose(LIST_COMMANDS)
        items = self.lists.speak(speaker)
        answer = solve_list(task, items)
        speaker.say(f" Answer: {', '.join(answer)}.")
        return task, tuple(items), tuple(answer)


# --- summaries ---

WANTED = (
    "{hero} wanted to {goal}.",
    "This is about {hero}, who wanted to {goal}.",
    "The story tells how {hero} tried to {goal}.",
)
HAPPENED = ("{Pronoun} {events}.", "What happened: {pronoun} {events}.")
EQUALLY = {n: Chances([1.0] * n) for n in (2, 3)}  # n wordings, equally likely
ENDED = {
    "happy": ("In the end {pronoun} was happy.", "It ended well."),
    "sad": ("In the end {pronoun} was sad.", "It ended badly."),
}


def speak_summary(speaker: Speaker, record: StoryRecord) -> str:
    """Speak a summary of a story: who wanted what, what happened, how it ended."""
    words = {
        "hero": record.hero,
        "goal": record.goal,
        "pronoun": record.pronoun,
        "Pronoun": record.pronoun.capitalize(),
        "events": joined(record.events),
    }
    sentences: list[str] = []
    for wordings in (WANTED, HAPPENED, ENDED[record.ending]):
        filled = [wording.format(**words) for wording in wordings]
        if sentences:
            speaker.say(" ")
        sentences.append(filled[speaker.pick(EQUALLY[len(filled)], filled.__getitem__)])
    return " ".join(sentences)


def joined(phrases: Sequence[str]) -> str:
    """Join phrases with commas and "and"."""
    return (
        " and ".join(phrases)
        if len(phrases) < 3
        else f"{', '.join(phrases[:-1])}, and {phrases[-1]}"
    )


class SummaryTeller:
    """Tells documents of kind "summary": a story and its reference summary."""

    def __init__(self, stories: StoryTeller) -> None:
        self.stories = stories

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; meta holds the story's record and its summary."""
        record = self.stories.tell(speaker)
        speaker.say("\nSummary: ")
        summary = speak_summary(speaker, record)
        speaker.say("\n")
        return Told(mentions=record.mentions, meta={"record": record, "summary": summary})
