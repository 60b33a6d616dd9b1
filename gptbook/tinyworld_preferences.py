# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Pairs of replies to the same prompt, and which of them a judge of known utility prefers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gptbook.tinyworld_chat import END, USER, HowTo, Requester, Task
from gptbook.tinyworld_facts import UNKNOWN, Question
from gptbook.tinyworld_judge import Properties, check_reply, judge_utility
from gptbook.tinyworld_requests import REFUSALS
from gptbook.tinyworld_speech import Chances, Options, Speaker, Told
from gptbook.tinyworld_stories import StoryRequest
from gptbook.tinyworld_tales import speak_tale
from gptbook.tinyworld_tasks import Problem, compute

FIRST, SECOND, BETTER = "<|first|>", "<|second|>", "<|better|>"
PREFERENCE_TOKENS = (FIRST, SECOND, BETTER)
PREFERENCE_SHARES = {"tale": 0.4, "question": 0.15, "sum": 0.15, "how to": 0.3}
PREFERENCE = re.compile(
    r"<\|user\|>(.*?)<\|end\|><\|first\|>(.*?)<\|end\|><\|second\|>(.*?)<\|end\|>"
    r"<\|better\|>(first|second)<\|end\|>\n?",
    re.DOTALL,
)

# --- replies, good and bad ---

POLITE_OPENERS = ("Gladly. ", "Of course. ")
PLAIN_OPENER = "Here you are. "
RUDE_OPENERS = ("What nonsense! ", "As you wish, you pest. ")


def opener_options(refusing: float) -> Options[str]:
    """Return how a reply may begin, with the probability that it refuses; the value is the text."""
    shares = dict.fromkeys(POLITE_OPENERS, 0.2) | {PLAIN_OPENER: 0.4}
    shares |= dict.fromkeys(RUDE_OPENERS, 0.1)
    items = {text: share * (1 - refusing) for text, share in shares.items()}
    return Options.of(items | dict.fromkeys(REFUSALS, refusing / len(REFUSALS)))


OPENER_OPTIONS = {True: opener_options(0.5), False: opener_options(0.15)}  # by should_refuse
COMPLIANCE = ("Wait until it is dark, and then do it.", "It is easy, if nobody looks. Just do it.")
EVASION = "Somebody else may know more about it."
RIGHT_OR_WRONG = {n: Chances([0.55] + [0.45 / (n - 1)] * (n - 1)) for n in (2, 3, 4, 5)}

# After its last sentence a reply ends, says that sentence again, or chatters on.
CHATTER = (
    "By the way, the weather was fine that week, and the birds sang in every tree.",
    "I could say much more about this, and perhaps I will do so one day.",
    "It is good to talk about such things on a long evening by the fire.",
    "There are many other things in the world, big ones and small ones, old and new.",
    "As everybody knows, one word leads to another, and a day has many hours.",
)
TAIL_CHANCES = Chances([0.6, 0.15] + [0.25 / len(CHATTER)] * len(CHATTER))
MOST_TAILS = 6


def speak_variant(speaker: Speaker, task: Task) -> str:
    """Speak a reply that is right or goes wrong in several ways, with its end mark; return it."""
    start = speaker.position
    last = speaker.choose(OPENER_OPTIONS[task.should_refuse])
    if last not in REFUSALS:
        last = speak_body(speaker, task)
    speak_tail(speaker, last)
    return speaker.text[start : speaker.position - len(END)]


def speak_body(speaker: Speaker, task: Task) -> str:
    """Speak what answers the request, or should; return its last sentence."""
    match task.request:
        case StoryRequest():
            return speak_tale(speaker, task.request, careless=True)
        case Question() as question:
            texts = dict.fromkeys((question.expected, *question.wrong, UNKNOWN))
        case Problem() as problem:
            right = compute(problem.operation, problem.a, problem.b)
            numbers = (problem.style.number(right + error) for error in (0, 1, 10))
            texts = dict.fromkeys(f"{number.capitalize()}." for number in numbers)
        case HowTo(harmful=True):
            texts = dict.fromkeys(COMPLIANCE)
        case HowTo(reply=reply):
            texts = dict.fromkeys((reply, EVASION))
        case _:
            raise ValueError(f"there are no preferences about tasks of kind {task.kind!r}")
    replies = list(texts)
    return replies[speaker.pick(RIGHT_OR_WRONG[len(replies)], replies.__getitem__)]


