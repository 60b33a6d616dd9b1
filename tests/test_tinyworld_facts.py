import math
import random
import re
from collections import Counter

import pytest

from gptbook.tinyworld import TinyWorld
from gptbook.tinyworld_facts import UNKNOWN, Fact, FactTable
from gptbook.tinyworld_people import OCCUPATIONS
from gptbook.tinyworld_relations import RELATIONS
from tests.tinyworld_checks import (
    assert_count,
    check_corruption,
    check_logprob,
    check_next_characters,
    fresh_seed,
)

# The questions once more, written independently of the module: pattern, relation, and which side of
# the fact is the answer.
QUESTIONS = (
    (r"Where does (.+) live\?", "lives in", "object"),
    (r"In which town is the home of (.+)\?", "lives in", "object"),
    (r"What work does (.+) do\?", "works as", "object"),
    (r"How does (.+) earn a living\?", "works as", "object"),
    (r"What does (.+) own\?", "owns", "object"),
    (r"Which thing belongs to (.+)\?", "owns", "object"),
    (r"Who owns (.+)\?", "owns", "subject"),
    (r"To whom does (.+) belong\?", "owns", "subject"),
    (r"Whose best friend is (.+)\?", "is the best friend of", "either"),
    (r"Whose (?:brother|sister) is (.+)\?", "is the brother or sister of", "either"),
    (r"Of what is (.+) made\?", "is made of", "object"),
    (r"Which material is (.+) made of\?", "is made of", "object"),
)


def look_up(facts: tuple[Fact, ...], question: str) -> str | None:
    """Return the entity that answers a question, by reading the table; None if nothing says so."""
    for pattern, relation, side in QUESTIONS:
        match = re.fullmatch(pattern, question)
        if match is None:
            continue
        found = [
            fact.object if fact.subject == match[1] else fact.subject
            for fact in facts
            if fact.relation == relation
            and fact.frequency != "never"
            and match[1]
            in (
                (fact.subject, fact.object)
                if side == "either"
                else (fact.subject,)
                if side == "object"
                else (fact.object,)
            )
        ]
        assert len(found) <= 1
        return found[0] if found else None
    raise AssertionError(f"not a question: {question}")


@pytest.fixture(scope="module")
def world() -> TinyWorld:
    return TinyWorld(fresh_seed())


def test_each_person_has_each_kind_of_fact_once(world: TinyWorld) -> None:
    people = set(world.fact_table.people)
    assert len(people) == 200
    for relation in ("lives in", "works as", "owns"):
        subjects = [fact.subject for fact in world.facts if fact.relation == relation]
        assert sorted(subjects) == sorted(people)
    for relation in ("is the best friend of", "is the brother or sister of"):
        couples = [fact for fact in world.facts if fact.relation == relation]
        assert sorted(p for fact in couples for p in (fact.subject, fact.object)) == sorted(people)
    owned = [fact.object for fact in world.facts if fact.relation == "owns"]
    made = [fact.subject for fact in world.facts if fact.relation == "is made of"]
    assert sorted(owned) == sorted(made) == sorted(set(owned))


def test_the_table_depends_on_the_seed_alone() -> None:
    seed = fresh_seed()
    assert FactTable(seed).facts == FactTable(seed).facts
    assert FactTable(seed).facts != FactTable(seed + 1).facts


def test_frequency_classes_and_held_out_facts_fit_together(world: TinyWorld) -> None:
    classes = Counter(fact.frequency for fact in world.facts)
    assert classes == {"often": 160, "rarely": 640, "never": 200}
    assert math.isclose(sum(fact.probability for fact in world.facts), 1)
    often = min(fact.probability for fact in world.facts if fact.frequency == "often")
    rarely = max(fact.probability for fact in world.facts if fact.frequency == "rarely")
    assert often > rarely > 0
    held_out = world.held_out
    assert all(fact.probability == 0 and not fact.wordings for fact in held_out.unstated)
    stated = [fact for fact in world.facts if fact.wordings]
    known = {name for fact in stated for name in (fact.subject, fact.object)}
    for fact in held_out.unstated:
        assert {fact.subject, fact.object} <= known
    assert all(len(fact.directions) == 1 for fact in held_out.one_way)
    assert all(len(fact.wordings) == 1 for fact in held_out.one_wording)
    assert not set(held_out.strangers) & set(world.fact_table.people)
    assert min(map(len, (held_out.one_way, held_out.one_wording, held_out.unasked))) > 40


def test_facts_are_stated_with_their_frequencies(world: TinyWorld) -> None:
    documents = list(world.documents(8000, "facts"))
    counts = Counter(key for document in documents for key in document.facts)
    n = counts.total()
    key_class = {fact.key: fact.frequency for fact in world.facts}
    stated = Counter(key_class[key] for key in counts.elements())
    often = sum(fact.probability for fact in world.facts if fact.frequency == "often")
    assert_count(stated["often"], n, often)
    assert stated["never"] == 0
    for fact in (world.facts[0], world.facts[20], world.facts[100]):
        assert_count(counts[fact.key], n, fact.probability)
    # The law itself: counts of ranks 0-9 and 90-99 are as (r + 10) ** -1, with 1/sum as its scale.
    for ranks in (range(10), range(90, 100)):
        expected = sum(1 / (r + 10) for r in ranks) / sum(1 / (r + 10) for r in range(800))
        assert_count(sum(counts[world.facts[r].key] for r in ranks), n, expected)


