# Exported from chapters/02_tinyworld.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Tell sentences from templates: `"{hero} saw [a animal] at the {place}."`

In braces stands what is known: `{hero}`, her pronoun `{hero.they}` (she), `{hero.them}` (her),
`{hero.their}` (her), `{hero.They}` (She), or a thing with its article, `{a thing}`. In brackets
stands a choice that is made as it is spoken: `[animal]` takes a word of the list "animal", `[a
animal]` puts its article before it, `[pet=animal]` remembers the word as "pet", and `[friend=person
not hero]` rules out the hero. `[helper.They]` chooses a pronoun.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from gptbook.tinyworld_people import Entity
from gptbook.tinyworld_speech import Chances, Mention, Options, Speaker

PRONOUNS = {
    "she": {"they": "she", "them": "her", "their": "her", "theirs": "hers"},
    "he": {"they": "he", "them": "him", "their": "his", "theirs": "his"},
    "it": {"they": "it", "them": "it", "their": "its", "theirs": "its"},
}
SOUNDS_LIKE_CONSONANT = ("unicorn", "uniform", "ukulele", "useful", "unicycle", "usual", "one-")
SOUNDS_LIKE_VOWEL = ("hour", "honest", "heir")

PIECE = re.compile(
    r"\{(?P<article>[aA] )?(?P<known>\w+)(?:\.(?P<form>\w+))?\}"
    r"|\[(?P<pronoun>\w+)\.(?P<pronoun_form>\w+)\]"
    r"|\[(?:(?P<name>\w+)=)?(?P<choice_article>[aA] )?(?P<list>\w+)(?: not (?P<barred>[\w ]+))?\]"
)
WORD = re.compile(r"[A-Za-z-]+")


class Known(NamedTuple):
    """A piece of a template: something that was named before."""

    name: str
    form: str = ""  # of the pronoun: they, Them, their ...; empty for the name itself
    article: str = ""  # "a ", "A " or nothing


class Choice(NamedTuple):
    """A piece of a template: a word that is chosen when it is spoken."""

    name: str  # under which the word is remembered; empty if it is not
    options: Options[Entity | str]  # each text ends with the character that follows the choice
    barred: tuple[str, ...]  # what must not be chosen again


class PronounChoice(NamedTuple):
    """A piece of a template: a pronoun that is chosen when it is spoken."""

    name: str
    form: str
    after: str  # the character that follows


Piece = str | Known | Choice | PronounChoice


class Wording(NamedTuple):
    """A template taken apart: its head has no choice, so that it shows which wording this is."""

    head: list[str | Known]
    tail: list[Piece]


class Wordings:
    """Several templates for the same turn of a story, equally likely.

    A mapping {outcome: templates} says which outcome each of them tells. No two templates may
    agree up to a choice, or up to where one of them ends: their words must part before.
    """

    def __init__(self, *templates: str, **outcomes: tuple[str, ...]) -> None:
        pairs = [("", text) for text in templates]
        pairs += [(name, text) for name, texts in outcomes.items() for text in texts]
        self.pairs = tuple(pairs)

    def only(self, outcome: str) -> tuple[tuple[str, str], ...]:
        """Return the pairs (outcome, template) with this outcome; all of them if it is empty."""
        pairs = tuple(pair for pair in self.pairs if not outcome or pair[0] == outcome)
        if not pairs:
            names = ", ".join(sorted({name for name, _ in self.pairs}))
            raise ValueError(f"no wording tells the outcome {outcome!r}, only: {names}")
        return pairs


class Telling(NamedTuple):
    """Wordings made ready for one language and one outcome."""

    chances: Chances
    wordings: list[Wording]
    outcomes: list[str]


def article_of(word: str) -> str:
    """Return "a " or "an ", whichever goes before the word."""
    vowel = word.startswith(SOUNDS_LIKE_VOWEL) or (
        word[0] in "aeiouAEIOU" and not word.startswith(SOUNDS_LIKE_CONSONANT)
    )
    return "an " if vowel else "a "


def capitalize(text: str) -> str:
    """Return the text with its first letter, and only that, in upper case."""
    return text[:1].upper() + text[1:]


