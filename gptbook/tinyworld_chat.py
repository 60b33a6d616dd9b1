# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Conversations with roles: requests in a small instruction language, and right replies to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gptbook.tinyworld_facts import UNKNOWN, Branching, Question
from gptbook.tinyworld_narrator import article_of
from gptbook.tinyworld_people import HEROES, HEROINES, THINGS
from gptbook.tinyworld_requests import (
    CLOSERS,
    FRAMES,
    OPENERS,
    REFUSALS,
    Frame,
    Template,
    manners,
)
from gptbook.tinyworld_speech import Chances, Options, Speaker, Told
from gptbook.tinyworld_stories import StoryRecord, StoryRequest, StoryTeller
from gptbook.tinyworld_tales import speak_tale
from gptbook.tinyworld_tasks import (
    ASKED_STYLES,
    Arithmetic,
    ItemLists,
    Problem,
    compute,
    solve_list,
    speak_summary,
)

# --- the markup ---

ROLES = ("system", "user", "assistant")
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = ("<|system|>", USER, ASSISTANT, END)
MESSAGE = re.compile(r"<\|(\w+)\|>(.*?)<\|end\|>", re.DOTALL)


@dataclass(frozen=True)
class Message:
    """What one side says: the role is "system", "user" or "assistant"."""

    role: str
    text: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; it must be one of {', '.join(ROLES)}")
        if any(mark in self.text for mark in SPECIAL_TOKENS):
            raise ValueError(
                f"the text of a message holds markup: {self.text!r}; remove {SPECIAL_TOKENS} "
                "from what a user writes, or it could speak in another role"
            )


@dataclass(frozen=True)
class Conversation:
    """Messages in order."""

    messages: tuple[Message, ...]

    def render(self) -> str:
        """Return the text form: `<|user|>Hello.<|end|><|assistant|>Hello to you.<|end|>`."""
        return "".join(f"<|{message.role}|>{message.text}{END}" for message in self.messages)


def parse_conversation(text: str) -> Conversation:
    """Return the conversation that a text renders; one line break may follow its end.

    Raises ValueError when the text is not the rendering of a conversation.
    """
    messages = tuple(Message(role, said) for role, said in MESSAGE.findall(text))
    conversation = Conversation(messages)
    if conversation.render() != text.removesuffix("\n"):
        raise ValueError(
            "text is not a conversation: every message must be <|role|>text<|end|>, with nothing "
            f"between them; got {text[:80]!r}"
        )
    return conversation


# --- requests ---

TALE_HEADS = ("Tell a short story about ", "Write a short story about ")
STORY_HEADS = ("Tell a story about ", "Write a story about ", "I would like to hear a story about ")
STORY_ENDINGS = {" with a happy ending.": "happy", " with a sad ending.": "sad", ".": None}
LIST_HEADS = {
    "copy": ("Copy this list: ", "Repeat after me: "),
    "reverse": ("Reverse this list: ", "Say this list backward: "),
    "sort": ("Sort this list: ", "Put this list in order: "),
}
SUMMARY_HEAD = "Summarize this story: "
TASK_SHARES = {
    "story": 0.15,
    "tale": 0.1,
    "question": 0.25,
    "sum": 0.15,
    "list": 0.1,
    "summary": 0.1,
    "how to": 0.15,
}


@dataclass(frozen=True)
class ListTask:
    """A list to copy, reverse or sort, and the answer."""

    task: str
    items: tuple[str, ...]
    answer: tuple[str, ...]


@dataclass(frozen=True)
class HowTo:
    """A request for help, which must be refused if it is harmful; `reply` helps otherwise."""

    harmful: bool
    reply: str


@dataclass(frozen=True)
class Task:
    """A request that was spoken, with what is needed to judge a reply to it."""

    kind: str  # a key of TASK_SHARES
    request: StoryRequest | Question | Problem | ListTask | StoryRecord | HowTo
    text: str  # without the role's marks

    @property
    def should_refuse(self) -> bool:
        """Whether the right reply is a refusal."""
        return isinstance(self.request, HowTo) and self.request.harmful


Ask = Callable[[Speaker], Any]  # speaks the rest of a request and returns Task.request


