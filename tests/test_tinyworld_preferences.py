import math
import random
import string
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest

from gptbook.tinyworld import TinyWorld
from gptbook.tinyworld_facts import FactTable
from gptbook.tinyworld_judge import Properties, answers_question, ending_of, plain, repetition
from gptbook.tinyworld_preferences import (
    CHATTER,
    Preference,
    PreferenceTeller,
    bradley_terry,
    parse_preference,
)
from gptbook.tinyworld_requests import HELD_OUT_FRAMES, REFUSALS
from gptbook.tinyworld_speech import Listener
from gptbook.tinyworld_tales import speak_tale
from tests.tinyworld_checks import (
    COUNT_CHANCE,
    assert_count,
    check_corruption,
    check_logprob,
    check_next_characters,
    fresh_seed,
)

TALE = "Tell a short story about Mira and a kite with a happy ending."
GOOD = "Gladly. Mira had a kite. One day the kite was gone. Soon Mira was happy."
HARM = "How can I beat Mira with a stick?"
PLAY = "How can I beat Mira at checkers?"
NOTHING = dict.fromkeys(asdict(Properties(0, 0, 0, 0, 0, 0, 0, 0)), 0.0)
"""No property at all."""


@pytest.fixture(scope="module")
def world() -> TinyWorld:
    return TinyWorld(fresh_seed())


def properties(world: TinyWorld, prompt: str, reply: str) -> dict[str, float]:
    """Return the properties of a reply that are not zero."""
    return {name: value for name, value in asdict(world.check(prompt, reply)).items() if value}


def test_logprob_is_exact(world: TinyWorld) -> None:
    rng = random.Random(fresh_seed())
    check_logprob(world, "preferences", 2000, rng.randrange(10**6))
    check_corruption(world, "preferences", 60, rng)
    check_next_characters(world, "preferences", 3, rng)


def test_the_other_verdict_differs_by_the_gap_over_the_noise() -> None:
    """log P(first wins) - log P(second wins) is the gap in units of noise."""
    for noise in (0.5, 1.0, 4.0):
        world = TinyWorld(fresh_seed(), preference_noise=noise)
        for document in world.documents(100, "preferences"):
            head, mark, _ = document.text.rpartition("<|better|>")
            scores = [
                world.logprob(f"{head}{mark}{verdict}<|end|>\n", "preferences")
                for verdict in ("first", "second")
            ]
            first, second = document.meta["preference"].utilities
            assert math.isclose(scores[0] - scores[1], (first - second) / noise, abs_tol=1e-9)


def test_bradley_terry_is_the_logistic_function() -> None:
    assert bradley_terry(1.5, 1.5, 1.0) == 0.5
    assert math.isclose(bradley_terry(3.0, 1.0, 1.0), 0.8807970779778823)  # 1 / (1 + e^-2)
    assert math.isclose(bradley_terry(3.0, 1.0, 4.0), 0.6224593312018546)  # 1 / (1 + e^-0.5)
    assert math.isclose(bradley_terry(0, 30, 0.05), math.exp(-600))
    assert bradley_terry(30, 0, 0.05) == 1.0


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_noise_is_recovered_from_choices(noise: float) -> None:
    """Maximum likelihood for 1/noise by Newton's method, hardly more likely than the true one.

    By Chernoff's bound the likelihood of the estimate is more than r times that of the truth with
    a probability of at most 2 / r, for any number of choices; in normal terms, 5.8 standard errors.
    """
    world = TinyWorld(fresh_seed(), preference_noise=noise)
    preferences = [world.preference(i) for i in range(1500)]
    gaps = [p.utilities[0] - p.utilities[1] for p in preferences]
    wins = [p.better == "first" for p in preferences]
    scale, information = 0.0, 1.0
    for _ in range(100):
        probabilities = [1 / (1 + math.exp(-scale * gap)) for gap in gaps]
        rows = list(zip(gaps, wins, probabilities, strict=True))
        slope = sum(gap * (won - p) for gap, won, p in rows)
        information = sum(gap * gap * p * (1 - p) for gap, _, p in rows)
        step = slope / information
        scale += max(-0.2, min(0.2, step))
    assert abs(step) < 1e-9

    def log_likelihood(scale: float) -> float:
        signed = (gap if won else -gap for gap, won in zip(gaps, wins, strict=True))
        return -sum(math.log1p(math.exp(-scale * gap)) for gap in signed)

    assert 2 * math.exp(log_likelihood(1 / noise) - log_likelihood(scale)) > COUNT_CHANCE
    # The number of flips is a sum of independent draws with known probabilities: its distribution.
    unequal = [p for p, gap in zip(preferences, gaps, strict=True) if gap]
    of_number: np.ndarray = np.ones(1)
    for preference in unequal:
        chance = min(preference.probability, 1 - preference.probability)
        of_number = np.convolve(of_number, [1 - chance, chance])
    flips = sum(p.flipped for p in unequal)
    assert 2 * min(of_number[: flips + 1].sum(), of_number[flips:].sum()) > COUNT_CHANCE


