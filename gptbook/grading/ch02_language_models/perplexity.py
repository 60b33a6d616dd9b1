"""Exercise 2.2: perplexities of models that cut a text into different tokens: its checks."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptbook.grading.ch02_language_models.common import CLOSE, is_close
from gptbook.grading.compare import difference, same, show
from gptbook.grading.exercise import Args, Check, Draw, Kind, source_of

Reports = dict[str, list[tuple[float, int]]]


def compare_models(
    text: str, reports: Mapping[str, Sequence[tuple[float, int]]]
) -> list[tuple[str, float, float]]:
    """Return name, perplexity per byte and per word of each model, the best first."""
    n_bytes, n_words = len(text.encode("utf-8")), len(text.split())
    rows = []
    for name, parts in reports.items():
        nats = 0.0
        for perplexity, n_tokens in parts:
            if n_tokens > 0:
                nats += n_tokens * math.log(perplexity)
        rows.append((name, math.exp(nats / n_bytes), math.exp(nats / n_words)))
    return sorted(rows, key=lambda row: row[1])


# --- inputs ---

WORDS = ("the", "cat", "sat", "on", "a", "mat", "because", "it", "was", "tired", "of", "walking")
BEYOND = ("né", "straße", "語", "жизнь", "👋🎉", "한국")
NAMES = ("bytes", "small", "large", "words")


def draw_text(stream: random.Random, n_words: int, words: Sequence[str] = WORDS) -> str:
    """Words with single spaces between."""
    return " ".join(stream.choices(words, k=n_words))


def draw_reports(stream: random.Random, n_words: int, n_parts: int) -> Reports:
    """What three models report; no two are near each other in perplexity per byte."""
    while True:
        reports: Reports = {}
        for name in stream.sample(NAMES, 3):
            per_word = stream.choice([1, 2, 3])
            sizes = [stream.randint(1, 3) * (1 + 3 * part) * per_word for part in range(n_parts)]
            sizes[-1] += n_words * per_word
            stream.shuffle(sizes)
            reports[name] = [(round(stream.uniform(3, 60), 2), size) for size in sizes]
        costs = sorted(_nats(parts) for parts in reports.values())
        if min(costs[1] / costs[0], costs[2] / costs[1]) > 1.1:
            return reports


def _nats(parts: Sequence[tuple[float, int]]) -> float:
    return sum(size * math.log(perplexity) for perplexity, size in parts)


def draw_one_part(stream: random.Random) -> list[Args]:
    """Each model reports on the whole text at once."""
    return [(draw_text(stream, 12), draw_reports(stream, 12, 1)) for _ in range(5)]


def draw_rivals(stream: random.Random) -> list[Args]:
    """Models whose right order is neither that of the dict nor that of a wrong formula."""
    cases: list[Args] = []
    while len(cases) < 5:
        reports = draw_reports(stream, 12, 1)
        flat = {name: parts[0] for name, parts in reports.items()}
        right = sorted(flat, key=lambda name: _nats([flat[name]]))
        wrong = [
            list(flat),
            list(flat)[::-1],
            sorted(flat, key=lambda name: flat[name][0]),
            sorted(flat, key=lambda name: math.prod(flat[name])),
            sorted(flat, key=lambda name: math.log(flat[name][0]) / flat[name][1]),
        ]
        if right not in wrong:
            cases.append((draw_text(stream, 12), reports))
    return cases


def draw_other_cuts(stream: random.Random) -> list[Args]:
    """The same total cost, reported for n tokens and for twice or three times as many."""
    cases: list[Args] = []
    for _ in range(4):
        perplexity, size, factor = (
            stream.uniform(20, 90),
            stream.randint(8, 20),
            stream.choice((2, 3)),
        )
        reports = {"a": [(perplexity, size)], "b": [(perplexity ** (1 / factor), size * factor)]}
        cases.append((draw_text(stream, 12), reports))
    return cases


def draw_spaces(stream: random.Random) -> list[Args]:
    """Words with several spaces and line ends between, before and after."""
    cases: list[Args] = []
    for _ in range(5):
        words = stream.choices(WORDS, k=10)
        gaps = [stream.choice(["  ", "\n", " \n\n", "\t", " "]) for _ in words[1:]]
        text = words[0] + "".join(gap + word for gap, word in zip(gaps, words[1:], strict=True))
        cases.append((f"\n{text}  \n", draw_reports(stream, 10, 1)))
    return cases


def draw_parts(stream: random.Random) -> list[Args]:
    """Several parts of different size."""
    return [(draw_text(stream, 20), draw_reports(stream, 6, 3)) for _ in range(5)]


def draw_beyond_ascii(stream: random.Random) -> list[Args]:
    """Words whose characters have several bytes."""
    return [(draw_text(stream, 9, BEYOND), draw_reports(stream, 9, 1)) for _ in range(5)]


def draw_long(stream: random.Random) -> list[Args]:
    """So many tokens that the text's probability is no float any more."""
    return [(draw_text(stream, 900), draw_reports(stream, 900, 1)) for _ in range(2)]