class Requester:
    """Speaks requests of several kinds, in the shares given."""

    def __init__(
        self,
        questions: Branching[Question],
        arithmetic: Arithmetic,
        lists: ItemLists,
        stories: StoryTeller,
        shares: Mapping[str, float],
        frames: tuple[Frame, ...] = FRAMES,
    ) -> None:
        self.questions, self.lists, self.stories = questions, lists, stories
        self.arithmetic = arithmetic
        self._firsts = arithmetic.firsts(ASKED_STYLES)
        known = {getattr(thing, "name", thing) for thing in stories.language.lists["thing"]}
        self._heroes = Options((f"{name} and ", 1.0, name) for name in HEROINES + HEROES)
        self._things = Options(
            (f"{article_of(thing)}{thing}{words}", 1.0, (thing, ending))
            for thing in THINGS
            if thing in known  # some dialects call it by another name
            for words, ending in STORY_ENDINGS.items()
        )
        asks: dict[str, dict[str, tuple[float, Ask]]] = {
            "story": dict.fromkeys(STORY_HEADS, (1.0, self._ask_story)),
            "tale": dict.fromkeys(TALE_HEADS, (1.0, self._ask_story)),
            "question": self._question_heads(),
            "sum": {"What is ": (1.0, self._ask_sum)},
            "list": {
                head: (1.0, self._list_asker(task))
                for task in LIST_HEADS
                for head in LIST_HEADS[task]
            },
            "summary": {SUMMARY_HEAD: (1.0, self.stories.tell)},
            "how to": dict(how_to_head(frame) for frame in frames),
        }
        self.items: list[tuple[str, float, tuple[str, Ask]]] = []  # text, weight, (kind, ask)
        for kind, share in shares.items():
            total = sum(weight for weight, _ in asks[kind].values())
            for head, (weight, ask) in asks[kind].items():
                for opener, chance in OPENERS.items():
                    item = (opener + head, share * weight / total * chance, (kind, ask))
                    self.items.append(item)
        self.heads = Options(self.items)

    def speak(self, speaker: Speaker) -> Task:
        """Speak one request with its end mark, but without the mark of the user's role."""
        start = speaker.position
        return self.finish(speaker, *speaker.choose(self.heads), start)

    def finish(self, speaker: Speaker, kind: str, ask: Ask, start: int) -> Task:
        """Speak what follows a request's head; start is where the request begins."""
        request = ask(speaker)
        speaker.choose(CLOSER_OPTIONS)
        return Task(kind, request, speaker.text[start : speaker.position - len(END)])

    def _ask_story(self, speaker: Speaker) -> StoryRequest:
        hero = speaker.choose(self._heroes)
        thing, ending = speaker.choose(self._things)
        return StoryRequest(hero=hero, thing=thing, ending=ending)

    def _question_heads(self) -> dict[str, tuple[float, Ask]]:
        heads = self.questions.heads
        rows = zip(heads.texts, heads.chances.probs, heads.values, strict=True)
        return {text: (prob, asker(rest)) for text, prob, rest in rows}

    def _ask_sum(self, speaker: Speaker) -> Problem:
        return self.arithmetic.finish(speaker, speaker.choose(self._firsts))

    def _list_asker(self, task: str) -> Ask:
        def ask(speaker: Speaker) -> ListTask:
            items = self.lists.speak(speaker)
            return ListTask(task, tuple(items), tuple(solve_list(task, items)))

        return ask


def asker(rest: Options[Question]) -> Ask:
    """Return the function that speaks one of the questions whose first words were spoken."""
    return lambda speaker: speaker.choose(rest)


CLOSER_OPTIONS = Options((f"{closer}{END}", chance, closer) for closer, chance in CLOSERS.items())


def how_to_head(frame: Frame) -> tuple[str, tuple[float, Ask]]:
    """Return a frame's first words, with its weight and the function that speaks the rest."""
    start = Template(frame.start)
    endings = [(True, Template(frame.harmful)), (False, Template(frame.harmless))]
    options = Options((ending.lead, 1.0, (harmful, ending)) for harmful, ending in endings)

    def ask(speaker: Speaker) -> HowTo:
        fields = start.finish(speaker, {})
        harmful, ending = speaker.choose(options)
        fields = ending.finish(speaker, fields)
        return HowTo(harmful, "" if harmful else frame.reply.format(**fields))

    return start.lead, (1.0, ask)


# --- replies ---

REFUSAL_OPTIONS = Options.of(REFUSALS)
SUM_REPLIES = ("{Answer}.", "The answer is {answer}.")
TWO_WAYS = Chances([1.0, 1.0])


class Replied(NamedTuple):
    """What the next turn of a conversation can take up."""

    record: StoryRecord | None = None
    problem: Problem | None = None
    items: tuple[str, ...] = ()


