# Exported from chapters/07_generation.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Text of a given form only: a regular expression, as an automaton over bytes and tokens.

The pattern is parsed into a nondeterministic automaton that reads bytes (Thompson 1968), that is
made deterministic, and for each of its states it is computed where each token's bytes lead. What
leads nowhere is not allowed.

A pattern always describes the whole text. It may hold characters, `.`, classes such as [a-z] and
[^"], \\d \\w \\s (ASCII) and \\D \\W \\S, escapes, groups, `|`, and * + ? {m} {m,} {m,n}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbook.tokenizer import BPETokenizer

# --- characters as bytes ---

Ranges = list[tuple[int, int]]
"""Characters, as first and last code points."""

LAST = 0x10FFFF


def inverted(ranges: Ranges) -> Ranges:
    """Return all code points but these."""
    result, start = [], 0
    for low, high in sorted(ranges):
        if start < low:
            result.append((start, low - 1))
        start = max(start, high + 1)
    return [*result, (start, LAST)] if start <= LAST else result


def byte_sequences(low: int, high: int) -> Iterator[Ranges]:
    """Yield lists of byte ranges that are together the UTF-8 forms of code points low to high."""
    if low <= 0xDFFF and high >= 0xD800:  # surrogates, which UTF-8 has not
        for first, last in ((low, 0xD7FF), (0xE000, high)):
            if first <= last:
                yield from byte_sequences(first, last)
        return
    cut = _cut(low, high)
    if cut is None:
        yield list(zip(chr(low).encode(), chr(high).encode(), strict=True))
    else:
        yield from byte_sequences(low, cut)
        yield from byte_sequences(cut + 1, high)


def _cut(low: int, high: int) -> int | None:
    """Return where the range falls into two of simpler form, or None if it is one row of bytes."""
    for limit in (0x7F, 0x7FF, 0xFFFF):  # the length changes
        if low <= limit < high:
            return limit
    if high <= 0x7F:
        return None
    for n_last in (1, 2, 3):
        mask = (1 << 6 * n_last) - 1  # of the bits in the last n bytes
        if low & ~mask != high & ~mask:  # an earlier byte differs, so these must take all values
            if low & mask:
                return low | mask
            if high & mask != mask:
                return (high & ~mask) - 1
    return None


# --- the pattern ---

CLASSES: dict[str, Ranges] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}
CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11}
MOST_STATES = 4000
"""More states than this, and a pattern is refused."""


class Moves:
    """A nondeterministic automaton: moves by a range of bytes, and free moves."""

    def __init__(self) -> None:
        self.by_byte: list[list[tuple[int, int, int]]] = []  # (low, high, target) of each state
        self.free: list[list[int]] = []

    def state(self) -> int:
        """Add a state."""
        if len(self.free) >= 10 * MOST_STATES:
            raise ValueError("the pattern is too large: use smaller numbers of repetitions")
        self.by_byte.append([])
        self.free.append([])
        return len(self.free) - 1

    def closure(self, states: set[int]) -> frozenset[int]:
        """Return the states and all that free moves lead to."""
        waiting = list(states)
        while waiting:
            for target in self.free[waiting.pop()]:
                if target not in states:
                    states.add(target)
                    waiting.append(target)
        return frozenset(states)


Part = Callable[[Moves, int], int]
"""A part of a pattern: adds itself behind a state, and returns the state at its end."""


def characters(ranges: Ranges) -> Part:
    """Return the part that is one character of these."""
    sequences = [sequence for low, high in ranges for sequence in byte_sequences(low, high)]
    if not sequences:
        raise ValueError("a class of the pattern holds no character")

    def build(moves: Moves, start: int) -> int:
        end = moves.state()
        for sequence in sequences:
            state = start
            for place, (low, high) in enumerate(sequence):
                target = end if place == len(sequence) - 1 else moves.state()
                moves.by_byte[state].append((low, high, target))
                state = target
        return end

    return build


def in_turn(parts: Sequence[Part]) -> Part:
    """Return the part that is these, one after the other."""

    def build(moves: Moves, start: int) -> int:
        for part in parts:
            start = part(moves, start)
        return start

    return build


def one_of(parts: Sequence[Part]) -> Part:
    """Return the part that is any of these."""

    def build(moves: Moves, start: int) -> int:
        end = moves.state()
        for part in parts:
            inner = moves.state()
            moves.free[start].append(inner)
            moves.free[part(moves, inner)].append(end)
        return end

    return build


def repeated(part: Part, least: int, most: int | None) -> Part:
    """Return the part, least to most times; None: without end."""

    def build(moves: Moves, start: int) -> int:
        state = start
        for _ in range(least):
            state = part(moves, state)
        end = moves.state()
        if most is None:
            loop = moves.state()
            moves.free[state].append(loop)
            moves.free[part(moves, loop)].append(loop)
            moves.free[loop].append(end)
            return end
        for _ in range(most - least):
            moves.free[state].append(end)
            inner = moves.state()
            moves.free[state].append(inner)
            state = part(moves, inner)
        moves.free[state].append(end)
        return end

    return build


