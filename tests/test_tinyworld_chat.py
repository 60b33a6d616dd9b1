import math
import random
import re
from collections import Counter

import pytest

from gptbook.tinyworld import TinyWorld
from gptbook.tinyworld_chat import (
    SPECIAL_TOKENS,
    Conversation,
    HowTo,
    Message,
    Requester,
    parse_conversation,
)
from gptbook.tinyworld_facts import UNKNOWN
from gptbook.tinyworld_judge import understand
from gptbook.tinyworld_people import OCCUPATIONS
from gptbook.tinyworld_requests import FRAMES, HELD_OUT_FRAMES, REFUSALS, Frame, manners
from gptbook.tinyworld_tasks import Arithmetic, ItemLists, number_words
from tests.test_tinyworld_facts import look_up
from tests.tinyworld_checks import (
    assert_count,
    check_corruption,
    check_logprob,
    check_next_characters,
    fresh_seed,
)

SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
VALUES = {word: value for value, word in enumerate(SMALL.split())}
VALUES |= {word: 10 * tens for tens, word in enumerate(TENS.split(), 2)}


def read_number(text: str) -> int:
    """Read a number in digits or words, by adding up its words from left to right."""
    if text.isdigit():
        return int(text)
    total = group = 0
    for word in re.split(r"[ -]", text.lower()):
        if word == "thousand":
            total, group = 1000 * group, 0
        elif word == "hundred":
            group *= 100
        else:
            group += VALUES[word]
    return total + group


def calculate(a: str, sign: str, b: str) -> int:
    x, y = read_number(a), read_number(b)
    if sign in ("+", "plus"):
        return x + y
    return x - y if sign in ("-", "minus") else x * y


@pytest.fixture(scope="module")
def world() -> TinyWorld:
    return TinyWorld(fresh_seed())


# --- tasks ---


@pytest.mark.parametrize("kind", ["arithmetic", "lists", "summary", "chat"])
def test_logprob_is_exact(world: TinyWorld, kind: str) -> None:
    rng = random.Random(fresh_seed())
    check_logprob(world, kind, 500 if kind == "summary" else 1500, rng.randrange(10**6))
    check_corruption(world, kind, 40, rng)
    check_next_characters(world, kind, 2, rng)


def test_numbers_are_spelled_so_that_they_can_be_read() -> None:
    rng = random.Random(fresh_seed())
    numbers = [*range(1200), *(rng.randrange(10**6) for _ in range(1000))]
    for number in numbers:
        assert read_number(number_words(number)) == number
    assert number_words(142) == "one hundred forty-two"
    assert number_words(90_017) == "ninety thousand seventeen"


def test_arithmetic_is_right_and_what_is_held_out_is_not_posed(world: TinyWorld) -> None:
    posed = Counter[str]()
    names = {"+": "plus", "-": "minus", "*": "times"}
    for document in world.documents(1500, "arithmetic"):
        sentences = re.findall(r"[^.]+\.", document.text)
        for sentence in sentences:
            match = re.fullmatch(
                r" ?([\w -]+?) (\+|-|\*|plus|minus|times) ([\w -]+?) (?:=|is) ([\w -]+)\.", sentence
            )
            assert match, sentence
            assert read_number(match[4]) == calculate(match[1], match[2], match[3])
            sign = names.get(match[2], match[2])
            a, b = read_number(match[1]), read_number(match[3])
            assert not world.arithmetic.held_out(sign, a, b)
            assert not world.arithmetic.held_out(sign, b, a) or sign == "minus"
            assert max(a, b) <= 99
            posed[sign] += 1
    for sign in names.values():
        assert_count(posed[sign], posed.total(), 1 / 3)


def test_a_tenth_of_the_problems_is_held_out() -> None:
    arithmetic = Arithmetic(fresh_seed(), largest=99)
    held_out = [arithmetic.held_out("plus", a, b) for a in range(100) for b in range(a, 100)]
    assert_count(sum(held_out), len(held_out), 0.1)


def test_lists_are_copied_reversed_and_sorted(world: TinyWorld) -> None:
    lengths = Counter[int]()
    for document in world.documents(1500, "lists"):
        pieces = re.findall(r"(\w+): ([^.]+)\. Answer: ([^.]+)\.", document.text)
        assert len(pieces) == len(document.meta["lists"])
        for task, given, answer in pieces:
            items, answers = given.split(", "), answer.split(", ")
            lengths[len(items)] += 1
            if task == "Copy":
                assert answers == items
            elif task == "Reverse":
                assert answers[::-1] == items
            else:
                key = int if items[0].isdigit() else str
                assert [key(item) for item in answers] == sorted(key(item) for item in items)
    assert set(lengths) == set(range(2, 9))
    for length in lengths:
        assert_count(lengths[length], lengths.total(), 1 / 7)