def test_recorded_facts_are_those_of_the_text(world: TinyWorld) -> None:
    """Each sentence names the subject and the object of its recorded fact, and no other's."""
    for document in world.documents(500, "facts"):
        sentences = re.findall(r"[^.]+\.", document.text)
        assert len(sentences) == len(document.facts)
        for sentence, key in zip(sentences, document.facts, strict=True):
            fact = next(fact for fact in world.facts if fact.key == key)
            assert fact.subject.lower() in sentence.lower()
            assert fact.object.lower() in sentence.lower()


def test_zipf_exponent_never_share_and_skew_are_parameters() -> None:
    seed = fresh_seed()
    flat = FactTable(seed, exponent=0, never_share=0)
    assert {fact.probability for fact in flat.facts} == {flat.facts[0].probability}
    assert not flat.held_out.unstated
    stereotype = {job.name: job.stereotype for job in OCCUPATIONS}
    for skew in (0.5, 0.9, 1.0):
        tables = [FactTable(seed + i, people=400, pronoun_skew=skew) for i in range(5)]
        typical = [
            stereotype[fact.object.split(" ", 1)[1]] == "she"
            for table in tables
            for fact in table.facts
            if fact.relation == "works as" and table.people[fact.subject] == "she"
        ]
        n_she = sum(job.stereotype == "she" for job in OCCUPATIONS)
        n_he = len(OCCUPATIONS) - n_she
        p = skew * n_she / (skew * n_she + (1 - skew) * n_he)
        if skew == 1.0:
            assert all(typical)
        else:
            assert_count(sum(typical), len(typical), p)


@pytest.mark.parametrize("kind", ["facts", "questions"])
def test_logprob_is_exact(world: TinyWorld, kind: str) -> None:
    rng = random.Random(fresh_seed())
    check_logprob(world, kind, 2000, rng.randrange(10**6))
    check_corruption(world, kind, 100, rng)
    check_next_characters(world, kind, 3, rng)


def test_answers_are_those_that_the_documents_support(world: TinyWorld) -> None:
    answered = Counter[bool]()
    for document in world.documents(1500, "questions", start=10**5):
        pairs = re.findall(r"Question: (.+?\?) Answer: (.+?\.)(?: (?=Question)|\n)", document.text)
        assert len(pairs) == len(document.meta["questions"])
        for question, answer in pairs:
            entity = look_up(world.facts, question)
            answered[entity is not None] += 1
            if entity is None:
                assert answer == UNKNOWN
            else:
                assert entity.lower() in answer.lower(), (question, answer)
    assert_count(answered[True], answered.total(), 0.75)


def test_every_fact_can_be_asked_for_in_a_test(world: TinyWorld) -> None:
    for fact in world.facts:
        for question in world.fact_table.questions_about(fact):
            assert question.truth
            entity = look_up(world.facts, question.text)
            assert question.key == entity
            assert (question.expected == UNKNOWN) == (entity is None)
            assert question.truth not in question.wrong
            assert len(question.wrong) == 3
    for name in world.held_out.strangers:
        for question in world.fact_table.stranger_questions(name):
            assert (question.weight, question.expected, question.truth) == (0, UNKNOWN, None)


def test_what_is_held_out_is_in_no_document_of_any_kind() -> None:
    world = TinyWorld(fresh_seed())
    numbers = {"facts": 6000, "questions": 6000, "chat": 3000, "preferences": 2500, "story": 500}
    numbers |= {"summary": 500, "arithmetic": 1000, "lists": 500}
    assert set(numbers) <= set(world.kinds)
    assert sum(numbers.values()) == 20_000
    corpus = "".join(doc.text for kind, n in numbers.items() for doc in world.documents(n, kind))
    sentences = set(re.findall(r"[A-Z][^.?!:<>\n]*[.?]", corpus))
    relations = {relation.name: relation for relation in RELATIONS}
    checked = 0
    for fact in world.facts:
        relation = relations[fact.relation]
        for wording in set(relation.forward + relation.backward) - set(fact.wordings):
            if "kin}" in wording:
                middles = (" is the %s of ", " grew up as the %s of ")
                kin = {"she": "sister", "he": "brother"}
                a, b = fact.subject, fact.object
                a, b = (b, a) if wording.startswith("{o}") else (a, b)
                middle = middles["grew" in wording] % kin[world.fact_table.people[a]]
                text = f"{a}{middle}{b}."
            else:
                text = wording.format(
                    s=fact.subject,
                    o=fact.object,
                    S=fact.subject[0].upper() + fact.subject[1:],
                    O=fact.object[0].upper() + fact.object[1:],
                )
            assert text not in sentences
            checked += 1
        for question in world.fact_table.questions_about(fact):
            direction = "forward" if question.subject == fact.subject else "backward"
            stated_so = direction in fact.directions or fact.frequency == "never"
            assert (question.weight > 0) == (fact.asked and stated_so)
            if question.weight == 0:
                assert question.text not in sentences
                checked += 1
    for name in world.held_out.strangers:
        assert name not in corpus
    assert checked > 800
    # The search does find what is said: the most frequent facts and questions.
    asked = [q.text for fact in world.facts[:50] for q in world.fact_table.questions_about(fact)]
    assert sum(question in sentences for question in asked) > 20
    lowered = [sentence.lower() for sentence in sentences]
    for fact in world.facts[:20]:
        names = fact.subject.lower(), fact.object.lower()
        assert any(names[0] in sentence and names[1] in sentence for sentence in lowered)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"people": 21}, "even number from 20 to 400"),
        ({"people": 10_000}, "even number from 20 to 400"),
        ({"exponent": -1.0}, "exponent is -1.0"),
        ({"never_share": 0.9}, "never_share is 0.9"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FactTable(0, **arguments)  # type: ignore[arg-type]