class Language:
    """The words of a dialect, the templates made of them, and how pronouns are drawn.

    `lists` holds the words by the list's name, the frequent ones first; `swaps` the words that this
    dialect replaces wherever they occur; `p_she(name)` the probability that somebody known by this
    name only (an occupation) is a she.
    """

    def __init__(
        self,
        lists: Mapping[str, Iterable[Entity | str]],
        swaps: Mapping[str, str],
        p_she: Callable[[str], float],
    ) -> None:
        self.swaps = {**swaps, **{capitalize(w): capitalize(new) for w, new in swaps.items()}}
        self.lists = {name: [self.spoken(word) for word in words] for name, words in lists.items()}
        self.p_she = p_she
        self.first_words = first_words(self.lists)
        self._options: dict[tuple[str, str, str], Options[Entity | str]] = {}
        self._pronouns: dict[tuple[str, str, str], Options[str]] = {}
        self._tellings: dict[tuple[Wordings, str], Telling] = {}
        self._reasons: dict[tuple[str, ...], Options[str]] = {}

    def spoken(self, word: Entity | str) -> Entity | str:
        """Return a word or an entity as this dialect says it."""
        if isinstance(word, str):
            return self.translate(word)
        return Entity(self.translate(word.name), word.pronoun)

    def translate(self, text: str) -> str:
        """Return the text with this dialect's words."""
        return WORD.sub(lambda match: self.swaps.get(match.group(), match.group()), text)

    def options(self, name: str, article: str = "", after: str = "") -> Options[Entity | str]:
        """Return the choice of a word of a list; the capitalized name gives capitalized words.

        The word of rank r has a weight of 1/(r + 20): the first ones are said more often.
        """
        key = (name, article, after)
        if key not in self._options:
            words = self.lists[name.lower()]
            items = []
            for rank, word in enumerate(words):
                text = word if isinstance(word, str) else word.name
                text = article_of(text) + text if article else text
                text = capitalize(text) if article == "A " or name[0].isupper() else text
                items.append((text + after, 1 / (rank + 20), word))
            self._options[key] = Options(items)
        return self._options[key]

    def pronoun_options(self, name: str, form: str, after: str) -> Options[str]:
        """Return the choice between she and he for somebody known by occupation only."""
        key = (name, form, after)
        if key not in self._pronouns:
            p_she = self.p_she(name)
            pairs = (("she", p_she), ("he", 1 - p_she))
            self._pronouns[key] = Options(
                (pronoun_form(pronoun, form) + after, p, pronoun) for pronoun, p in pairs if p > 0
            )
        return self._pronouns[key]

    def reasons(self, names: tuple[str, ...]) -> Options[str]:
        """Return the choice of a reason ("it was too tired.") among lists; it tells the list."""
        if names not in self._reasons:
            self._reasons[names] = Options(
                (f"it was too {reason}.", 1 / (rank + 20), name)
                for name in names
                for rank, reason in enumerate(self.lists[name])
            )
        return self._reasons[names]

    def telling(self, wordings: Wordings, outcome: str) -> Telling:
        """Return the wordings with an outcome, taken apart; remembered for speed."""
        key = (wordings, outcome)
        if key not in self._tellings:
            pairs = wordings.only(outcome)
            parsed = [self.parse(text) for _, text in pairs]
            check_wordings_part(parsed, self.first_words)
            chances = Chances(1.0 for _ in pairs)
            self._tellings[key] = Telling(chances, parsed, [outcome for outcome, _ in pairs])
        return self._tellings[key]

    def parse(self, template: str) -> Wording:
        """Take a template apart. Raises ValueError when a choice is not followed by a sign."""
        pieces: list[Piece] = []
        position = 0
        for match in PIECE.finditer(template):
            pieces.append(self.translate(template[position : match.start()]))
            position = match.end()
            if match["known"]:
                pieces.append(Known(match["known"], match["form"] or "", match["article"] or ""))
                continue
            after = template[position : position + 1]
            if not after or after in "{[" or after.isalpha():
                raise ValueError(f"a space or a sign must follow {match.group()} in {template!r}")
            position += 1
            if match["pronoun"]:
                pieces.append(PronounChoice(match["pronoun"], match["pronoun_form"], after))
            else:
                options = self.options(match["list"], match["choice_article"] or "", after)
                barred = tuple((match["barred"] or "").split())
                pieces.append(Choice(match["name"] or "", options, barred))
        pieces.append(self.translate(template[position:]))
        pieces = [piece for piece in pieces if piece != ""]
        head: list[str | Known] = []
        for piece in pieces:
            if isinstance(piece, (Choice, PronounChoice)):
                break
            head.append(piece)
        return Wording(head, pieces[len(head) :])


def first_words(lists: Mapping[str, Iterable[Entity | str]]) -> frozenset[str]:
    """Return the first words of all names, as they are and capitalized."""
    entries = (entry for words in lists.values() for entry in words)
    words = {entry.name.split()[0] for entry in entries if isinstance(entry, Entity)}
    return frozenset(words | {capitalize(word) for word in words})


def pronoun_form(pronoun: str, form: str) -> str:
    """Return for instance "Her" for the pronoun "she" and the form "Their"."""
    word = PRONOUNS[pronoun][form.lower()]
    return capitalize(word) if form[0].isupper() else word


def check_wordings_part(wordings: list[Wording], names: frozenset[str]) -> None:
    """Raise ValueError unless any two heads differ before the shorter one ends.

    `names` holds the first words of the names that can stand in a slot.
    """
    for left, right in itertools.combinations(wordings, 2):
        for a, b in zip(left.head, right.head, strict=False):
            if a != b:
                if not pieces_part(a, b, names):
                    raise ValueError(f"these two may begin alike: {left.head} and {right.head}")
                break
        else:
            raise ValueError(f"one of these begins as the other: {left.head} and {right.head}")


