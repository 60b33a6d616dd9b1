"""Speakers: teller and listener agree to the last bit, on grammars small enough to enumerate."""

import itertools
import math
import random

import pytest

from gptbook.tinyworld import estimate_entropy_rate
from gptbook.tinyworld_speech import (
    Listener,
    Options,
    Speaker,
    Unspeakable,
    generate,
    score,
    score_prefix,
)
from tests.tinyworld_checks import fresh_seed

ANIMALS = Options([("cat", 3, "meow"), ("dog", 1, "woof"), ("cow", 0.5, "moo")])
ENDS = Options([(".", 1, "stop"), (" and ", 2, "go on")])


def farm(speaker: Speaker) -> int:
    """Speak "a cat and a dog and a cat." with up to three animals, none twice; return how many."""
    left = ANIMALS
    for count in (1, 2, 3):
        speaker.say("a ")
        noise = speaker.choose(left)
        if count == 3:
            speaker.say(".")
            return count
        if speaker.choose(ENDS) == "stop":
            return count
        left = left.without(noise) if count == 1 else left
    raise AssertionError


def all_documents() -> dict[str, float]:
    """Return every text of the farm with its probability, by hand and not by its speakers."""
    weights = {"cat": 3 / 4.5, "dog": 1 / 4.5, "cow": 0.5 / 4.5}
    documents: dict[str, float] = {}
    for first, p in weights.items():
        documents[f"a {first}."] = p / 3
        rest = {name: w / (1 - p) for name, w in weights.items() if name != first}
        for (second, q), (third, r) in itertools.product(rest.items(), repeat=2):
            documents[f"a {first} and a {second}."] = p * (2 / 3) * q / 3
            documents[f"a {first} and a {second} and a {third}."] = p * (2 / 3) * q * (2 / 3) * r
    return documents


def test_probabilities_are_those_by_hand() -> None:
    documents = all_documents()
    assert math.isclose(sum(documents.values()), 1)
    for text, p in documents.items():
        assert math.isclose(score(farm, text), math.log(p), rel_tol=1e-12)


def test_teller_and_listener_agree_exactly() -> None:
    first = fresh_seed()
    for seed in range(first, first + 300):
        teller, count = generate(farm, seed)
        assert score(farm, teller.text) == teller.logprob
        assert count == teller.text.count(" and ") + 1
        assert teller.position == len(teller.text)


def test_frequencies_are_the_probabilities() -> None:
    """A chi-square of 20 degrees of freedom exceeds 70 once in 2 million runs."""
    documents, n = all_documents(), 20_000
    rng = random.Random(fresh_seed())
    counts = dict.fromkeys(documents, 0)
    for _ in range(n):
        counts[generate(farm, rng.getrandbits(64))[0].text] += 1
    statistic = sum((counts[t] - n * p) ** 2 / (n * p) for t, p in documents.items())
    assert len(documents) == 15 + 6  # 3 single, 6 pairs, 12 triples
    assert statistic < 70


def test_prefixes_are_summed_exactly() -> None:
    documents = all_documents()
    prefixes = {text[:length] for text in documents for length in range(len(text) + 1)}
    for prefix in prefixes:
        total = sum(p for text, p in documents.items() if text.startswith(prefix))
        assert math.isclose(score_prefix(farm, prefix), math.log(total), abs_tol=1e-12)
        for character in "acdotgw. nm~":
            longer = prefix + character
            if longer not in prefixes:
                assert score_prefix(farm, longer) == -math.inf


@pytest.mark.parametrize(
    "text", ["", "a", "a ca", "a cat", "a cat. ", "a cat and a cat.", "A cat."]
)
def test_other_texts_are_impossible(text: str) -> None:
    assert score(farm, text) == -math.inf


def test_entropy_rate_is_that_of_the_enumerated_grammar() -> None:
    """The estimate is within 5.2 standard errors (2 in 10^7), and these are not too wide."""
    documents = all_documents()
    nats = -sum(p * math.log(p) for p in documents.values())
    size = sum(p * len(text) for text, p in documents.items())
    rng = random.Random(fresh_seed())
    tellers = [generate(farm, rng.getrandbits(64))[0] for _ in range(20_000)]
    rate = estimate_entropy_rate([-t.logprob for t in tellers], [len(t.text) for t in tellers])
    truth = nats / size / math.log(2)
    assert abs(rate.bits_per_byte - truth) < 5.2 * rate.standard_error
    assert rate.standard_error < 0.01 * truth


def test_standard_error_is_the_spread_of_repeated_estimates() -> None:
    """Of 400 estimates the spread is known within 3.5 %, so that 27 % is six standard errors.

    The least spread that passes is 0.79 of the right one, a chi-square of 399 that is 0.62 of its
    mean: once in 10^9 runs. With 200 estimates it was six times in 10^6.
    """
    n = 400
    rng = random.Random(fresh_seed())
    rates = []
    for _ in range(n):
        tellers = [generate(farm, rng.getrandbits(64))[0] for _ in range(100)]
        rates.append(
            estimate_entropy_rate([-t.logprob for t in tellers], [len(t.text) for t in tellers])
        )
    mean = sum(rate.bits_per_byte for rate in rates) / n
    spread = math.sqrt(sum((rate.bits_per_byte - mean) ** 2 for rate in rates) / (n - 1))
    claimed = sum(rate.standard_error for rate in rates) / n
    assert abs(claimed / spread - 1) < 0.27


def test_options_refuse_what_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="'car' is a prefix of 'carrot'"):
        Options.of(["carrot", "dog", "car"])
    with pytest.raises(ValueError, match="prefix"):
        Options.of(["", "dog"])
    with pytest.raises(ValueError, match="prefix"):
        Options([("dog", 1, 0), ("dog", 1, 1)])
    for weight in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight"):
            Options([("dog", weight, 0)])
    with pytest.raises(ValueError, match="at least one"):
        Options.of([])


def test_options_give_their_probabilities() -> None:
    options = Options.of({"cat": 3, "dog": 1})
    assert math.isclose(math.exp(options.log_prob("cat")), 0.75)
    assert options.without("cat").values == ("dog",)
    assert options.only("cat").log_prob("cat") == 0
    with pytest.raises(ValueError, match="'cow' is not an option"):
        options.only("cow")
    assert options.match("a dog", 2) == 1
    assert options.match("a do", 2) is None


def test_a_listener_says_where_a_text_goes_wrong() -> None:
    with pytest.raises(Unspeakable, match="character 2"):
        farm(Listener("a cut."))