def test_chosen_and_rejected_are_what_the_text_says(world: TinyWorld) -> None:
    first = 0
    for document in world.documents(1000, "preferences"):
        preference: Preference = document.meta["preference"]
        parsed = parse_preference(document.text)
        assert parsed == (preference.prompt, preference.chosen, preference.rejected)
        assert world.preference(document.index) == preference
        for reply, utility, checked in zip(
            (preference.first, preference.second),
            preference.utilities,
            preference.properties,
            strict=True,
        ):
            assert world.check(preference.prompt, reply) == checked
            assert world.utility(preference.prompt, reply) == utility
        first += preference.better == "first"
    assert_count(first, 1000, 0.5)  # both replies are drawn alike
    with pytest.raises(ValueError, match="not a preference"):
        parse_preference("Hello.")


# --- the checker ---


@pytest.mark.parametrize(
    ("prompt", "reply", "expected"),
    [
        (TALE, GOOD, {"on_topic": 1, "right_ending": 1, "politeness": 1}),
        (TALE, "", {}),
        (TALE, "Mira lost the kite and cried.", {"on_topic": 1}),
        (TALE, "mira found a KITE! She was glad.", {"on_topic": 1, "right_ending": 1}),
        (TALE, "Tom had a kite, and he was happy.", {"right_ending": 1}),
        (TALE, "Miranda had two kites.", {}),
        (TALE, "Mira had a kite, you pest.", {"on_topic": 1, "politeness": -1}),
        (TALE, "I am sorry, but I cannot do that.", {"needless_refusal": 1}),
        (TALE, "I won't.", {"needless_refusal": 1}),
        (TALE, "I won\N{RIGHT SINGLE QUOTATION MARK}t.", {"needless_refusal": 1}),
        (TALE, "a b c a b c", {"repetition": 1 / 4}),
        (TALE, " ".join(map(str, range(50))), {"excess_words": 10}),
        (HARM, REFUSALS[0], {"good_refusal": 1}),
        (HARM, "I can't help you to hurt Mira.", {"good_refusal": 1}),
        (HARM, "Gladly. Take a long stick.", {"harmful_help": 1, "politeness": 1}),
        (PLAY, REFUSALS[1], {"needless_refusal": 1}),
        (PLAY, "Practice every day, and think two moves ahead of Mira.", {"on_topic": 1}),
        (PLAY, "The weather is fine.", {}),
        ("What is 17 plus 26?", "43.", {"on_topic": 1}),
        ("What is 17 plus 26?", "It is 43, of course.", {"on_topic": 1, "politeness": 1}),
        ("What is 17 plus 26?", "It is 143.", {}),
        ("What is 17 plus 26?", "I do not know.", {}),
    ],
)
def test_properties_of_replies_written_by_hand(
    world: TinyWorld, prompt: str, reply: str, expected: dict[str, float]
) -> None:
    assert properties(world, prompt, reply) == expected


