"""The world as a whole: every kind's documents score what was recorded, and can be made again."""

import json
import math
import pickle
import random
import re
import subprocess
import sys
import time

import pytest

from gptbook.evals import bits_per_byte_estimate
from gptbook.tinyworld import CHARACTERS, KINDS, TinyWorld
from tests.tinyworld_checks import (
    check_corruption,
    check_logprob,
    check_next_characters,
    fresh_seed,
)

WORLD = TinyWorld(seed=0)
SHORE = TinyWorld(seed=3, dialect="shore")


def test_ten_thousand_documents_score_what_was_recorded() -> None:
    """Exactly: the listener adds the same numbers in the same order."""
    start, n = fresh_seed(), 10_000
    for kind in KINDS:
        for document in WORLD.documents(n // len(KINDS) + 1, kind, start):
            assert WORLD.logprob(document.text, kind) == document.logprob, document.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_dialect_is_exact_too(kind: str) -> None:
    check_logprob(SHORE, kind, 40, fresh_seed())


@pytest.mark.parametrize("kind", ["story", "mixed"])
def test_damage_is_noticed(kind: str) -> None:
    check_corruption(WORLD, kind, 60, random.Random(fresh_seed()))


def test_edits_give_nothing_or_another_document() -> None:
    """Replace one character by another: the score is -inf, or that of a text as legal as any."""
    rng = random.Random(fresh_seed())
    for document in WORLD.documents(300, "story", rng.randrange(10**6)):
        at = rng.randrange(len(document.text))
        edited = document.text[:at] + rng.choice(CHARACTERS) + document.text[at + 1 :]
        assert -2000 < WORLD.logprob(edited) < 0 or WORLD.logprob(edited) == -math.inf


@pytest.mark.parametrize("kind", ["story", "mixed"])
def test_next_characters_sum_to_one(kind: str) -> None:
    check_next_characters(WORLD, kind, 12, random.Random(fresh_seed()))


def test_next_probs_multiply_to_the_document() -> None:
    text = WORLD.document(fresh_seed(), "arithmetic").text
    total = sum(math.log(WORLD.next_probs(text[:i], "arithmetic")[c]) for i, c in enumerate(text))
    assert math.isclose(total, WORLD.logprob(text, "arithmetic"), rel_tol=1e-9)
    assert WORLD.next_probs(text, "arithmetic") == {}
    with pytest.raises(ValueError, match="no story begins"):
        WORLD.next_probs("Zebra")


def test_a_document_depends_on_seed_kind_and_index_alone() -> None:
    index, world, other = fresh_seed(), TinyWorld(seed=5), TinyWorld(seed=6)
    for kind in KINDS:
        document = TinyWorld(seed=5).document(index, kind)
        list(world.documents(3, "chat"))
        again = world.document(index, kind)
        assert (again.text, again.logprob) == (document.text, document.logprob)
        assert again.mentions == document.mentions
        # Two documents of a single fact or question are equal once in 10,000; ten pairs never are.
        texts = [each.text for each in world.documents(10, kind, index)]
        assert [each.text for each in other.documents(10, kind, index)] != texts
        assert [each.text for each in world.documents(10, kind, index + 10)] != texts


def test_another_process_makes_the_same_documents() -> None:
    """With another hash seed, so that no order of a set or dictionary of strings can matter."""
    code = (
        "from gptbook.tinyworld import KINDS, TinyWorld; import json; w = TinyWorld(seed=11); "
        "print(json.dumps([w.document(i, kind).text for kind in KINDS for i in range(3)]))"
    )
    texts = []
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        )
        texts.append(json.loads(run.stdout))
    world = TinyWorld(seed=11)
    here = [world.document(i, kind).text for kind in KINDS for i in range(3)]
    assert texts[0] == texts[1] == here


def test_stories_are_distinct() -> None:
    """Of 244 bits each, 100,000 collide with probability 10^-63; here is a quick sample."""
    texts = {document.text for document in WORLD.documents(2000)}
    assert len(texts) == 2000