class Parser:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.place = pattern, 0

    def parse(self) -> Part:
        """Return the whole pattern as a part."""
        part = self._choice()
        if self.place < len(self.pattern):
            raise self._error("a ) without its (")
        return part

    def _choice(self) -> Part:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else one_of(parts)

    def _sequence(self) -> Part:
        parts = []
        while self.place < len(self.pattern) and self.pattern[self.place] not in "|)":
            parts.append(self._repeats(self._atom()))
        return in_turn(parts)

    def _repeats(self, part: Part) -> Part:
        while self.place < len(self.pattern) and self.pattern[self.place] in "*+?{":
            sign = self._next()
            if sign == "{":
                part = repeated(part, *self._counts())
            else:
                part = repeated(part, int(sign == "+"), 1 if sign == "?" else None)
        return part

    def _counts(self) -> tuple[int, int | None]:
        close = self.pattern.find("}", self.place)
        low, comma, high = self.pattern[self.place : close].partition(",")
        if close < 0 or not low.isdecimal() or not (high.isdecimal() or not high):
            raise self._error("{ must begin {m}, {m,} or {m,n}; write \\{ for the character")
        self.place = close + 1
        least, most = int(low), int(high) if high else None if comma else int(low)
        if most is not None and most < least:
            raise self._error(f"{{{low},{high}}} has its numbers in the wrong order")
        return least, most

    def _atom(self) -> Part:
        sign = self._next()
        match sign:
            case "(":
                if self._take("?") and not self._take(":"):
                    raise self._error("of the groups with (? only (?: is known")
                part = self._choice()
                if not self._take(")"):
                    raise self._error("a ( without its )")
                return part
            case "[":
                return characters(self._class())
            case ".":
                return characters(inverted([(10, 10)]))
            case "\\":
                return characters(self._escaped())
            case "*" | "+" | "?" | "{":
                raise self._error(f"nothing to repeat before {sign}; write \\{sign}")
            case "^" | "$":
                raise self._error(f"{sign} is not needed, as a pattern is the whole text")
        return characters([(ord(sign), ord(sign))])

    def _class(self) -> Ranges:
        invert, ranges = self._take("^"), Ranges()
        while not self._take("]"):
            ranges += self._range()
        if not ranges:
            raise self._error("an empty class; write \\] for the character")
        return inverted(ranges) if invert else ranges

    def _range(self) -> Ranges:
        first = self._member()
        if self.pattern[self.place : self.place + 1] != "-" or (
            self.pattern[self.place + 1 : self.place + 2] == "]"
        ):
            return first
        self.place += 1
        last = self._member()
        low, high = first[0][0], last[-1][1]
        if (first, last) != ([(low, low)], [(high, high)]) or low > high:
            raise self._error("a range in the wrong order, or of classes")
        return [(low, high)]

    def _member(self) -> Ranges:
        sign = self._next()
        return self._escaped() if sign == "\\" else [(ord(sign), ord(sign))]

    def _escaped(self) -> Ranges:
        sign = self._next()
        if sign.lower() in CLASSES:
            ranges = CLASSES[sign.lower()]
            return ranges if sign.islower() else inverted(ranges)
        if sign in CONTROLS:
            return [(CONTROLS[sign], CONTROLS[sign])]
        if sign == "x":
            digits = self._next() + self._next()
            try:
                return [(int(digits, 16), int(digits, 16))]
            except ValueError:
                raise self._error("\\x needs two hexadecimal digits") from None
        if sign.isalnum():
            raise self._error(f"\\{sign} is not known")
        return [(ord(sign), ord(sign))]

    def _next(self) -> str:
        if self.place >= len(self.pattern):
            raise self._error("it ends too early")
        self.place += 1
        return self.pattern[self.place - 1]

    def _take(self, sign: str) -> bool:
        found = self.pattern[self.place : self.place + 1] == sign
        self.place += found
        return found

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"pattern {self.pattern!r}, at {self.place}: {problem}")


class Automaton(NamedTuple):
    """A deterministic automaton over bytes.

    Attributes:
        table: (S + 1, 256), the next state; S, the last row, is where nothing fits any more.
        complete: (S + 1,), where a text may end.
    """

    table: NDArray[np.int32]
    complete: NDArray[np.bool_]

    def matches(self, text: str) -> bool:
        """Return whether the whole text fits."""
        state = 0
        for byte in text.encode():
            state = self.table[state, byte]
        return bool(self.complete[state])


def compile_pattern(pattern: str) -> Automaton:
    """Return the automaton of a regular expression.

    Raises:
        ValueError: a mistake, or something that is not known, and where; or too many states.
    """
    moves = Moves()
    start = moves.state()
    end = Parser(pattern).parse()(moves, start)
    states = [moves.closure({start})]
    number = {states[0]: 0}
    rows: list[dict[int, int]] = []
    for here in states:  # which grows meanwhile
        rows.append({})
        for bytes_, targets in _steps(moves, here):
            there = moves.closure(targets)
            if there not in number:
                if len(states) == MOST_STATES:
                    raise ValueError(f"pattern {pattern[:60]!r} has more than {MOST_STATES} states")
                number[there] = len(states)
                states.append(there)
            rows[-1] |= dict.fromkeys(bytes_, number[there])
    table = np.full((len(states) + 1, 256), len(states), np.int32)
    for state, row in enumerate(rows):
        table[state, list(row)] = list(row.values())
    return Automaton(table, np.array([*(end in state for state in states), False]))