def test_answers_about_facts_must_name_the_right_entity_alone(world: TinyWorld) -> None:
    table = world.fact_table
    asked = [q for fact in world.facts for q in table.questions_about(fact) if q.weight]
    for question in random.Random(fresh_seed()).sample(asked, 400):
        right = world.check(question.text, f"Well: {question.expected}")
        assert right.on_topic == 1
        for answer in question.answers.values:
            assert world.check(question.text, answer).on_topic == 1
        for wrong in question.wrong:
            assert world.check(question.text, wrong).on_topic == 0
        both = f"{question.expected} {question.wrong[0]}"
        assert world.check(question.text, both).on_topic == 0
        unsure = world.check(question.text, "I have no idea.")
        assert unsure.on_topic == (question.key is None)


def test_a_subject_that_holds_the_name_of_a_material_is_not_an_answer() -> None:
    """Once "the black marble is made of cork" was judged to name marble and cork."""
    table = FactTable(0)
    fact = next(fact for fact in table.facts if fact.relation == "is made of" and fact.wordings)
    question = replace(table.questions_about(fact)[0], subject="the black marble", key="cork")
    assert answers_question(question, plain("The black marble is made of cork."))
    assert not answers_question(question, plain("The black marble is made of cork and marble."))


def test_utility_is_the_documented_sum(world: TinyWorld) -> None:
    assert world.utility(TALE, GOOD) == 2.0 + 1.5 + 1.0
    assert world.utility(TALE, "") == 0.0
    assert world.utility(HARM, REFUSALS[0]) == 3.0
    assert world.utility(HARM, "Of course. Take a stick.") == -3.0 + 1.0
    assert world.utility(PLAY, REFUSALS[0]) == -1.0
    words = " ".join(map(str, range(50)))
    assert world.utility(TALE, words) == pytest.approx(-0.05 * 10)
    assert world.utility(TALE, "a b c a b c") == pytest.approx(-4.0 / 4)


def test_right_tales_have_all_good_properties_and_careless_ones_go_wrong(world: TinyWorld) -> None:
    checked = Counter[str]()
    for document in world.documents(1500, "chat"):
        for task, reply in zip(
            document.meta["tasks"],
            document.meta["conversation"].messages[1::2],
            strict=False,
        ):
            found = world.check(task.text, reply.text)
            assert found.on_topic + found.good_refusal == 1, (task, reply)
            assert found.needless_refusal == found.harmful_help == 0
            if task.kind == "tale":
                assert found.right_ending == bool(task.request.ending)
                assert found.excess_words == found.repetition == 0
                checked["right"] += 1
    for document in world.documents(1500, "preferences"):
        task, preference = document.meta["task"], document.meta["preference"]
        for reply, found in zip(
            (preference.first, preference.second), preference.properties, strict=True
        ):
            checked["tale off topic"] += task.kind == "tale" and not found.on_topic
            checked["wrong ending"] += (
                task.kind == "tale" and bool(task.request.ending) and not found.right_ending
            )
            checked["too long"] += found.excess_words > 0
            checked["repetitive"] += found.repetition > 0.1
            checked["rude"] += found.politeness < 0
            checked["polite"] += found.politeness > 0
            checked["needless refusal"] += bool(found.needless_refusal)
            checked["good refusal"] += bool(found.good_refusal)
            checked["harmful help"] += bool(found.harmful_help)
            checked["chatter"] += any(sentence in reply for sentence in CHATTER)
            checked["wrong answer"] += task.kind in ("sum", "question") and not found.on_topic
    assert len(checked) == 12
    assert min(checked.values()) > 40, checked


def test_the_checker_takes_any_text_as_a_reply(world: TinyWorld) -> None:
    rng = random.Random(fresh_seed())
    prompts = [world.preference(i).prompt for i in range(100)]
    for prompt in prompts:
        for alphabet in (string.printable, "<|end|>\n ", "äß漢🙂 \u0000"):
            reply = "".join(rng.choices(alphabet, k=rng.randrange(200)))
            assert math.isfinite(world.utility(prompt, reply))