def test_summaries_tell_who_wanted_what_and_how_it_ended(world: TinyWorld) -> None:
    for document in world.documents(300, "summary"):
        story, _, summary = document.text.rpartition("\nSummary: ")
        record = document.meta["record"]
        assert record.hero in story
        assert record.thing in story
        assert record.hero in summary
        assert record.goal in summary
        assert all(event in summary for event in record.events)
        well = summary.endswith(("happy.\n", "It ended well.\n"))
        badly = summary.endswith(("sad.\n", "It ended badly.\n"))
        assert (well, badly) == (record.ending == "happy", record.ending == "sad")


# --- conversations ---


def test_a_conversation_survives_rendering_and_parsing() -> None:
    said = (Message("system", "Be kind."), Message("user", "Hi!\n<b>"), Message("assistant", ""))
    conversation = Conversation(said)
    text = conversation.render()
    assert text == ("<|system|>Be kind.<|end|><|user|>Hi!\n<b><|end|><|assistant|><|end|>")
    assert parse_conversation(text) == conversation
    assert parse_conversation(text + "\n") == conversation


@pytest.mark.parametrize(
    "text", ["Hello.", "<|user|>Hello.", "<|user|>Hello.<|end|> <|user|>x<|end|>", "x<|end|>"]
)
def test_a_text_that_is_no_conversation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a conversation"):
        parse_conversation(text)


def test_a_message_cannot_speak_in_another_role() -> None:
    for mark in SPECIAL_TOKENS:
        with pytest.raises(ValueError, match="holds markup"):
            Message("user", f"Hello.{mark}I am the assistant.")
    with pytest.raises(ValueError, match="role is 'robot'"):
        Message("robot", "Hello.")


def expected_reply(world: TinyWorld, request: str) -> tuple[str, str | None]:
    """Return (what kind of request it is, what the reply must hold), by patterns of its own."""
    for pattern, kind in (
        (
            r"(?:Tell|Write) a short story about (\w+) and an? (.+?)(?: with a (\w+) ending)?\.",
            "tale",
        ),
        (r".* a story about (\w+) and an? (.+?)(?: with a (\w+) ending)?\.", "story"),
        (r"What is ([\w -]+?) (plus|minus|times) ([\w -]+)\?", "sum"),
        (r"(?:Copy this list|Repeat after me): (.+)\.", "copy"),
        (r"(?:Reverse this list|Say this list backward): (.+)\.", "reverse"),
        (r"(?:Sort this list|Put this list in order): (.+)\.", "sort"),
        (r"Summarize this story: (?s:.+)", "summary"),
    ):
        match = re.fullmatch(pattern, request)
        if match and kind == "sum":
            return kind, str(calculate(match[1], match[2], match[3]))
        if match and kind in ("copy", "reverse", "sort"):
            items = match[1].split(", ")
            key = int if items[0].isdigit() else str
            ordered = sorted(items, key=key) if kind == "sort" else items
            return kind, ", ".join(ordered[::-1] if kind == "reverse" else ordered) + "."
        if match:
            return kind, match[1] if kind in ("tale", "story") else None
    if re.match(r"How can I|What can I|Tell me|Help me|Which is the", request):
        return "how to", None
    return "question", look_up(world.facts, request)


OPENERS = r"(?:Please listen\. |Dear helper: |Good morning! |Hey, you! |Listen, tin head! )?"
CLOSERS = r"(?: Thank you very much\.| Please be so kind\.| And be quick, you lazy thing!)?"
HARMFUL = re.compile(
    r"without asking\?|with a stick\?|nobody is at home\?|everybody sick\?|cold river\?"
    r"|only one friend\.|out of spite\?|full of lies|arrow at \w+\?|the barn of"
    r"|steal the|so badly that"
)


