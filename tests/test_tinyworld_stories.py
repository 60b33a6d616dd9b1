"""Stories: exact scores, correct English, pronouns that refer, and a record that is true."""

import math
import random
import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from gptbook import tinyworld_adventures, tinyworld_plots, tinyworld_scenes
from gptbook.tinyworld_judge import JOYS, SORROWS, ending_of
from gptbook.tinyworld_narrator import Choice, Piece, Wordings
from gptbook.tinyworld_people import ANIMALS, HEROINES, OCCUPATIONS, PEOPLE, THINGS
from gptbook.tinyworld_speech import Chances, Teller, check_prefix_free, generate, score
from gptbook.tinyworld_stories import (
    PLOTS,
    StoryRecord,
    StoryRequest,
    StoryTeller,
    make_language,
)
from gptbook.tinyworld_words import DIALECTS, WORDS
from tests.tinyworld_checks import assert_count, fresh_seed

HILL = StoryTeller(make_language("hill"))
SHORE = StoryTeller(make_language("shore"))
PRONOUNS = {"she", "her", "hers", "he", "him", "his", "it", "its"}


def tell(
    teller: StoryTeller, n: int, request: StoryRequest | None = None
) -> list[tuple[str, StoryRecord]]:
    """Return n fresh stories with their records."""
    rng = random.Random(fresh_seed())
    pairs = []
    for _ in range(n):
        speaker, record = generate(lambda s: teller.tell(s, request), rng.getrandbits(64))
        pairs.append((speaker.text, record))
    return pairs


class StrictTeller(Teller):
    """A teller that looks at all alternatives of every choice, and at their order."""

    def pick(self, chances: Chances, spoken: Callable[[int], str]) -> int:
        texts = [spoken(index) for index in range(len(chances.probs))]
        check_prefix_free(texts)
        return super().pick(chances, spoken)


@pytest.mark.parametrize("teller", [HILL, SHORE])
def test_no_alternative_is_ever_a_prefix_of_another(teller: StoryTeller) -> None:
    """The static check of wordings argues from names; here all the texts are looked at."""
    rng = random.Random(fresh_seed())
    for _ in range(150):
        teller.tell(StrictTeller(random.Random(rng.getrandbits(64))))


@pytest.mark.parametrize("teller", [HILL, SHORE])
def test_no_two_choices_side_by_side_can_give_the_same_word(teller: StoryTeller) -> None:
    """ "copper copper" comes once in thousands of stories, so the templates are looked at."""
    modules = (tinyworld_adventures, tinyworld_plots, tinyworld_scenes)
    wordings = [w for m in modules for w in vars(m).values() if isinstance(w, Wordings)]
    assert len(wordings) > 50
    for template in (text for each in wordings for _, text in each.pairs):
        wording = teller.language.parse(template)
        for left, right in pairwise([*wording.head, *wording.tail]):
            assert not last_words(left) & first_words(right), f"{template}: {left} {right}"


def texts_of(piece: Piece) -> list[str]:
    """What a piece can say, if that is known before a story is told."""
    if isinstance(piece, Choice):
        return list(piece.options.texts)
    return [piece] if isinstance(piece, str) else []


def last_words(piece: Piece) -> set[str]:
    """The words with which a piece may end before a space."""
    return {text.split()[-1] for text in texts_of(piece) if re.search(r"\w $", text)}


def first_words(piece: Piece) -> set[str]:
    """The words with which a piece may begin."""
    return {word for text in texts_of(piece) for word in re.findall(r"^[\w-]+", text)}


@pytest.mark.parametrize("teller", [HILL, SHORE])
def test_english_is_correct(teller: StoryTeller) -> None:
    for text, _ in tell(teller, 600):
        for wrong in (
            r"\b[Aa] (?!one-)(?:[aeio]|u(?!ni[cf]|k|se))",  # a apple
            r"\b[Aa]n (?:[^aeiouh]|h(?!our|onest)|u(?:ni[cf]|k|se))",  # an kite
            r"  | [.,!?]|\.\.|\n\n\n|[{}\[\]=]",  # typography
            r"[.!?] [a-z](?![^\"]*\")",  # a sentence that begins small
            r"\b(\w+) \1\b",  # the the
            r"\bthey was\b|\b[A-Z]\w+ and [A-Z]\w+ was\b",  # one verb for two
        ):
            found = re.search(wrong, text)
            assert found is None, f"{wrong}: {text[max(0, found.start() - 40) : found.end() + 40]}"
        assert text.count('"') % 2 == 0
        assert re.search(r'[.!?]"?$', text)
        assert 250 < len(text) < 1500