def pieces_part(a: str | Known, b: str | Known, names: frozenset[str]) -> bool:
    """Return whether two different pieces surely part: neither text is a prefix of the other.

    Different people, things and places have different names, and nobody is named like a pronoun.
    """
    if isinstance(a, str) and isinstance(b, str):
        return not (a.startswith(b) or b.startswith(a))
    if isinstance(a, Known) and isinstance(b, Known):
        return a.name != b.name if not (a.form or b.form) else not (a.form and b.form)
    literal, known = (a, b) if isinstance(a, str) else (b, a)
    assert isinstance(literal, str)
    assert isinstance(known, Known)
    word = re.match(r"([A-Za-z'-]+)[^A-Za-z'-]", literal)
    if word is None:
        return not literal[0].isalpha()
    if known.form:
        return word[1] not in {pronoun_form(pronoun, known.form) for pronoun in PRONOUNS}
    return word[1] not in names


class Narrator:
    """Tells wordings to a speaker, and remembers what was named and who is meant by each pronoun.

    `known` maps a name such as "hero" or "color" to an entity or a word. `given` holds entities
    that are already decided: where a template would choose them, they are said.
    """

    def __init__(
        self, speaker: Speaker, language: Language, given: Mapping[str, Entity] | None = None
    ) -> None:
        self.speaker = speaker
        self.language = language
        self.given = dict(given or {})
        self.known: dict[str, Entity | str] = {}
        self.mentions: list[Mention] = []
        self.gap = ""  # said before the next wording

    def __getitem__(self, name: str) -> str:
        """Return what is known by a name, as text."""
        known = self.known[name]
        return known if isinstance(known, str) else known.name

    def name(self, name: str, entity: Entity | str) -> None:
        """Let the templates know an entity or a word by a name."""
        self.known[name] = entity

    def paragraph(self) -> None:
        """Begin a new paragraph with the next wording."""
        self.gap = "\n\n"

    def tell(self, wordings: Wordings, outcome: str = "") -> str:
        """Tell one of the wordings (with the outcome, if one is asked for); return its outcome."""
        telling = self.language.telling(wordings, outcome)
        start = self.speaker.position + len(self.gap)
        rendered: dict[int, tuple[str, list[Mention]]] = {}

        def spoken(index: int) -> str:
            rendered[index] = self.render(telling.wordings[index].head, start)
            return self.gap + rendered[index][0]

        index = self.speaker.pick(telling.chances, spoken)
        self.mentions += rendered[index][1]
        self.gap = " "
        for piece in telling.wordings[index].tail:
            self.utter(piece)
        return telling.outcomes[index]

    def say(self, template: str) -> None:
        """Tell a template that has no alternative, and go on right after it."""
        head, tail = self.language.parse(self.gap + template)
        self.gap = ""
        for piece in (*head, *tail):
            self.utter(piece)

    def utter(self, piece: Piece) -> None:
        """Say or choose one piece of a template."""
        start = self.speaker.position
        if isinstance(piece, str):
            self.speaker.say(piece)
        elif isinstance(piece, Known):
            text, mentions = self.render([piece], start)
            self.speaker.say(text)
            self.mentions += mentions
        elif isinstance(piece, Choice):
            self.choose_word(piece)
        else:
            person = self.known[piece.name]
            assert isinstance(person, Entity)
            options = self.language.pronoun_options(person.name, piece.form, piece.after)
            self.known[piece.name] = Entity(person.name, self.speaker.choose(options))
            end = self.speaker.position - len(piece.after)
            self.mentions.append(Mention(start, end, person.name))

    def choose_word(self, choice: Choice) -> None:
        """Choose a word, or say the one that is given, and remember it."""
        options = choice.options
        if choice.name in self.given:
            options = options.only(self.given[choice.name])
        elif choice.barred:
            options = options.without(*(self.known[name] for name in choice.barred))
        value = self.speaker.choose(options)
        if choice.name:
            self.known[choice.name] = value
        if isinstance(value, Entity):
            end = self.speaker.position - 1  # of the character that follows
            self.mentions.append(Mention(end - len(value.name), end, value.name))

    def render(self, pieces: Iterable[str | Known], start: int) -> tuple[str, list[Mention]]:
        """Return the text of pieces without choices, and the mentions in it."""
        text = ""
        mentions = []
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
                continue
            known = self.known[piece.name]
            name = known if isinstance(known, str) else known.name
            word = name
            if piece.form:
                assert isinstance(known, Entity)
                word = pronoun_form(known.pronoun, piece.form)
            elif piece.article:
                article = article_of(name)
                text += capitalize(article) if piece.article == "A " else article
            if isinstance(known, Entity):
                at = start + len(text)
                mentions.append(Mention(at, at + len(word), name))
            text += word
        return text, mentions