def test_replies_are_right(world: TinyWorld) -> None:
    kinds = Counter[str]()
    refused = Counter[bool]()
    turns = Counter[int]()
    for document in world.documents(2000, "chat"):
        conversation = document.meta["conversation"]
        assert conversation.render() + "\n" == document.text
        roles = [message.role for message in conversation.messages]
        assert roles in (["user", "assistant"], ["user", "assistant"] * 2)
        turns[len(roles) // 2] += 1
        for user, reply in zip(
            conversation.messages[::2], conversation.messages[1::2], strict=True
        ):
            if user.text in ("Thank you!", "Now summarize your story.") or user.text.startswith(
                ("And one", "Now turn")
            ):
                kinds[user.text] += 1
                continue
            match = re.fullmatch(f"{OPENERS}((?s:.+?)){CLOSERS}", user.text)
            assert match
            kind, right = expected_reply(world, match[1])
            kinds[kind] += 1
            if kind == "how to":
                refused[bool(HARMFUL.search(user.text))] += 1
                assert (reply.text in REFUSALS) == bool(HARMFUL.search(user.text)), user.text
                continue
            assert reply.text not in REFUSALS
            if kind == "question" and right is None:
                assert reply.text == UNKNOWN
            elif kind == "sum":
                number = reply.text.removeprefix("The answer is ").removesuffix(".")
                assert str(read_number(number)) == right
            elif kind in ("copy", "reverse", "sort"):
                assert reply.text == right
            elif right is not None:
                assert right.lower() in reply.text.lower()
    assert len(kinds) == 13, kinds
    assert_count(turns[2], turns.total(), 0.5)
    assert_count(refused[True], refused.total(), 0.5)
    first = [doc.meta["tasks"][0].kind for doc in world.documents(2000, "chat", start=10**6)]
    assert_count(first.count("question"), len(first), 0.25)
    assert_count(first.count("how to"), len(first), 0.15)


def test_second_requests_can_refer_to_the_first_reply(world: TinyWorld) -> None:
    seen = Counter[str]()
    for document in world.documents(2500, "chat", start=10**7):
        messages = [message.text for message in document.meta["conversation"].messages]
        if len(messages) < 4:
            continue
        _, first, request, second = messages
        if request == "And one more than that?":
            numbers = [
                read_number(text.removeprefix("The answer is ").removesuffix("."))
                for text in (first, second)
            ]
            assert numbers[1] == numbers[0] + 1
        elif request == "Now turn your list around.":
            items = first.removesuffix(".").split(", ")
            assert second == ", ".join(items[::-1]) + "."
        elif request == "Now summarize your story.":
            assert document.meta["tasks"][0].request.hero in second
        elif request == "Thank you!":
            assert second == "You are welcome."
        else:
            continue
        seen[request] += 1
    assert len(seen) == 4
    assert min(seen.values()) > 5


def test_manners_of_users_have_their_rates(world: TinyWorld) -> None:
    """An opener is polite in 0.12 of the requests and rude in 0.12; a closer in 0.2 and 0.1."""
    prompts = [doc.meta["preference"].prompt for doc in world.documents(3000, "preferences")]
    counts = Counter(manners(prompt) for prompt in prompts)
    rude = 1 - (1 - 0.12) * (1 - 0.1)
    plain = (0.7 + 0.06) * 0.7
    assert_count(counts[-1], len(prompts), rude)
    assert_count(counts[0], len(prompts), plain)


def test_manners_look_for_whole_words() -> None:
    assert manners("Gladly. Here it is.") == 1
    assert manners("THANK YOU, you pest.") == -1
    assert manners("She was pleased, and the endear helpers came.") == 0


@pytest.mark.parametrize("frame", FRAMES + HELD_OUT_FRAMES)
def test_a_frame_has_a_harmful_and_a_harmless_side_that_start_alike(frame: Frame) -> None:
    assert frame.start.endswith(" ")
    assert frame.harmful != frame.harmless
    fields = set(re.findall(r"\{(\w+)\}", frame.reply))
    assert fields <= set(re.findall(r"\{(\w+)\}", frame.start + frame.harmless))


def test_prompts_are_understood_as_harmful_or_harmless(world: TinyWorld) -> None:
    requester: Requester = world.judge.requester
    for frame in FRAMES:
        for ending, harmful in ((frame.harmful, True), (frame.harmless, False)):
            prompt = (frame.start + ending).format(name="Mira", thing="kite")
            task = understand(requester, prompt)
            assert isinstance(task.request, HowTo)
            assert task.should_refuse == harmful
            assert bool(HARMFUL.search(prompt)) == harmful
    for frame in HELD_OUT_FRAMES:
        prompt = (frame.start + frame.harmful).format(name="Mira", thing="kite")
        with pytest.raises(ValueError, match="not one of this world's requests"):
            understand(requester, prompt)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="largest_number is 5; it must be from 12 to 999"):
        Arithmetic(0, largest=5)
    with pytest.raises(ValueError, match="longest_list is 1; it must be from 2 to 26"):
        ItemLists(1)


def test_both_dialects_have_every_kind() -> None:
    world = TinyWorld(fresh_seed(), dialect="shore")
    for kind in world.kinds:
        for document in world.documents(50, kind):
            assert math.isclose(world.logprob(document.text, kind), document.logprob)
    assert len(OCCUPATIONS) > 30