def draw_without_tokens(stream: random.Random) -> list[Args]:
    """A part without tokens among the others, and a model that called the text impossible."""
    cases: list[Args] = []
    for _ in range(3):
        reports = draw_reports(stream, 12, 1)
        for parts in reports.values():
            parts.insert(stream.randint(0, 1), (math.nan, 0))
        cases.append((draw_text(stream, 12), reports))
    impossible: Reports = {"a": [(math.inf, 14)], "b": [(17.5, 14)]}
    return [*cases, (draw_text(stream, 12), impossible)]


def legal(text: str, reports: Reports) -> bool:
    """Whether there is a word, and every part's numbers can be a report's."""
    parts = [part for name in reports for part in reports[name]]
    return (
        bool(text.split())
        and bool(reports)
        and all(size == 0 or (size > 0 and perplexity >= 1) for perplexity, size in parts)
    )


# --- verdicts ---


def is_a_table(args: Args, value: Any) -> str | None:
    """The form of the answer: a row for each model."""
    if not isinstance(value, list | tuple) or not all(_is_row(row) for row in value):
        return f"gives {show(value)}, expected a list of (name, per byte, per word)"
    names = [row[0] for row in value]
    if sorted(names) != sorted(args[1]):
        return f"has rows for {names}, expected one for each of {list(args[1])}"
    return None


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list | tuple)
        and len(row) == 3
        and isinstance(row[0], str)
        and all(isinstance(item, int | float | np.number) for item in row[1:])
    )


def is_best_first(args: Args, value: list[tuple[str, float, float]]) -> str | None:
    """The order of the rows, whatever their numbers."""
    names = [row[0] for row in value]
    expected = [row[0] for row in compare_models(*args)]
    return None if names == expected else f"gives the order {names}, expected {expected}"


def are_equal(_: Args, value: list[tuple[str, float, float]]) -> str | None:
    """Models that pay the same for the text are the same."""
    (one, byte_1, word_1), (other, byte_2, word_2) = value
    if is_close(byte_1, byte_2) and is_close(word_1, word_2):
        return None
    return (
        f"gives {show((byte_1, word_1))} for {one!r} and {show((byte_2, word_2))} for {other!r}, "
        "which give the text the same probability"
    )


UNITS = ("", "byte", "word")


def columns(*which: int) -> Any:
    """A verdict on some columns of the table, whatever the order of its rows."""

    def verify(args: Args, value: list[tuple[str, float, float]]) -> str | None:
        rows = {row[0]: row for row in value}
        for expected in compare_models(*args):
            for column in which:
                got = rows[expected[0]][column]
                if difference(expected[column], got, CLOSE):
                    return (
                        f"gives {show(got)} per {UNITS[column]} for {expected[0]!r}, "
                        f"expected {expected[column]:.6g}"
                    )
        return None

    return verify


FORM = "returns a row for each model"
CUTS = "models that pay the same are equal"
BEST = "the best is first"
ONE = "per byte, one part"
SPACES = "per word, any white space"
PARTS = "several parts"
BEYOND_ASCII = "characters of several bytes"
LONG = "long texts"
NO_TOKENS = "parts without tokens, impossible texts"


def same_table(a: Any, b: Any) -> bool:
    """Whether two tables are the same but for rounding."""
    return same(a, b, CLOSE)


def _oracle(name: str, draw: Draw, verify: Any, hint: int) -> Check:
    return Check(
        name,
        Kind.ORACLE,
        1,
        draw,
        verify,
        needs=(FORM,),
        legal=legal if draw not in (draw_rivals, draw_long) else None,
        same=same_table,
        hint=hint,
    )


CHECKS = (
    Check(FORM, Kind.CONTRACT, 1, draw_one_part, is_a_table, pure=True, same=same_table),
    Check(CUTS, Kind.PROPERTY, 1, draw_other_cuts, are_equal, (FORM,), same=same_table, hint=2),
    _oracle(BEST, draw_rivals, is_best_first, 4),
    _oracle(ONE, draw_one_part, columns(1), 2),
    _oracle(SPACES, draw_spaces, columns(2), 3),
    _oracle(PARTS, draw_parts, columns(1, 2), 1),
    _oracle(BEYOND_ASCII, draw_beyond_ascii, columns(1), 3),
    _oracle(LONG, draw_long, columns(1, 2), 2),
    _oracle(NO_TOKENS, draw_without_tokens, columns(1, 2), 4),
)

REFERENCE = source_of(compare_models)
