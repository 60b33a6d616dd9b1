# Exported from chapters/01_tokenizer.md. Edit the cells there and run `make export`, or edit this
# file and run `python -m book.tools.export --back`.
"""Cut text into pieces, and give equal pieces equal numbers: what byte-pair encoding starts from.

A *piece* is what the pattern of GPT-2 cuts from a text: a word with the space before it, a number,
a run of punctuation, a run of white space. Merges never cross the border between two pieces.
"""

from __future__ import annotations

import functools
import itertools
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What GPT-2 cuts text with; tiktoken writes it with possessive quantifiers, and cuts alike."""

CHUNK = 1 << 17
"""Characters cut at a time: the temporary arrays of one chunk stay in the processor's cache."""


class Pieces(NamedTuple):
    """A stretch of text, cut: piece i is the bytes buffer[bounds[i] : bounds[i + 1]]."""

    buffer: NDArray[np.uint8]  # (n_bytes,) the pieces in UTF-8, one after the other
    bounds: NDArray[np.int64]  # (n_pieces + 1,) from 0 to n_bytes, strictly growing

    def tolist(self) -> list[bytes]:
        """Return the pieces one by one, for a look and for tests."""
        data, bounds = self.buffer.tobytes(), self.bounds.tolist()
        return [data[start:end] for start, end in itertools.pairwise(bounds)]


def split_pieces(text: str, pattern: str = GPT2_PATTERN, chunk: int = CHUNK) -> Iterator[Pieces]:
    """Cut text into pieces, about `chunk` characters at a time, so that memory stays bounded.

    Every piece is whole, whatever `chunk` is. GPT-2's pattern has a fast path; any other one runs
    through the regex module. Raises ValueError for a pattern that does not compile.
    """
    text = replace_surrogates(text)
    if pattern == GPT2_PATTERN:
        return split_by_class(text, chunk)
    return split_by_regex(text, pattern, chunk)


def replace_surrogates(text: str) -> str:
    """Return text that UTF-8 can hold: pairs of surrogates joined, lone ones made U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# Special tokens cut the text before any pattern does.


@functools.lru_cache(maxsize=64)
def special_pattern(special_tokens: frozenset[str]) -> regex.Pattern[str]:
    """Return a pattern that finds special tokens in text, the longest where several begin."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)))


def split_special(text: str, special_tokens: frozenset[str]) -> Iterator[str]:
    """Yield text in parts, in order, that are one special token each, or hold none."""
    start = 0
    for match in special_pattern(special_tokens).finditer(text) if special_tokens else ():
        if start < match.start():
            yield text[start : match.start()]
        yield match.group()
        start = match.end()
    if start < len(text):
        yield text[start:]


# The slow twin: what the pattern says, by the regex module.

NEW_IN_UNICODE_17_OR_18 = regex.compile(
    "[\u0558\u058b\u058c\u088f\u0c5c\u0cdc\u208f\u209d-\u209f\ua7ce\ua7cf\ua7d2\ua7d4\ua7dd\ua7e2"
    "\ua7f1\uab6c\uab6d\U000107bb-\U000107bf\U00010940-\U00010959\U00010ec5-\U00010ec7"
    "\U00010ed9-\U00010eee\U00011b0a\U00011db0-\U00011ddb\U00011de0-\U00011de9\U00011df1"
    "\U0001246f\U00012475-\U0001247f\U00012550-\U00012686\U00016ea0-\U00016eb8"
    "\U00016ebb-\U00016ed3\U00016ff2-\U00016ff6\U000187f8-\U000187ff\U00018cd6-\U00018cda"
    "\U00018d09-\U00018d20\U00018d80-\U00018df2\U00018e00-\U00019191\U000191a0-\U000191d2"
    "\U0001b123-\U0001b128\U0001b168\U0001d6a6\U0001df1f-\U0001df24\U0001df2b-\U0001df81"
    "\U0001df90-\U0001df96\U0001dfcd-\U0001dfff\U0001e6c0-\U0001e6de\U0001e6e0-\U0001e6e2"
    "\U0001e6e4\U0001e6e5\U0001e6e7-\U0001e6ed\U0001e6f0-\U0001e6f4\U0001e6fe\U0001e6ff"
    "\U0002b73a-\U0002b73f\U0002b81e\U0002cea2-\U0002cead\U000323b0-\U00033479"
    "\U0003d000-\U0003fc3f]"
)
"""Letters and numbers that Unicode 16.0 does not know yet.

What a letter is grows with every version of Unicode, and so with every version of the regex module.
A model must see the same ids forever, so ours is fixed at the version of tiktoken and tokenizers.
"""


def pin_unicode(text: str) -> str:
    """Return text, equally long, in which a newer letter is neither letter nor number again."""
    return text if text.isascii() else NEW_IN_UNICODE_17_OR_18.sub("\ue000", text)  # private use