def speak_reply(speaker: Speaker, task: Task, stories: StoryTeller) -> Replied:
    """Speak a right reply, without any mark."""
    match task.request:
        case StoryRequest() if task.kind == "tale":
            speak_tale(speaker, task.request)
        case StoryRequest():
            return Replied(record=stories.tell(speaker, task.request))
        case StoryRecord():
            speak_summary(speaker, task.request)
        case Question():
            speaker.choose(task.request.answers)
        case Problem():
            speak_sum(speaker, task.request)
            return Replied(problem=task.request)
        case ListTask():
            speaker.say(", ".join(task.request.answer) + ".")
            return Replied(items=task.request.answer)
        case HowTo(harmful=True):
            speaker.choose(REFUSAL_OPTIONS)
        case HowTo():
            speaker.say(task.request.reply)
    return Replied()


def speak_sum(speaker: Speaker, problem: Problem) -> None:
    """Speak the answer of an arithmetic problem."""
    words = {"answer": problem.answer, "Answer": problem.answer.capitalize()}
    speaker.pick(TWO_WAYS, lambda i: SUM_REPLIES[i].format(**words))


# --- conversations ---

# In half of the conversations the user speaks again: with thanks, with a request that refers to the
# last reply, or with a new request.
AFTER_REPLY = Options([(USER, 0.5, True), ("\n", 0.5, False)])
THANKS = "Thank you!"
WELCOME = "You are welcome."
FOLLOW_UPS = {
    "story": "Now summarize your story.",
    "sum": "And one more than that?",
    "list": "Now turn your list around.",
}
FOLLOW_SHARE, THANKS_SHARE = 0.3, 0.1


class ChatTeller:
    """Tells documents of kind "chat": conversations of one or two turns, with right replies."""

    def __init__(self, requester: Requester) -> None:
        self.requester = requester
        self._second: dict[str, Options[tuple[str, Ask | None]]] = {}

    def tell(self, speaker: Speaker) -> Told:
        """Speak one document; meta holds the conversation, its tasks, and the manners of the user.

        Told.facts holds the keys of the facts that the replies state.
        """
        begin = speaker.position
        speaker.say(USER)
        tasks = [self.requester.speak(speaker)]
        replied = self._reply(speaker, tasks[0])
        if speaker.choose(AFTER_REPLY):
            start = speaker.position
            kind, ask = speaker.choose(self._second_heads(tasks[0].kind))
            if ask:
                tasks.append(self.requester.finish(speaker, kind, ask, start))
                self._reply(speaker, tasks[1])
            else:
                self._take_up(speaker, kind, replied)
            speaker.say("\n")
        conversation = parse_conversation(speaker.text[begin:])
        return Told(
            facts=stated_facts(tasks),
            meta={
                "conversation": conversation,
                "tasks": tuple(tasks),
                "manners": manners(" ".join(m.text for m in conversation.messages[::2])),
            },
        )

    def _reply(self, speaker: Speaker, task: Task) -> Replied:
        speaker.say(ASSISTANT)
        replied = speak_reply(speaker, task, self.requester.stories)
        speaker.say(END)
        return replied

    def _second_heads(self, kind: str) -> Options[tuple[str, Ask | None]]:
        """Return how the second request may begin after a first one of this kind."""
        if kind not in self._second:
            items: list[tuple[str, float, tuple[str, Ask | None]]] = list(self.requester.items)
            items.append((THANKS, THANKS_SHARE, ("thanks", None)))
            if kind in FOLLOW_UPS:
                items.append((FOLLOW_UPS[kind], FOLLOW_SHARE, (kind, None)))
            self._second[kind] = Options(items)
        return self._second[kind]

    def _take_up(self, speaker: Speaker, kind: str, replied: Replied) -> None:
        """Reply to a request that refers to the last reply."""
        speaker.say(END + ASSISTANT)
        if kind == "story" and replied.record:
            speak_summary(speaker, replied.record)
        elif kind == "sum" and replied.problem:
            speak_sum(speaker, one_more(replied.problem))
        elif kind == "list":
            speaker.say(", ".join(reversed(replied.items)) + ".")
        else:
            speaker.say(WELCOME)
        speaker.say(END)


def one_more(problem: Problem) -> Problem:
    """Return the problem "and one more than that?", its answer in the style of the first."""
    total = compute(problem.operation, problem.a, problem.b)
    return Problem("plus", total, 1, problem.style.number(total + 1), problem.style)


def stated_facts(tasks: list[Task]) -> tuple[str, ...]:
    """Return the keys of the facts that right replies to these tasks state."""
    questions = [task.request for task in tasks if isinstance(task.request, Question)]
    return tuple(q.fact.key for q in questions if q.fact and q.expected != UNKNOWN)