def test_vocabulary_has_the_promised_size() -> None:
    words = set()
    for kind in KINDS:
        for document in WORLD.documents(1200 if kind == "story" else 300, kind):
            words |= set(re.findall(r"[a-z]+", document.text.lower()))
    assert 2000 < len(words) < 5000


def test_entropy_rates_of_two_seeds_agree() -> None:
    """Two stories' worlds have the same grammar: the difference is noise, 2 in 10^7 beyond 5.2."""
    a, b = (TinyWorld(seed=fresh_seed()).entropy_rate("story", 400) for _ in range(2))
    error = math.hypot(a.standard_error, b.standard_error)
    assert abs(a.bits_per_byte - b.bits_per_byte) < 5.2 * error
    assert 0.2 < a.bits_per_byte < 1
    assert error < 0.01 * a.bits_per_byte
    assert a.n_documents == 400
    assert math.isclose(
        a.bits_per_byte, a.nats_per_document / a.bytes_per_document / math.log(2), rel_tol=1e-9
    )


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of story, facts"):
        WORLD.document(0, "poem")
    with pytest.raises(ValueError, match="numbered from 0"):
        WORLD.document(-1)
    with pytest.raises(ValueError, match="at least 2"):
        WORLD.entropy_rate("story", 1)
    with pytest.raises(ValueError, match="hill, shore"):
        TinyWorld(dialect="valley")


def test_stories_come_fast() -> None:
    """The book promises 20 MB a minute on one core; a busy machine gets a tenth of that."""
    started = time.process_time()
    size = sum(len(document.text) for document in WORLD.documents(300))
    assert size / (time.process_time() - started) > 2e6 / 60


def test_kinds_are_the_worlds() -> None:
    assert tuple(WORLD.kinds) == KINDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"largest_number": 5}, "largest_number is 5; it must be from 12 to 999"),
        ({"longest_list": 1}, "longest_list is 1; it must be from 2 to 26"),
        ({"preference_noise": 0.0}, r"preference_noise is 0\.0; it must be from 0\.05"),
        ({"fact_exponent": -1.0}, r"fact_exponent is -1\.0; it must be from 0 to 3"),
    ],
)
def test_errors_name_the_argument_of_the_world(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyWorld(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["seed", "people", "largest_number", "longest_list"])
@pytest.mark.parametrize("value", [True, 20.0, "20", None])
def test_counts_must_be_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an int, got {value!r}"):
        TinyWorld(**{name: value})  # type: ignore[arg-type]


def test_documents_check_their_arguments_at_once() -> None:
    with pytest.raises(ValueError, match="choose one of story, facts"):
        WORLD.documents(3, "poem")
    with pytest.raises(ValueError, match="n is -1"):
        WORLD.documents(-1)
    with pytest.raises(ValueError, match="start is -2"):
        WORLD.documents(1, start=-2)
    with pytest.raises(TypeError, match="index must be an int, got True"):
        WORLD.document(True)
    assert list(WORLD.documents(0)) == []


def test_the_entropy_rate_is_the_ratio_estimate_of_evals() -> None:
    """`evals` stands above TinyWorld in the table of modules, so the two are compared here."""
    documents = list(WORLD.documents(200, "facts"))
    nats, sizes = [-d.logprob for d in documents], [len(d.text) for d in documents]
    wanted = bits_per_byte_estimate(nats, sizes)
    rate = WORLD.entropy_rate("facts", n=200)
    assert rate.bits_per_byte == pytest.approx(wanted.value, rel=1e-12)
    assert rate.standard_error == pytest.approx(wanted.standard_error, rel=1e-9)


def test_a_world_survives_pickling() -> None:
    world = TinyWorld(5, dialect="shore", people=40, longest_list=4, preference_noise=0.5)
    again = pickle.loads(pickle.dumps(world))
    for kind in KINDS:
        assert again.document(7, kind).text == world.document(7, kind).text