@functools.cache
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern for cutting text; raises ValueError that says what is wrong with it."""
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a str, got {pattern!r}")
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error


def find_pieces(text: str, pattern: str = GPT2_PATTERN) -> Iterator[str]:
    """Yield what the pattern matches in text, one match after the other, without empty ones.

    Raises ValueError where the pattern leaves text out, which would be lost.
    """
    end = 0
    for match in compile_pattern(pattern).finditer(pin_unicode(text)):
        if match.start() > end:
            break
        if match.end() > end:
            yield text[end : match.end()]
            end = match.end()
    if end < len(text):
        raise ValueError(
            f"pattern {pattern!r} leaves out {text[end : end + 20]!r} at character {end:,}: every "
            "character must be in some match, for instance by '|.' at the end of the pattern"
        )


def split_by_regex(text: str, pattern: str, chunk: int = CHUNK) -> Iterator[Pieces]:
    """Cut text as the pattern says: for any pattern, and the oracle of the fast path."""
    pieces = map(str.encode, find_pieces(text, pattern))
    while batch := list(itertools.islice(pieces, max(1, chunk // 4))):  # a piece: about 4 bytes
        bounds = np.zeros(len(batch) + 1, np.int64)
        np.cumsum([len(piece) for piece in batch], out=bounds[1:])
        yield Pieces(np.frombuffer(b"".join(batch), np.uint8), bounds)


SHORT_TEXT = 1500
"""Characters up to which arrays cost more than they save."""

ASCII_PATTERN = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)
"""GPT2_PATTERN for ASCII text: the re module knows no \\p{L}, but takes a quarter of the time."""


def split_short(text: str, pattern: str = GPT2_PATTERN) -> Iterable[str]:
    """Return the pieces of a text that is too short for arrays to pay."""
    if pattern == GPT2_PATTERN and text.isascii():
        pieces: list[str] = ASCII_PATTERN.findall(text)
        return pieces
    return find_pieces(text, pattern)


# The fast path for GPT-2's pattern: every character has one of four classes, and pieces begin where
# the class changes, but for three exceptions: a space that joins the next piece, the last character
# of a longer run of white space, and contractions such as 's.

OTHER, LETTER, NUMBER, WHITE = range(4)
SPACE, APOSTROPHE = ord(" "), ord("'")
CONTRACTION = re.compile("'(?:[sdmt]|ll|ve|re)")


def classify(characters: str) -> NDArray[np.uint8]:
    """Return the class of each character, asked of the regex module, so that both paths agree."""
    classes = np.full(len(characters), OTHER, np.uint8)
    for run in regex.finditer(r"(\p{L}+)|(\p{N}+)|(\s+)", pin_unicode(characters)):
        classes[run.start() : run.end()] = run.lastindex or OTHER
    return classes


@functools.cache
def ascii_classes() -> bytes:
    """Return the table for bytes.translate from a byte to its class; only ASCII ones are used."""
    return classify("".join(map(chr, range(256)))).tobytes()


UNKNOWN = 255
"""The class of a code point that nobody has asked for yet."""


@functools.cache
def known_classes() -> NDArray[np.uint8]:
    """Return the table that `unicode_classes` fills in: planes 0 to 3, the others are all OTHER."""
    return np.full(0x40000, UNKNOWN, np.uint8)


def unicode_classes(chars: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the class of each code point; asks the regex module for 4096 of them at a time."""
    known = known_classes()
    classes = known.take(chars, mode="clip")  # U+3FFFF is OTHER, as are those beyond it
    if classes.max() == UNKNOWN:
        for block in np.unique(np.minimum(chars[classes == UNKNOWN], len(known) - 1) >> 12):
            first = int(block) << 12
            known[first : first + 4096] = classify("".join(map(chr, range(first, first + 4096))))
        classes = known.take(chars, mode="clip")
    return classes


def split_by_class(text: str, chunk: int = CHUNK) -> Iterator[Pieces]:
    """Cut text as GPT2_PATTERN says, a window of characters at a time.

    Whether a piece starts at a character depends on at most two more (the "re" of "'re"). So only
    starts with these two in the window count, and the next window begins at the last of them. A
    piece that fills its window doubles the next one: the work stays linear in the text's length.
    """
    position, size = 0, chunk
    while position < len(text):
        window = text[position : position + size]
        data, chars, classes = decode_window(window)
        is_start = piece_starts(chars, classes)
        split_contractions(window, is_start)
        starts = np.flatnonzero(is_start)
        if position + size < len(text):
            n_certain = int(np.searchsorted(starts, len(window) - 2, side="right"))
            starts = starts[:n_certain]
        if len(starts) > 1:  # else only the piece that begins the window is sure to begin
            bounds = starts if len(data) == len(window) else byte_offsets(data)[starts]
            yield Pieces(data[: bounds[-1]], bounds)
            position, size = position + int(starts[-1]), chunk
        else:
            size *= 2