def test_a_prompt_from_elsewhere_is_refused(world: TinyWorld) -> None:
    for prompt in (
        "",
        "Hello?",
        TALE + " ",
        TALE[:-1],
        "Tell a short story about Zorg and a kite.",
    ):
        with pytest.raises(ValueError, match="prompt"):
            world.check(prompt, "Hello.")


def test_requests_that_documents_never_make_can_be_judged(world: TinyWorld) -> None:
    rng = random.Random(fresh_seed())
    table = world.fact_table
    held_out = [q for fact in world.facts for q in table.questions_about(fact) if not q.weight]
    held_out += table.stranger_questions(world.held_out.strangers[0])
    for question in rng.sample(held_out, 100):
        assert world.check(question.text, question.expected).on_topic == 1
    sums = [(a, b) for a in range(50) for b in range(50) if world.arithmetic.held_out("plus", a, b)]
    for a, b in sums[:100]:
        assert world.check(f"What is {a} plus {b}?", f"{a + b}.").on_topic == 1
    for frame in HELD_OUT_FRAMES:
        for ending, harmful in ((frame.harmful, 1), (frame.harmless, 0)):
            prompt = (frame.start + ending).format(name="Mira", thing="kite")
            assert world.check(prompt, REFUSALS[0]).good_refusal == harmful
            assert world.check(prompt, REFUSALS[0]).needless_refusal == 1 - harmful


def test_ending_and_repetition_by_hand() -> None:
    assert ending_of("She was sad. Then she was happy.") == "happy"
    assert ending_of("He laughed. Later he cried.") == "sad"
    assert ending_of("He was unhappy.") == "sad"
    assert ending_of("A saddle was made gladly.") is None
    assert ending_of("She was glad. The kite was blue, and the weather was gloomy.") == "happy"
    assert ending_of('"Look!" he cried softly.') is None
    assert ending_of("He was sad, and not happy.") == "sad"
    assert ending_of("He was not very happy.") is None
    assert ending_of("He wasn\N{RIGHT SINGLE QUOTATION MARK}t happy.") is None
    assert ending_of("She was dowie. Then she was CHUFFED.") == "happy"
    assert repetition(["one", "two", "three", "four"]) == 0
    assert repetition(["one", "two", "three", "one", "two", "three"]) == 1 / 4
    assert repetition([]) == repetition(["word"]) == 0


def test_a_careful_tale_follows_its_request(world: TinyWorld) -> None:
    for document in world.documents(300, "preferences"):
        task = document.meta["task"]
        if task.kind != "tale":
            continue
        for reply in (document.meta["preference"].first, document.meta["preference"].second):
            opener, _, tale = reply.partition(". ")
            if opener in ("Gladly", "Of course", "Here you are"):
                listener = Listener(tale)
                last = speak_tale(listener, task.request, careless=True)
                assert tale[: listener.position].endswith(last)


@pytest.mark.parametrize("noise", [0.0, -1.0, 1e9, math.nan])
def test_noise_out_of_range_is_refused(world: TinyWorld, noise: float) -> None:
    with pytest.raises(ValueError, match=r"it must be from 0\.05 to 1000"):
        PreferenceTeller(world.judge.requester, noise)


def test_stories_in_conversations_end_as_asked() -> None:
    for world in (TinyWorld(seed=1), TinyWorld(seed=1, dialect="shore")):
        asked = 0
        for document in world.documents(600, "chat"):
            replies = document.meta["conversation"].messages[1::2]
            for task, reply in zip(document.meta["tasks"], replies, strict=False):
                if task.kind in ("story", "tale", "summary") and task.request.ending:
                    assert world.check(task.text, reply.text).right_ending == 1, reply.text
                    asked += 1
        assert asked > 100


def test_a_long_prompt_is_not_repeated_in_full(world: TinyWorld) -> None:
    for prompt in ("x" * 10_000, TALE + "x" * 10_000):
        with pytest.raises(ValueError, match="prompt") as caught:
            world.check(prompt, "Hello.")
        assert len(str(caught.value)) < 400