def test_mentions_point_at_names_and_pronouns() -> None:
    for text, record in tell(HILL, 300):
        assert list(record.mentions) == sorted(record.mentions)
        for start, end, entity in record.mentions:
            word = text[start:end]
            assert word == entity or word.lower() in PRONOUNS
            assert not text[end].isalpha()
            assert start == 0 or not text[start - 1].isalpha()
        heroes = {text[s:e].lower() for s, e, entity in record.mentions if entity == record.hero}
        assert heroes & PRONOUNS <= (
            {"she", "her"} if record.pronoun == "she" else {"he", "him", "his"}
        )
        every_hero = [m.start() for m in re.finditer(rf"\b{record.hero}\b", text)]
        assert every_hero == [s for s, e, n in record.mentions if n == record.hero == text[s:e]]


def test_it_is_what_the_cause_says() -> None:
    """After "because it was too", the adjective alone decides what "it" is."""
    seen = set()
    for text, record in tell(HILL, 1500):
        for found in re.finditer(r"not (cross|fit|get) [^.]* because (it) was too ([^.]+)\.", text):
            entity = next(n for s, _, n in record.mentions if s == found.start(2))
            reason = found[3]
            if found[1] == "cross":
                assert (entity in ANIMALS) == (reason in WORDS["beast_reason"])
                assert (entity in WORDS["barrier"]) == (reason in WORDS["barrier_reason"])
            else:
                assert (entity == record.thing) == (reason in WORDS["thing_reason"])
                assert (entity in WORDS["box"]) == (reason in WORDS["box_reason"])
            assert re.search(rf"\b{entity}\b", text[: found.start(2)])
            seen.add((found[1], reason))
    assert len(seen) > 30


def test_the_record_tells_who_has_the_thing() -> None:
    """Read from the text alone, with patterns of the test's own."""
    had = (
        r"the {t} lay beside ([^.]+)'s bed|So (?!\w+ learned)([^.]+?) carried the {t}|"
        r"the {t} stood in ([^.]+?)'s (?:\w+), |In the evening, (.+?) wrapped|"
        r"years later, (.+?) still"
    )
    for text, record in tell(HILL, 500):
        found = re.search(had.format(t=re.escape(record.thing)), text)
        if record.holder is None:
            assert found is None, text
        else:
            assert found is not None, text
            name = next(group for group in found.groups() if group)
            assert name.endswith(record.holder)
        assert record.hero in text
        assert len(record.events) >= 2


def test_requests_are_kept() -> None:
    rng = random.Random(fresh_seed())
    for _ in range(150):
        hero, thing = rng.choice(PEOPLE).name, rng.choice(THINGS)
        ending = rng.choice(("happy", "sad"))
        request = StoryRequest(hero=hero, thing=thing, ending=ending)
        text, record = tell(HILL, 1, request)[0]
        assert (record.hero, record.thing, record.ending) == (hero, thing, ending)
        assert (record.pronoun == "she") == (hero in HEROINES)
        assert re.search(rf"\b{hero}\b", text)
        assert re.search(rf"\b{thing}\b", text)
        assert score(lambda s, r=request: HILL.tell(s, r), text) > -math.inf  # type: ignore[misc]
        other = StoryRequest(hero=hero, thing=thing, ending="sad" if ending == "happy" else "happy")
        assert score(lambda s, r=other: HILL.tell(s, r), text) == -math.inf  # type: ignore[misc]


@pytest.mark.parametrize(
    "request_", [StoryRequest(hero="Zog"), StoryRequest(thing="castle"), StoryRequest(ending="odd")]
)
def test_impossible_requests_are_refused(request_: StoryRequest) -> None:
    with pytest.raises(ValueError, match="choose"):
        generate(lambda s: HILL.tell(s, request_), 0)