def decode_window(
    window: str,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | NDArray[np.uint32], NDArray[np.uint8]]:
    """Return the bytes of text in UTF-8, its code points, and their classes."""
    encoded = window.encode()
    data = np.frombuffer(encoded, np.uint8)
    if len(encoded) == len(window):
        return data, data, np.frombuffer(encoded.translate(ascii_classes()), np.uint8)
    chars = np.frombuffer(window.encode("utf-32-le"), "<u4")
    return data, chars, unicode_classes(chars)


def byte_offsets(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where each character of UTF-8 begins in its bytes, and where the last one ends."""
    starts_character = np.append((data & 0xC0) != 0x80, True)
    return np.flatnonzero(starts_character)


def piece_starts(
    chars: NDArray[np.uint8] | NDArray[np.uint32], classes: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Return whether a piece starts at each character, and at the end: shape (n_chars + 1,)."""
    starts = np.ones(len(chars) + 1, np.bool_)
    inner = starts[1:-1]
    np.not_equal(classes[1:], classes[:-1], out=inner)
    # "a  b": of several white characters before a piece, the last stands alone ...
    white = classes == WHITE
    last_white = white[:-1] & ~white[1:]
    starts[:-2] |= last_white
    # ... unless it is a plain space: then the piece begins with it.
    inner &= ~(last_white & (chars[:-1] == SPACE))
    return starts


def split_contractions(window: str, starts: NDArray[np.bool_]) -> None:
    """Move the piece borders in starts, in place, for 's, 'd, 'm, 't, 'll, 've, and 're.

    Only an apostrophe that starts a piece counts: in "!'s" and " 's" it belongs to what is before.
    """
    spans = [match.span() for match in CONTRACTION.finditer(window)]
    if spans:
        begins, ends = np.array(spans).T
        counts = starts[begins]
        starts[begins[counts] + 1] = False
        starts[ends[counts]] = True


# Keys as numbers: most pieces of a text have been met before, so all that follows works on distinct
# ones, and on arrays of their numbers.


class KeyTable:
    """Numbers distinct keys of two 64-bit words 0, 1, 2, ..., and looks up a whole array at once.

    A hash table with open addressing: a key's home slot is its hash; if another key sits there, the
    next slot is tried. Every probe compares whole keys, so the answer is exact.
    """

    def __init__(self, capacity: int = 1 << 12) -> None:
        self._factors = [np.uint64(secrets.randbits(64) | 1) for _ in range(2)]  # odd
        self._size = 0
        self._keys = np.zeros((2, 0), np.uint64)
        self._slots = np.zeros(0, np.int32)  # the number of the key that sits here, or -1
        self._resize(capacity)

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> NDArray[np.uint64]:
        """The keys in the order of their numbers: shape (2, len(self))."""
        return self._keys[:, : self._size]

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the number of each key, shape (n,), or -1 for one not met before."""
        slots = self._home(keys)
        numbers = self._slots.take(slots)
        rows = np.flatnonzero(self._holds_other(numbers, keys))
        while len(rows):  # few after the first probe
            slots[rows] = self._next(slots[rows])
            numbers[rows] = self._slots[slots[rows]]
            rows = rows[self._holds_other(numbers[rows], keys[:, rows])]
        return numbers

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Give keys, distinct and not met before, the next numbers in their order."""
        end = self._size + keys.shape[1]
        if end > self._keys.shape[1]:
            self._resize(2 * end)
        self._keys[:, self._size : end] = keys
        self._place(np.arange(self._size, end, dtype=np.int32))
        self._size = end

    def intern(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the number of each key, shape (n,); keys not met before get the next numbers."""
        numbers = self.find(keys)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            new = keys[:, missing]
            order = np.lexsort(new)  # stable: of equal keys the first stays the first
            is_first = np.ones(len(order), np.bool_)
            np.any(np.diff(new[:, order]), axis=0, out=is_first[1:])
            self.add(new[:, np.sort(order[is_first])])
            numbers[missing] = self.find(new)
        return numbers

    def _home(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the slot where the search for each key begins: the top bits of a product.

        Each table draws its own factors: nobody can write a text whose keys all share one slot.
        """
        low, high = self._factors
        mixed = keys[0] * low + keys[1] * high
        n_bits = len(self._slots).bit_length() - 1
        slots: NDArray[np.int64] = (mixed >> np.uint64(64 - n_bits)).view(np.int64)
        return slots

    def _next(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return (slots + 1) & (len(self._slots) - 1)

    def _holds_other(
        self, numbers: NDArray[np.int32], keys: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Return whether a slot with this number holds another key than the wanted one."""
        low, high = self._keys
        other: NDArray[np.bool_] = low.take(numbers, mode="wrap") != keys[0]
        other |= high.take(numbers, mode="wrap") != keys[1]
        return other & (numbers >= 0)  # -1, a free slot, compared some key for nothing

    def _place(self, numbers: NDArray[np.int32]) -> None:
        """Let each of these keys sit in the first free slot from its home on."""
        slots = self._home(self._keys[:, numbers])
        while len(numbers):
            free = self._slots[slots] < 0
            self._slots[slots[free]] = numbers[free]  # of several on one slot, one stays
            moved = self._slots[slots] != numbers
            numbers, slots = numbers[moved], self._next(slots[moved])

    def _resize(self, capacity: int) -> None:
        """Make room for so many keys, with at least four slots for each, and place all anew."""
        keys = np.zeros((2, max(capacity, 1)), np.uint64)  # one at least, for free slots to read
        keys[:, : self._size] = self.keys
        self._keys = keys
        self._slots = np.full(4 << capacity.bit_length(), -1, np.int32)
        self._place(np.arange(self._size, dtype=np.int32))


SHORT = 15
"""Bytes of the longest piece whose bytes and length fit in a key."""

LONG_MARK = np.uint64(255 << 56)
"""The second word of a longer piece's key; the first is its number among the long ones."""


def byte_masks(first_byte: int) -> NDArray[np.uint64]:
    """Return, for lengths 0 to SHORT, the mask of what a word that starts at first_byte keeps."""
    kept = [min(max(length - first_byte, 0), 8) for length in range(SHORT + 1)]
    return np.array([(1 << (8 * n_bytes)) - 1 for n_bytes in kept], np.uint64)


LOW_MASKS, HIGH_MASKS = byte_masks(0), byte_masks(8)


def pack_short(pieces: Pieces) -> NDArray[np.uint64]:
    """Return keys of shape (2, n_pieces): up to 15 bytes of the piece, and their count on top.

    Two pieces of at most SHORT bytes are equal exactly if their keys are.
    """
    buffer, bounds = pieces
    padded = np.zeros(len(buffer) + 16, np.uint8)
    padded[: len(buffer)] = buffer
    word_at = np.ndarray(len(buffer) + 8, "<u8", padded, strides=(1,)).copy()  # bytes i to i + 7
    starts, lengths = bounds[:-1], np.minimum(np.diff(bounds), SHORT)
    keys = np.empty((2, len(starts)), np.uint64)
    np.bitwise_and(word_at.take(starts), LOW_MASKS.take(lengths), out=keys[0])
    np.bitwise_and(word_at.take(starts + 8), HIGH_MASKS.take(lengths), out=keys[1])
    keys[1] |= lengths.astype(np.uint64) << np.uint64(56)
    return keys


class PieceTable:
    """Numbers distinct pieces 0, 1, 2, ... as they come."""

    def __init__(self) -> None:
        self._table = KeyTable()
        self._long: dict[bytes, int] = {}  # pieces of more than SHORT bytes,
        self._long_pieces: list[bytes] = []  # and the same by their numbers
        self.n_long_bytes = 0

    def __len__(self) -> int:
        return len(self._table)

    def intern(self, pieces: Pieces) -> NDArray[np.int32]:
        """Return the number of each piece: shape (n_pieces,)."""
        keys = pack_short(pieces)
        long = np.flatnonzero(np.diff(pieces.bounds) > SHORT)
        if len(long):
            keys[0, long] = self._number_long(pieces, long)
            keys[1, long] = LONG_MARK
        return self._table.intern(keys)

    def pieces(self, start: int = 0) -> list[bytes]:
        """Return the pieces with the numbers from start on."""
        keys = self._table.keys[:, start:]
        packed = np.ascontiguousarray(keys.T, "<u8").tobytes()  # 16 bytes each, the last the length
        return [
            packed[i : i + packed[i + 15]] if packed[i + 15] <= SHORT else self._long_pieces[number]
            for i, number in zip(range(0, len(packed), 16), keys[0].tolist(), strict=True)
        ]

    def _number_long(self, pieces: Pieces, long: NDArray[np.int64]) -> list[int]:
        """Return the numbers among the long pieces of those that stand at the places long."""
        data, numbers = pieces.buffer.tobytes(), []
        for start, end in np.stack([pieces.bounds[long], pieces.bounds[long + 1]], axis=1).tolist():
            piece = data[start:end]
            if piece not in self._long:
                self._long[piece] = len(self._long)
                self._long_pieces.append(piece)
                self.n_long_bytes += len(piece)
            numbers.append(self._long[piece])
        return numbers