def _steps(moves: Moves, states: frozenset[int]) -> Iterator[tuple[range, set[int]]]:
    """Yield ranges of bytes, and the states to which each byte of them leads."""
    edges = [edge for state in states for edge in moves.by_byte[state]]
    cuts = sorted({low for low, _, _ in edges} | {high + 1 for _, high, _ in edges})
    for low, behind in pairwise(cuts):
        targets = {target for first, last, target in edges if first <= low <= last}
        if targets:
            yield range(low, behind), targets


# --- tokens ---

MASKS_KEPT = 256
"""States for which it is remembered where each token leads."""


class PatternConstraint:
    """Lets a model write only texts that a regular expression matches as a whole."""

    def __init__(self, pattern: str, tokenizer: BPETokenizer) -> None:
        """Compile the pattern for a vocabulary.

        Raises:
            ValueError: see `compile_pattern`.
        """
        self.automaton = compile_pattern(pattern)
        special = set(tokenizer.special_tokens.values())
        texts = {i: text for i, text in tokenizer.vocab.items() if text and i not in special}
        ids = sorted(texts, key=lambda token: -len(texts[token]))  # the longest first
        self.ids = np.array(ids)
        self.lengths = np.array([len(texts[token]) for token in ids])
        width = int(self.lengths[0])
        self.bytes = np.array(
            [[*texts[token], *[0] * (width - len(texts[token]))] for token in ids], np.uint8
        )
        self.vocab_size = tokenizer.vocab_size
        self._nowhere = len(self.automaton.table) - 1
        self._known: dict[int, tuple[NDArray[np.int32], NDArray[np.bool_]]] = {}

    def _ends(self, state: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return the state behind each id, and whether it is allowed."""
        if state not in self._known:
            if len(self._known) == MASKS_KEPT:
                self._known.clear()
            here = np.full(len(self.ids), state, np.int32)
            for place in range(self.bytes.shape[1]):  # all tokens of that length or more at once
                n_longer = int(np.searchsorted(-self.lengths, -place, "left"))
                here[:n_longer] = self.automaton.table[
                    here[:n_longer], self.bytes[:n_longer, place]
                ]
            ends = np.full(self.vocab_size, self._nowhere, np.int32)
            ends[self.ids] = here
            self._known[state] = ends, ends != self._nowhere
        return self._known[state]

    def allowed(self, state: int) -> NDArray[np.bool_]:
        """Return for each id whether it may follow."""
        return self._ends(state)[1]

    def advance(self, state: int, token: int) -> int:
        """Return the state behind a token."""
        return int(self._ends(state)[0][token])

    def complete(self, state: int) -> bool:
        """Return whether the text may end here."""
        return bool(self.automaton.complete[state])


# --- JSON ---

JSON_STRING = r'"([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
JSON_INT = r"-?(0|[1-9][0-9]*)"
JSON_FLOAT = JSON_INT + r"(\.[0-9]+)?([eE][+\-]?[0-9]+)?"

Shape = (
    type
    | None
    | str
    | bool
    | int
    | float
    | list["Shape"]
    | tuple["Shape", ...]
    | dict[str, "Shape"]
)


def json_pattern(shape: Shape) -> str:
    """Return a pattern for JSON of a shape, with spaces as `json.dumps` puts them.

    Args:
        shape: the type str, int, float or bool; a value such as None or "red", for itself; a tuple
            of shapes, for any of them; a list of one shape, for a list of any length; a dict, for
            an object with these keys in this order.

    Raises:
        TypeError: the shape is none of these.
        ValueError: a list has not one shape, or a tuple none.
    """
    simple = {str: JSON_STRING, int: JSON_INT, float: JSON_FLOAT, bool: "(true|false)"}
    if isinstance(shape, type):
        if shape not in simple:
            raise TypeError(f"a shape may be str, int, float or bool, got {shape.__name__}")
        return simple[shape]
    if isinstance(shape, dict):
        pairs = [_literal(json.dumps(k)) + ": " + json_pattern(v) for k, v in shape.items()]
        return r"\{" + ", ".join(pairs) + r"\}"
    if isinstance(shape, list):
        if len(shape) != 1:
            raise ValueError(f"a list must hold one shape, got {shape!r}")
        item = json_pattern(shape[0])
        return rf"\[({item}(, {item})*)?\]"
    if isinstance(shape, tuple):
        if not shape:
            raise ValueError("a tuple of shapes is empty, so that nothing would fit")
        return "(" + "|".join(map(json_pattern, shape)) + ")"
    if shape is None or isinstance(shape, str | bool | int | float):
        return _literal(json.dumps(shape))
    raise TypeError(f"no shape of JSON: {shape!r}")


def _literal(text: str) -> str:
    """Return the pattern that is just this text."""
    return "".join("\\" + c if not c.isalnum() and c.isascii() else c for c in text)