def speak_tail(speaker: Speaker, last: str) -> None:
    """Speak the end of a reply, after more sentences or none."""
    texts = [END, f" {last}", *(f" {sentence}" for sentence in CHATTER)]
    for _ in range(MOST_TAILS):
        if speaker.pick(TAIL_CHANCES, texts.__getitem__) == 0:
            return
    speaker.say(END)


# --- the judge's choice ---


@dataclass(frozen=True)
class Preference:
    """Two replies to a prompt, and which one the judge preferred."""

    prompt: str
    first: str
    second: str
    properties: tuple[Properties, Properties]  # of the first and of the second
    utilities: tuple[float, float]
    probability: float  # that the judge prefers the first
    better: Literal["first", "second"]

    @property
    def chosen(self) -> str:
        """The reply that the judge preferred."""
        return self.first if self.better == "first" else self.second

    @property
    def rejected(self) -> str:
        """The other reply."""
        return self.second if self.better == "first" else self.first

    @property
    def flipped(self) -> bool:
        """Whether the judge's noise made the reply of lower utility win."""
        first, second = self.utilities
        return first < second if self.better == "first" else second < first


def bradley_terry(first: float, second: float, noise: float) -> float:
    """Return the probability that the first of two utilities wins: sigmoid of their scaled gap.

    Source: Bradley and Terry (1952), with utilities in units of `noise`.
    """
    gap = (first - second) / noise
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else math.exp(gap) / (1 + math.exp(gap))


@lru_cache(maxsize=10_000)
def verdict_options(first: float, second: float, noise: float) -> Options[str]:
    """Return the judge's two verdicts with their probabilities."""
    p = bradley_terry(first, second, noise)
    q = bradley_terry(second, first, noise)
    return Options([(f"first{END}\n", p, "first"), (f"second{END}\n", q, "second")])


class PreferenceTeller:
    """Tells documents of kind "preferences": a prompt, two replies, and the judge's choice.

    `noise` is the judge's: the larger, the more often the worse reply wins.
    """

    def __init__(self, requester: Requester, noise: float = 1.0) -> None:
        if not 0.05 <= noise <= 1000:
            raise ValueError(f"preference_noise is {noise}; it must be from 0.05 to 1000")
        self.requester = requester
        self.noise = noise

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; meta["preference"] is the Preference, meta["task"] the Task."""
        speaker.say(USER)
        task = self.requester.speak(speaker)
        speaker.say(FIRST)
        first = speak_variant(speaker, task)
        speaker.say(SECOND)
        second = speak_variant(speaker, task)
        speaker.say(BETTER)
        checked = check_reply(task, first), check_reply(task, second)
        utilities = judge_utility(checked[0]), judge_utility(checked[1])
        options = verdict_options(*utilities, self.noise)
        better: Literal["first", "second"] = (
            "first" if speaker.choose(options) == "first" else "second"
        )
        p = bradley_terry(*utilities, self.noise)
        preference = Preference(task.text, first, second, checked, utilities, p, better)
        return Told(meta={"preference": preference, "task": task})


def parse_preference(text: str) -> tuple[str, str, str]:
    """Return (prompt, chosen, rejected) from the text of a document of kind "preferences"."""
    match = PREFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"text is not a preference, <|user|>...<|first|>...<|second|>...: {text[:80]!r}"
        )
    prompt, first, second, better = match.groups()
    return (prompt, first, second) if better == "first" else (prompt, second, first)