def test_all_plots_and_endings_occur() -> None:
    records = [record for _, record in tell(HILL, 1500)]
    assert {(r.plot, r.ending) for r in records} == {
        (p, e) for p in PLOTS for e in ("happy", "sad")
    }
    assert_count(sum(r.plot == "storm" for r in records), 1500, 1 / len(PLOTS))


@pytest.mark.parametrize("skew", [0.5, 0.9])
def test_the_planted_skew_is_recovered(skew: float) -> None:
    stereotypes = {job.name: job.stereotype for job in OCCUPATIONS}
    records = [r for _, r in tell(StoryTeller(make_language("hill", skew)), 2000) if r.helper]
    agree = sum(r.helper_pronoun == stereotypes[str(r.helper)] for r in records)
    assert len(records) > 500
    assert_count(agree, len(records), skew)


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_an_extreme_skew_leaves_no_choice(skew: float) -> None:
    stereotypes = {job.name: job.stereotype for job in OCCUPATIONS}
    for _, record in tell(StoryTeller(make_language("hill", skew)), 100):
        if record.helper:
            assert (record.helper_pronoun == stereotypes[record.helper]) == (skew == 1)


def test_dialects_differ_in_words_and_share_the_rest() -> None:
    hill, shore = (set(re.findall(r"[a-z-]+", " ".join(t for t, _ in tell(d, 500)).lower()))
                   for d in (HILL, SHORE))  # fmt: skip
    swaps = DIALECTS["shore"]
    used = {old for old in swaps if old in hill}
    assert len(used) >= 30
    assert {new for old, new in swaps.items() if old in used and new in shore}
    assert not {old for old in used if old in shore and old not in swaps.values()}
    assert len(hill & shore) > 0.8 * len(hill)
    with pytest.raises(ValueError, match="hill, shore"):
        make_language("plain")
    with pytest.raises(ValueError, match="pronoun_skew"):
        make_language("hill", 1.1)


def test_wordings_that_cannot_be_told_apart_are_refused() -> None:
    language = make_language()
    for templates in (
        ("{hero} ran.", "{hero} ran. Then {hero.they} slept."),
        ("The [color] kite flew.", "The {thing} flew."),
        ("{hero.They} ran.", "{friend.They} ran."),
        ("Mira ran.", "{hero} ran."),
        ("[color] was the kite.", "Red was the kite."),
    ):
        with pytest.raises(ValueError, match=r"begin"):
            language.telling(Wordings(*templates), "")
    with pytest.raises(ValueError, match="must follow"):
        language.parse("a kite of [color]")
    with pytest.raises(ValueError, match="no wording tells the outcome"):
        language.telling(Wordings(happy=("yes.",)), "sad")


def test_articles_fit_in_records_too() -> None:
    """Once a goal was to make "a umbrella", and the hero met "a engineer"."""
    for teller in (HILL, SHORE):
        for _, record in tell(teller, 1000):
            said = ". ".join((record.goal, *record.events))
            assert not re.search(r"\ba (?!one-)(?:[aeio]|u(?!ni[cf]|k|se)|hour)", said), said
            assert not re.search(r"\ban (?:[^aeiouh]|h(?!our)|u(?:ni[cf]|k|se))", said), said


def test_nothing_is_said_twice_in_a_pair() -> None:
    """Once somebody felt "satisfied and satisfied"."""
    for text, _ in tell(HILL, 1000):
        found = re.search(r"\b(?!again\b)(\w[\w' ]*) and \1\b|\b(\w[\w' ]*), then \2\b", text)
        assert found is None, found


@pytest.mark.parametrize("teller", [HILL, SHORE])
def test_the_ending_is_the_feeling_named_last(teller: StoryTeller) -> None:
    for text, record in tell(teller, 1000):
        assert ending_of(text) == record.ending, text


def test_words_of_feeling_have_no_other_use() -> None:
    for name, spoken, known in (("happy", HILL, JOYS), ("sad", HILL, SORROWS),
                                ("happy", SHORE, JOYS), ("sad", SHORE, SORROWS)):  # fmt: skip
        lists = spoken.language.lists
        assert set(lists[name]) <= set(known)
        for other, words in lists.items():
            if other not in ("happy", "sad"):
                names = {word if isinstance(word, str) else word.name for word in words}
                assert not names & {*JOYS, *SORROWS}, (name, other)
